"""What lies between the cells: collagen and muscle, necrosis, mucin, fat, bare glass."""

from __future__ import annotations

import numpy as np

from clipit_lib.data.phantom.chance import SITES, Chance
from clipit_lib.data.phantom.geometry import FIELD, column, hexagonal, pixel_centres, region
from clipit_lib.data.phantom.glands import goblet_cells
from clipit_lib.data.phantom.latents import Latents
from clipit_lib.data.phantom.layers import Layers, Noise

FAT_PITCH, FAT_RADIUS, MEMBRANE = 34.0, 20.0, 1.4


def across_fibres(latents: Latents, chance: Chance, noise: Noise) -> np.ndarray:
    """Distance across the fibres [b, side, side] in units: fibres run where it is constant."""
    x, y = pixel_centres(noise.grain.shape[-1])
    angle = column(np.pi * chance.layout[:, 0])
    waves = column(11 - 8 * latents.muscle) * (noise.warp_x + 0.1 * noise.cloud)
    return x * np.cos(angle) + y * np.sin(angle) + waves


def stroma(latents: Latents, chance: Chance, noise: Noise, across: np.ndarray) -> Layers:
    """Connective tissue over the whole patch: loose, collagenous or muscular."""
    fibres, muscle = column(latents.fibres), column(latents.muscle)
    # Fibres end, so that a streak is not one unbroken line.
    across = across + 0.7 * noise.mottle + 1.1 * noise.grain
    streak = 0.6 * _streak(chance.streaks, across / 1.3) + 0.6 * _streak(chance.streaks, across / 5)
    strength = 0.03 + 0.11 * fibres
    eosin = 0.24 + 0.28 * fibres + 0.12 * muscle + strength * streak + 0.05 * noise.grain
    haematoxylin = 0.07 + 0.05 * muscle + 0.02 * noise.mottle + 0.05 * noise.grain
    # Collagen bundles part from each other; loose tissue has holes; muscle is packed.
    clefts = np.clip(1.8 * streak - 1.4 + 0.6 * noise.mottle, 0, 1) * fibres
    holes = np.clip(0.9 * noise.mottle + 0.5 * noise.cloud - 0.6, 0, 1) * (1 - fibres)
    gaps = np.clip(clefts + 0.8 * holes, 0, 1) * (1 - 0.8 * muscle)
    full, none = np.ones_like(eosin), np.zeros_like(eosin)
    layers = Layers(haematoxylin, np.maximum(eosin, 0.1), full, none, none, none)
    return layers.covered(0.8 * gaps, 0.02, 0.04)


def _streak(profile: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The random profile [b, m], repeated, at places [b, side, side]."""
    below = np.floor(across)
    part = across - below
    index = below.astype(np.intp) % profile.shape[1]
    row = np.arange(len(profile))[:, None, None]
    after = (index + 1) % profile.shape[1]
    return (1 - part) * profile[row, index] + part * profile[row, after]


def necrosis(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    """Granular pink-purple debris without structure."""
    share = region(noise.dying, latents.necrosis, 0.5)
    crumbs = np.clip(2.5 * noise.grain + 0.4 * noise.mottle, -1, 1.5)
    eosin = 0.46 + 0.13 * crumbs + 0.06 * noise.cloud
    haematoxylin = 0.20 + 0.10 * crumbs + 0.25 * np.clip(3 * noise.speck - 0.5, 0, 1)
    return layers.covered(share, haematoxylin, eosin, dying=1.0)


def infiltrate(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    """The scant pale matrix between lymphocytes."""
    share = region(noise.infiltrate, latents.lymphocytes, 0.5)
    return layers.covered(0.6 * share, 0.16 + 0.05 * noise.grain, 0.22, stroma=1.0)


def mucin(layers: Layers, latents: Latents, noise: Noise, across: np.ndarray) -> Layers:
    """Pale blue-grey pools with faint strands. What goblet cells hold is drawn with the glands."""
    extent = latents.mucin * (1 - goblet_cells(latents))
    share = region(noise.pools, extent, 0.25)
    strands = np.sin(0.55 * across + noise.cloud) + 0.8 * noise.mottle
    return layers.covered(share, 0.17 + 0.035 * strands, 0.05 + 0.015 * noise.cloud)


def fat(layers: Layers, latents: Latents, chance: Chance) -> Layers:
    """Large empty vacuoles that touch along thin membranes."""
    rows = np.flatnonzero(latents.fat > 0.02)
    if not len(rows):
        return layers
    share = np.zeros_like(layers.eosin)
    share[rows] = _vacuoles(chance.sites[rows], latents.fat[rows], share.shape[-1])
    return layers.covered(share, 0.012, 0.015)


def _vacuoles(sites: np.ndarray, extent: np.ndarray, side: int) -> np.ndarray:
    """[b, side, side]: a soft Voronoi diagram, whose corners come out rounded as in fat."""
    x, y = pixel_centres(side)
    across, down = hexagonal(SITES, 3)
    centre_x = FIELD / 2 + FAT_PITCH * (across + 0.55 * (sites[..., 0] - 0.5))
    centre_y = FIELD / 2 + FAT_PITCH * (down + 0.55 * (sites[..., 1] - 0.5))
    # The cells turn to fat one after another, the last of them in part.
    rank = sites[..., 2].argsort(1).argsort(1)
    filled = np.clip(SITES * extent[:, None] - rank, 0, 1).astype(np.float32)
    distance = [
        np.hypot(x - column(centre_x[:, k]), y - column(centre_y[:, k])) for k in range(SITES)
    ]
    closeness = [np.exp(-d / np.float32(MEMBRANE)) for d in distance]
    total = np.sum(closeness, axis=0) + np.float32(1e-12)
    share = np.zeros_like(total)
    for k in range(SITES):
        size = column(filled[:, k])
        alone = closeness[k] / total
        inside = np.clip((alone - (1 - 0.25 * size)) * 8, 0, 1) * (size > 0)
        share = np.maximum(share, inside * np.clip(FAT_RADIUS - distance[k], 0, 1))
    return share


def glass(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    """Nothing but light, and a little dust."""
    share = region(noise.bare, latents.blank, 0.12)
    dust = np.clip(4 * noise.speck - 1.9, 0, 1)
    return layers.covered(share, 0.012 + 0.12 * dust, 0.012 + 0.08 * dust)
