"""Lengths of the phantom and smooth fields over it.

The field of view is FIELD units wide whatever the side in pixels: about 100 micrometres, so a
unit is 1.5 micrometres, and a larger side shows the same tissue in finer detail.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri

FIELD = 64.0


@lru_cache(maxsize=32)
def _spline(lattice: int, side: int) -> np.ndarray:
    """[side, lattice] weights of the cubic B-spline that spans a lattice over the field."""
    at = (np.arange(side) + 0.5) / side * (lattice - 3) + 1
    distance = np.abs(at[:, None] - np.arange(lattice))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth(lattice: np.ndarray, side: int) -> np.ndarray:
    """A smooth field [b, side, side] through random values [b, m, m]."""
    weights = _spline(lattice.shape[-1], side)
    return weights @ lattice @ weights.T


def standardised(field: np.ndarray) -> np.ndarray:
    """The field [b, side, side] with mean 0 and standard deviation 1 in each patch."""
    centred = field - field.mean((1, 2), keepdims=True)
    return centred / np.sqrt((centred**2).mean((1, 2), keepdims=True) + 1e-6)


def region(field: np.ndarray, extent: np.ndarray, edge: float) -> np.ndarray:
    """Where a standardised field is low enough to cover about `extent` of a patch.

    Args:
        field: [b, side, side].
        extent: [b], from 0 to 1.
        edge: width of the border in standard deviations.

    Returns:
        [b, side, side] from 0 (outside) to 1 (inside).
    """
    # Stretched, so that the ends of the range are nowhere and everywhere.
    threshold = ndtri(np.clip(1.06 * extent - 0.03, 1e-5, 1 - 1e-5))
    return np.clip((column(threshold) - field) / np.float32(edge) + np.float32(0.5), 0, 1)


def column(values: np.ndarray) -> np.ndarray:
    """[b] as [b, 1, 1] float32, to meet fields."""
    return values.astype(np.float32)[:, None, None]


def pixel_centres(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, 1, side] and y [1, side, 1] of pixel centres, in units."""
    centres = ((np.arange(side) + 0.5) * (FIELD / side)).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def sample(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Value of a field [b, side, side] at the pixels nearest to points [b, k] in units."""
    side = field.shape[-1]
    columns = np.clip(x * (side / FIELD), 0, side - 1).astype(np.intp)
    rows = np.clip(y * (side / FIELD), 0, side - 1).astype(np.intp)
    return field[np.arange(len(field))[:, None], rows, columns]


def hexagonal(count: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y [count] of a hexagonal lattice of pitch 1 around the origin, row by row."""
    row, place = np.divmod(np.arange(count), columns)
    x = place - (columns - 1) / 2 + 0.5 * (row % 2) - 0.25
    y = (row - (count // columns - 1) / 2) * np.sqrt(0.75)
    return x.astype(np.float32), y.astype(np.float32)
