"""Draw nuclei into the haematoxylin layer."""

from __future__ import annotations

import numpy as np

from clipit_lib.data.phantom.geometry import FIELD
from clipit_lib.data.phantom.layers import Noise
from clipit_lib.data.phantom.nuclei import Nuclei

PIXELS_AT_ONCE = 2**19


def paint(nuclei: Nuclei, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Chromatin density and nuclear cover (0 to 1), both [b, side, side].

    Where nuclei overlap the darker one is seen, whatever the order they are drawn in.
    """
    density, cover = np.zeros_like(noise.grain), np.zeros_like(noise.grain)
    scale = density.shape[-1] / FIELD
    reach = np.ceil(1.25 * nuclei.long * scale).astype(int) + 1
    # Windows of similar size go together, so that small nuclei do not pay for large ones.
    bins = 1 + 2 * (reach // 2)
    for half in np.unique(bins):
        rows = np.flatnonzero(bins == half)
        step = max(1, PIXELS_AT_ONCE // int(2 * half + 1) ** 2)
        for start in range(0, len(rows), step):
            part = nuclei.take(rows[start : start + step])
            _stamp(part, int(half), noise, density.reshape(-1), cover.reshape(-1))
    return density, cover


def _stamp(nuclei: Nuclei, half: int, noise: Noise, density: np.ndarray, cover: np.ndarray) -> None:
    """Raise the flat layers to these nuclei, each within `half` pixels of its centre."""
    side = noise.grain.shape[-1]
    unit = np.float32(FIELD / side)
    offsets = np.arange(-half, half + 1)
    columns = np.floor(nuclei.x / unit).astype(np.int32)[:, None] + offsets
    rows = np.floor(nuclei.y / unit).astype(np.int32)[:, None] + offsets
    dx = ((columns + 0.5) * unit - nuclei.x[:, None]).astype(np.float32)[:, None, :]
    dy = ((rows + 0.5) * unit - nuclei.y[:, None]).astype(np.float32)[:, :, None]
    cos, sin = np.cos(nuclei.angle), np.sin(nuclei.angle)
    along = dx * _window(cos / nuclei.long) + dy * _window(sin / nuclei.long)
    beside = dy * _window(cos / nuclei.wide) - dx * _window(sin / nuclei.wide)
    squared = along**2 + beside**2
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[
        :, None
    ]
    which, row, place = np.nonzero((squared < 1.6) & inside)
    flat = (nuclei.patch[which] * side + rows[which, row]) * side + columns[which, place]
    lobes = nuclei.rough[which].astype(np.float32) * noise.mottle.reshape(-1)[flat]
    radius = np.sqrt(squared[which, row, place]) + lobes
    alpha = np.clip((1 - radius) * nuclei.wide[which] / unit + 0.5, 0, 1).astype(np.float32)
    speck = noise.speck.reshape(-1)[flat]
    cleared = 0.55 * nuclei.vesicular[which] * np.clip(1.2 - radius**2, 0, 1)
    rim = 0.25 * np.clip(2.5 * radius - 1.5, 0, 1)
    chromatin = nuclei.density[which] * (0.9 + 0.8 * speck - cleared + rim)
    np.maximum.at(density, flat, (alpha * chromatin).astype(np.float32))
    np.maximum.at(cover, flat, alpha)


def _window(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]
