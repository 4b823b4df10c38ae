"""Epithelium: glands around a lumen, ducts filled with cells, invading nests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipit_lib.data.phantom.chance import GLANDS, Chance
from clipit_lib.data.phantom.geometry import FIELD, column, hexagonal, pixel_centres, region
from clipit_lib.data.phantom.latents import Latents
from clipit_lib.data.phantom.layers import Layers, Noise

PITCH, SMALLEST = 31.0, 6.0


@dataclass(frozen=True)
class Glands:
    """Ellipses of glands, [b, GLANDS]: lengths in units, angle in radians.

    radius is 0 where there is no gland; warp [b] is how far borders stray, in units.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    stretch: np.ndarray
    angle: np.ndarray
    warp: np.ndarray

    @staticmethod
    def of(latents: Latents, chance: Chance) -> Glands:
        """Place the glands: side by side when regular, jumbled when not; filled ducts are large."""
        u = chance.glands
        disorder = disordered(latents)[:, None]
        pitch = PITCH * (1 + 0.55 * latents.filling)[:, None]
        across, down = hexagonal(GLANDS, 3)
        jitter = 0.15 + 0.45 * disorder
        x = pitch * (across + jitter * (u[..., 0] - 0.5))
        y = pitch * (down + jitter * (u[..., 1] - 0.5))
        turn = (2 * np.pi * chance.layout[:, 1])[:, None]
        shift = 0.5 * pitch[..., None] * (chance.layout[:, None, 2:4] - 0.5)
        # They appear one after another, those in the middle sooner, the last of them small.
        central = 0.5 * np.hypot(across, down)
        rank = (u[..., 2] + central).argsort(1).argsort(1)
        size = np.sqrt(np.clip(GLANDS * latents.glands[:, None] - rank, 0, 1))
        return Glands(
            FIELD / 2 + x * np.cos(turn) - y * np.sin(turn) + shift[..., 0],
            FIELD / 2 + x * np.sin(turn) + y * np.cos(turn) + shift[..., 1],
            pitch * 0.45 * size * (1 + 0.5 * disorder * (u[..., 3] - 0.6)),
            1 + (0.15 + 0.6 * disorder) * u[..., 4],
            np.pi * u[..., 5],
            2 + 18 * disorder[:, 0],
        )

    def depth(self, noise: Noise) -> np.ndarray:
        """[b, side, side]: 0 at the centre of the nearest gland, 1 at its border, more outside."""
        x, y = pixel_centres(noise.grain.shape[-1])
        x, y = x + column(self.warp) * noise.warp_x, y + column(self.warp) * noise.warp_y
        depth = np.full_like(noise.grain, 9.0)
        for k in range(GLANDS):
            rows = np.flatnonzero(self.radius[:, k] > SMALLEST)
            dx, dy = x[rows] - column(self.x[rows, k]), y[rows] - column(self.y[rows, k])
            cos, sin = np.cos(self.angle[rows, k]), np.sin(self.angle[rows, k])
            long = self.radius[rows, k] * self.stretch[rows, k]
            wide = self.radius[rows, k]
            along = dx * column(cos / long) + dy * column(sin / long)
            beside = dy * column(cos / wide) - dx * column(sin / wide)
            depth[rows] = np.minimum(depth[rows], np.sqrt(along**2 + beside**2))
        return depth


def disordered(latents: Latents) -> np.ndarray:
    """[b]: how far glands depart from round, even and single-layered; slow to set in."""
    return (1 - latents.regularity) ** 1.5


def epithelium(layers: Layers, latents: Latents, noise: Noise, depth: np.ndarray) -> Layers:
    """Draw nests, then glands, whose walls are cells and whose lumen is empty or debris."""
    layers = _nests(layers, latents, noise)
    filling, regularity = column(latents.filling), column(latents.regularity)
    layers = layers.covered(
        np.clip(1 - np.abs(depth - 1.07) / 0.07, 0, 1) * (0.25 + 0.6 * filling) * regularity,
        0.03,
        0.20 * (1 - filling),
    )
    goblets = column(goblet_cells(latents))
    haematoxylin, eosin = _cytoplasm(latents, noise)
    pale = goblets * np.clip(1.5 - 5 * np.abs(depth - 0.5) + 0.8 * noise.mottle, 0, 1)
    wall = np.clip((1 - depth) / 0.08 + 0.5, 0, 1)
    solid = np.clip(filling + 0.6 * column(disordered(latents)), 0, 1) * (depth < 0.88)
    layers = layers.covered(
        wall,
        haematoxylin * (1 - pale) + 0.14 * pale,
        eosin * (1 - pale) + 0.06 * pale,
        wall=1.0,
        solid=solid,
    )
    return _lumen(layers, latents, noise, depth)


def goblet_cells(latents: Latents) -> np.ndarray:
    """[b]: share of a gland's wall that holds mucin, as in normal colon."""
    share = 5 * latents.mucin * latents.glands * latents.regularity * (1 - latents.filling)
    return np.clip(share, 0, 1)


def _lumen(layers: Layers, latents: Latents, noise: Noise, depth: np.ndarray) -> Layers:
    size = 0.5 * np.clip(1 - 1.3 * latents.filling, 0, 1) * (1 - 0.6 * goblet_cells(latents))
    ragged = 0.06 * column(1 - latents.regularity) * noise.mottle
    lumen = np.clip((column(size) - depth + ragged) / 0.08, 0, 1)
    layers = layers.covered(lumen, 0.04, 0.05)
    # Comedo necrosis, or the dirty necrosis of a carcinoma's lumen.
    atypical = np.clip(latents.filling + 1 - latents.regularity, 0, 1)
    amount = column(np.clip(5 * latents.necrosis * atypical, 0, 1))
    core = column(size + 0.3 * np.sqrt(latents.necrosis))
    dead = amount * np.clip((core - depth) / 0.12, 0, 1)
    return layers.covered(dead, 0.20 + 0.3 * noise.speck, 0.42 + 0.4 * noise.grain, dying=0.7)


def _nests(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    share = region(noise.nests, 0.85 * latents.invasion, 0.25)
    haematoxylin, eosin = _cytoplasm(latents, noise)
    return layers.covered(share, haematoxylin, eosin, solid=1.0)


def _cytoplasm(latents: Latents, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin and eosin of cells around their nuclei: bluer the more atypical they are."""
    blue = column(0.13 + 0.12 * latents.pleomorphism)
    return blue + 0.02 * noise.mottle, 0.36 + 0.05 * noise.mottle + 0.05 * noise.grain
