"""Class prompts: the templates of CONCH and QuiltNet (appendix E), and scores of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from clipit_lib.errors import ClipItError
from clipit_lib.files import digest

Averaging = Literal["similarities", "embeddings"]

# `{}` stands for the class; the wording, full stops included, is that of the models' authors.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "conch": (
        "an H&E image of {}.",
        "{}.",
        "a photomicrograph showing {}.",
        "a photomicrograph of {}.",
        "an image of {}.",
        "an image showing {}.",
        "an example of {}.",
        "{} is shown.",
        "this is {}.",
        "there is {}.",
        "a histopathological image showing {}.",
        "a histopathological image of {}.",
        "a histopathological photograph of {}.",
        "a histopathological photograph showing {}.",
        "shows {}.",
        "presence of {}.",
        "{} is present.",
        "an H&E stained image of {}.",
        "an H&E stained image showing {}.",
        "an H&E image showing {}.",
        "{}, H&E stain.",
        "{}, H&E.",
    ),
    "quiltnet": (
        "a histopathology slide showing {}",
        "histopathology image of {}",
        "pathology tissue showing {}",
        "presence of {} tissue on image",
    ),
}


def wording(templates: str) -> str:
    """A digest of what named templates say."""
    return digest(*TEMPLATES[templates])


def prompts(class_texts: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Every template filled with every class: [classes][templates], classes in their order.

    Raises:
        ClipItError: a template does not have exactly one `{}`.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise ClipItError(
                f"{template.count('{}')} places for a class in {template!r}",
                "templates",
                "Write {} once, where the class goes",
            )
    return [[template.replace("{}", text) for template in templates] for text in class_texts]


def ensemble_scores(
    images: Float[np.ndarray, "n d"],
    texts: Float[np.ndarray, "classes templates d"],
    averaging: Averaging,
) -> Float[np.ndarray, "n classes"]:
    """Scores of a prompt ensemble; the answer is the class of the highest.

    Args:
        averaging: "similarities" (appendix E): mean over templates of the cosine similarities.
            "embeddings" (CONCH's own example): cosine similarity with the mean of the unit-length
            template embeddings, brought back to unit length. The first is the second times the
            length of that mean, so it favours classes on whose templates the model agrees.
    """
    mean = _unit(texts).mean(axis=1)
    if averaging == "embeddings":
        mean = _unit(mean)
    return _unit(images) @ mean.T


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)
