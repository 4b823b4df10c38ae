"""Latents to pixels."""

from __future__ import annotations

import numpy as np

from clipit_lib.data.phantom import glands, ground, nuclei
from clipit_lib.data.phantom.chance import draw_chance
from clipit_lib.data.phantom.latents import Latents
from clipit_lib.data.phantom.layers import Noise
from clipit_lib.data.phantom.raster import paint
from clipit_lib.data.phantom.stain import transmitted
from clipit_lib.errors import ClipItError

SMALLEST_SIDE = 16
PIXELS_PER_BLOCK = 2**17


def render(latents: Latents, side: int, seed: int, first: int = 0) -> np.ndarray:
    """Draw patches, [n, side, side, 3] uint8.

    The field of view is the same at every side. Patch i has its own random numbers, made of
    `seed` and `first + i`, so rendering in blocks that say where they start gives the same bytes.

    Raises:
        ClipItError: the side is below 16 pixels.
    """
    if side < SMALLEST_SIDE:
        raise ClipItError(f"side {side}", "phantom", f"Use at least {SMALLEST_SIDE} pixels")
    pixels = np.empty((len(latents), side, side, 3), np.uint8)
    step = max(1, PIXELS_PER_BLOCK // side**2)
    for start in range(0, len(latents), step):
        block = slice(start, min(start + step, len(latents)))
        indices = range(first + block.start, first + block.stop)
        pixels[block] = _block(latents.take(block), side, seed, indices)
    return pixels


def _block(latents: Latents, side: int, seed: int, indices: range) -> np.ndarray:
    chance = draw_chance(seed, indices)
    noise = Noise.of(chance, side)
    across = ground.across_fibres(latents, chance, noise)
    placed = glands.Glands.of(latents, chance)
    layers = ground.stroma(latents, chance, noise, across)
    layers = ground.infiltrate(layers, latents, noise)
    layers = ground.necrosis(layers, latents, noise)
    layers = ground.mucin(layers, latents, noise, across)
    layers = glands.epithelium(layers, latents, noise, placed.depth(noise))
    layers = ground.fat(layers, latents, chance)
    layers = ground.glass(layers, latents, noise)
    cells = nuclei.Nuclei.concatenate(
        [
            nuclei.stromal(latents, chance, noise, layers, across),
            nuclei.lymphoid(latents, chance, noise, layers),
            nuclei.solid(latents, chance, layers),
            nuclei.ring(latents, chance, noise, layers, placed),
        ]
    )
    density, cover = paint(cells, noise)
    haematoxylin = layers.haematoxylin * (1 - cover) + density
    return transmitted(haematoxylin, layers.eosin * (1 - 0.6 * cover), latents)
