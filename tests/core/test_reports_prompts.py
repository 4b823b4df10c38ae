"""Class prompts: the official texts, in the data set's order, and two ways to average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clipit_lib.data.reports import TEMPLATES, Averaging, ensemble_scores, prompts


def test_templates_are_those_of_the_paper() -> None:
    assert {name: len(set(templates)) for name, templates in TEMPLATES.items()} == {
        "conch": 22,
        "quiltnet": 4,
    }
    every = [template for templates in TEMPLATES.values() for template in templates]
    assert all(template.count("{}") == 1 and template.count("{") == 1 for template in every)
    assert all(template.endswith(".") for template in TEMPLATES["conch"])
    assert not any(template.endswith(".") for template in TEMPLATES["quiltnet"])
    # CONCH's texts come in pairs of "showing" and "of", but for the slides, examples and states.
    shown = {t.replace("showing", "of") for t in TEMPLATES["conch"] if "showing" in t}
    assert shown == {t for t in TEMPLATES["conch"] if " of {}" in t} - {
        "an example of {}.",
        "presence of {}.",
    }


def test_prompts_follow_the_order_of_the_classes() -> None:
    filled = prompts(["zebra", "ant {x}"], ["a {} b", "{}."])
    assert filled == [["a zebra b", "zebra."], ["a ant {x} b", "ant {x}."]]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other) / float(np.sqrt(one @ one) * np.sqrt(other @ other))


def by_hand(images: np.ndarray, texts: np.ndarray, averaging: Averaging) -> np.ndarray:
    scores = np.zeros((len(images), len(texts)))
    for i, image in enumerate(images):
        for c, templates in enumerate(texts):
            if averaging == "similarities":
                scores[i, c] = sum(cosine(image, t) for t in templates) / len(templates)
            else:
                mean = sum(t / np.sqrt(t @ t) for t in templates)
                scores[i, c] = cosine(image, mean)
    return scores


@pytest.mark.parametrize("averaging", ["similarities", "embeddings"])
def test_both_averagings_against_a_plain_loop(averaging: Averaging) -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((7, 5)), 3 * rng.standard_normal((4, 6, 5))
    ours = ensemble_scores(images, texts, averaging)
    np.testing.assert_allclose(ours, by_hand(images, texts, averaging), rtol=1e-12)
    single = ensemble_scores(images.astype(np.float32), texts.astype(np.float32), averaging)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, ours, atol=1e-6)


def test_the_two_ways_can_pick_different_classes() -> None:
    """Class 0's two templates stand at right angles around the image, class 1's agree.

    Similarities: 1/sqrt(2) = 0.707 each for class 0, 0.8 for class 1. The mean of class 0 points
    exactly at the image (cosine 1); class 1 keeps 0.8.
    """
    images = np.array([[1.0, 1.0]]) / np.sqrt(2)
    close = np.array([1.4, 0.2]) / np.sqrt(2)  # cosine with the image: 0.8
    texts = np.array([[[1.0, 0.0], [0.0, 1.0]], [close, close]])
    similarities = ensemble_scores(images, texts, "similarities")
    embeddings = ensemble_scores(images, texts, "embeddings")
    np.testing.assert_allclose(similarities, [[np.sqrt(0.5), 0.8]])
    np.testing.assert_allclose(embeddings, [[1.0, 0.8]])
    assert similarities.argmax() == 1 and embeddings.argmax() == 0


# Multiples of 1/8: lengths whose squares are too small for a float have no direction.
STEPS = st.integers(-8, 8).map(lambda step: step / 8)


@given(
    arrays.arrays(np.float64, (3, 4), elements=STEPS),
    arrays.arrays(np.float64, (5, 2, 4), elements=STEPS),
    st.permutations(range(5)),
    st.sampled_from(["similarities", "embeddings"]),
)
def test_permuted_classes_permute_columns(
    images: np.ndarray, texts: np.ndarray, order: list[int], averaging: Averaging
) -> None:
    whole = ensemble_scores(images, texts, averaging)
    np.testing.assert_allclose(ensemble_scores(images, texts[order], averaging), whole[:, order])
    assert np.isfinite(whole).all() and (np.abs(whole) <= 1 + 1e-9).all()
