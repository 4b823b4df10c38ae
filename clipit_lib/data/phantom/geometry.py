"""Lengths of the phantom and smooth fields over it.

The field of view is FIELD units wide whatever the side in pixels: about 100 micrometres, so that
a unit is 1.5 micrometres and the larger side shows the same tissue in finer detail.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri

FIELD = 64.0
GLANDS = 9
RING = 34
SITES = 10
LATTICE = 400


@lru_cache(maxsize=32)
def _interpolation(lattice: int, side: int) -> np.ndarray:
    """[side, lattice] weights of a cubic B-spline, the smoothest of the local kernels."""
    at = (np.arange(side) + 0.5) / side * (lattice - 3) + 1
    distance = np.abs(at[:, None] - np.arange(lattice))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth(lattice: np.ndarray, side: int) -> np.ndarray:
    """A smooth field [b, side, side] through random values [b, m, m]."""
    weights = _interpolation(lattice.shape[-1], side)
    return weights @ lattice @ weights.T


def standardised(field: np.ndarray) -> np.ndarray:
    """The field with mean 0 and standard deviation 1 in each patch."""
    centred = field - field.mean((1, 2), keepdims=True)
    return centred / np.sqrt((centred**2).mean((1, 2), keepdims=True) + 1e-6)


def region(field: np.ndarray, extent: np.ndarray, edge: float) -> np.ndarray:
    """Where a standardised field is low enough to cover about `extent` of a patch.

    Args:
        field: [b, side, side].
        extent: [b], 0 to 1.
        edge: width of the transition in standard deviations.

    Returns:
        [b, side, side] from 0 (outside) to 1 (inside).
    """
    threshold = 1.15 * ndtri(np.clip(extent, 1e-3, 1 - 1e-3)) - 0.35 * (extent < 0.03)
    inside = (column(threshold.astype(np.float32)) - field) / edge + 0.5
    return np.clip(inside, 0, 1)


def column(values: np.ndarray) -> np.ndarray:
    """[b] as [b, 1, 1] float32, to meet fields."""
    return values.astype(np.float32)[:, None, None]


def pixel_centres(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, 1, side] and y [1, side, 1] of pixel centres, in units."""
    centres = ((np.arange(side) + 0.5) * (FIELD / side)).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def sample(field: np.ndarray, patch: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Value of a field [b, side, side] at the pixels nearest to points in units, [k]."""
    side = field.shape[-1]
    scale = side / FIELD
    column_index = np.clip((x * scale).astype(np.intp), 0, side - 1)
    row_index = np.clip((y * scale).astype(np.intp), 0, side - 1)
    return field[patch, row_index, column_index]
