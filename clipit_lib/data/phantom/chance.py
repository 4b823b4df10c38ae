"""All randomness of a patch, drawn at once from the patch's own seed.

Everything after this is arithmetic, so a patch has the same bytes in whatever block it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from clipit_lib.data.phantom.geometry import GLANDS, LATTICE, RING, SITES

COARSE, MEDIUM, FINE = 7, 18, 64


@dataclass(frozen=True)
class Chance:
    """Random numbers of a block of b patches, float32.

    Attributes:
        coarse: [b, 6, 7, 7] standard normals on a lattice over the field.
        medium: [b, 3, 18, 18] standard normals.
        fine: [b, 2, 64, 64] uniform in [-1, 1).
        streaks: [b, 96] standard normals, the profile across fibres.
        layout: [b, 8] uniform: orientation and offset of fibres and lattices.
        glands: [b, GLANDS, 6] uniform.
        sites: [b, SITES, 3] uniform, fat cells.
        ring: [b, GLANDS, RING, 6] uniform, nuclei of glands.
        lattice: [b, LATTICE, 8] uniform, all other nuclei.
    """

    coarse: np.ndarray
    medium: np.ndarray
    fine: np.ndarray
    streaks: np.ndarray
    layout: np.ndarray
    glands: np.ndarray
    sites: np.ndarray
    ring: np.ndarray
    lattice: np.ndarray


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
        normal(6, COARSE, COARSE),
        normal(3, MEDIUM, MEDIUM),
        2 * uniform(2, FINE, FINE) - 1,
        normal(96),
        uniform(8),
        uniform(GLANDS, 6),
        uniform(SITES, 3),
        uniform(GLANDS, RING, 6),
        uniform(LATTICE, 8),
    )


