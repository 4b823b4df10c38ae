"""One-line image captions, as in the figures that pathology CLIPs learn from."""

from __future__ import annotations

import numpy as np

from clipit_lib.data.phantom.latents import Latents, world_named
from clipit_lib.reports.phantom_words import TISSUES, field_of, findings, pick

SHORTEST, LONGEST = 8, 25
NAMED, OMITTED = 0.6, 0.25
FRAMES = (
    "{}",
    "H&E section showing {}",
    "microscopy of {}",
    "histology with {}",
    "high power view of {}",
    "photomicrograph, {}",
    "tissue section with {}",
)
LONG_FRAMES = (
    "photomicrograph of a hematoxylin and eosin stained tissue section showing {}",
    "high magnification view of a routine H&E stained section with {}",
)


def captions(world: str, latents: Latents, rng: np.random.Generator) -> list[str]:
    """One caption a patch, of 8 to 25 words.

    A caption names some of the findings, each left out now and then, and in six of ten the kind
    of tissue, by the text of its class or a synonym.

    Raises:
        ClipItError: the world is unknown.
    """
    kinds = world_named(world)
    names = [
        (text, *TISSUES[world][name])
        for name, text in zip(kinds.classes, kinds.class_texts, strict=True)
    ]
    return [_caption(names[latents.label[k]], latents, k, rng) for k in range(len(latents))]


def _caption(names: tuple[str, ...], latents: Latents, row: int, rng: np.random.Generator) -> str:
    parts = [pick(rng, names)] if rng.random() < NAMED else []
    parts += findings(field_of(latents, row), rng, OMITTED)[: 2 + int(rng.integers(4))]
    frame = pick(rng, FRAMES)
    while _words(frame.format(joined(parts))) > LONGEST:
        parts.pop()
    if _words(frame.format(joined(parts))) < SHORTEST:
        frame = pick(rng, LONG_FRAMES)
    return frame.format(joined(parts))


def joined(parts: list[str]) -> str:
    """Phrases as an enumeration."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _words(text: str) -> int:
    return len(text.split())
