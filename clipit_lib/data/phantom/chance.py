"""All randomness of a patch, drawn at once from the patch's own seed.

Everything after this is arithmetic, so a patch has the same bytes in whatever block it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GLANDS, RING, SITES, LYMPHOID, EPITHELIAL, STROMAL = 9, 34, 9, 256, 144, 64


@dataclass(frozen=True)
class Chance:
    """Random numbers of a block of b patches, float32; uniform in [0, 1) unless said otherwise.

    Attributes:
        coarse: [b, 7, 7, 7] standard normals on lattices over the field.
        medium: [b, 2, 18, 18] standard normals.
        fine: [b, 2, 64, 64] in [-1, 1).
        streaks: [b, 96] standard normals, the profile across fibres.
        layout: [b, 8], orientation and offset of fibres and lattices.
        glands: [b, GLANDS, 6].
        sites: [b, SITES, 3], fat cells.
        ring: [b, GLANDS, RING, 7], nuclei in the wall of a gland.
        lymphoid, epithelial, stromal: [b, LYMPHOID or EPITHELIAL or STROMAL, 7], other nuclei.
    """

    coarse: np.ndarray
    medium: np.ndarray
    fine: np.ndarray
    streaks: np.ndarray
    layout: np.ndarray
    glands: np.ndarray
    sites: np.ndarray
    ring: np.ndarray
    lymphoid: np.ndarray
    epithelial: np.ndarray
    stromal: np.ndarray


def draw_chance(seed: int, patches: Sequence[int]) -> Chance:
    """The random numbers of these patch indices."""
    drawn = [_one(np.random.SeedSequence(seed, spawn_key=(index,))) for index in patches]
    return Chance(*(np.stack(parts) for parts in zip(*drawn, strict=True)))


def _one(seeds: np.random.SeedSequence) -> tuple[np.ndarray, ...]:
    rng = np.random.Generator(np.random.SFC64(seeds))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    def uniform(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    return (
        normal(7, 7, 7),
        normal(2, 18, 18),
        2 * uniform(2, 64, 64) - 1,
        normal(96),
        uniform(8),
        uniform(GLANDS, 6),
        uniform(SITES, 3),
        uniform(GLANDS, RING, 7),
        uniform(LYMPHOID, 7),
        uniform(EPITHELIAL, 7),
        uniform(STROMAL, 7),
    )
