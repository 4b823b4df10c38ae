"""The list of terms is well formed; each patch gets those nearest to it."""

from __future__ import annotations

import numpy as np
import pytest

from clipit_lib.data.reports import own_terms, term_texts
from clipit_lib.errors import ClipItError


def test_own_terms_are_a_list_of_different_terms() -> None:
    terms = own_terms()
    assert 120 <= len(terms) <= 200
    assert len({name.casefold() for name in terms}) == len(terms)
    assert all(name == name.strip() and name for name in terms)
    assert not any("," in name for name in terms)  # a comma parts terms in a text


TERMS = ("fat", "mucin", "gland", "nerve")


def test_images_get_their_nearest_terms_in_order() -> None:
    embeddings = np.eye(4, dtype=np.float32) * np.float32([[1], [9], [0.1], [1]])
    images = np.array(
        [[0.1, 0.5, 0.9, 0], [1, 0, 0, 0.5], [0.2, 0.5, 0.8, 0.1], [0, 0.9, 0.8, 0]], np.float32
    )
    texts, index = term_texts(images, embeddings, TERMS, 2)
    assert texts == ["gland, mucin", "fat, nerve", "mucin, gland"]
    assert index.tolist() == [0, 1, 0, 2]


def test_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    terms = own_terms()
    images = rng.standard_normal((50, 8)).astype(np.float32)
    embeddings = rng.standard_normal((len(terms), 8)).astype(np.float32)
    texts, index = term_texts(images, embeddings, terms, 3)
    assert len(set(texts)) == len(texts) and index.shape == (50,)
    for image, row in zip(images, index, strict=True):
        cosines = [float(image @ e / np.linalg.norm(e)) for e in embeddings]
        best = sorted(range(len(terms)), key=lambda k: -cosines[k])[:3]
        assert texts[row] == ", ".join(terms[k] for k in best)


def test_more_terms_a_patch_than_there_are() -> None:
    with pytest.raises(ClipItError, match="rank 5 of 4"):
        term_texts(np.ones((1, 2), np.float32), np.ones((4, 2), np.float32), TERMS, 5)
