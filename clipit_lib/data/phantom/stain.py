"""From amounts of stain to colours, by the Beer-Lambert law."""

from __future__ import annotations

import numpy as np

from clipit_lib.data.phantom.geometry import column
from clipit_lib.data.phantom.latents import Latents

# Optical density of red, green and blue for one unit of stain, between the values of
# Ruifrok and Johnston (2001) and of Macenko et al. (2009), and the directions hue moves them.
HAEMATOXYLIN = np.array([0.62, 0.71, 0.34], np.float32)
EOSIN = np.array([0.17, 0.84, 0.51], np.float32)
BLUER_HAEMATOXYLIN = np.array([0.05, -0.01, -0.05], np.float32)
BLUER_EOSIN = np.array([0.03, 0.00, -0.05], np.float32)
WARMER = np.array([-0.006, 0.002, 0.010], np.float32)


def transmitted(haematoxylin: np.ndarray, eosin: np.ndarray, latents: Latents) -> np.ndarray:
    """Light that passes the section, [b, side, side, 3] uint8.

    I = 255 exp(-(c_H v_H + c_E v_E)), with the stain vectors of each patient. The densities
    [b, side, side] are in units of the usual stain strength and thickness.
    """
    h_vector = HAEMATOXYLIN + latents.haematoxylin_hue[:, None] * BLUER_HAEMATOXYLIN
    e_vector = EOSIN + latents.eosin_hue[:, None] * BLUER_EOSIN
    h_amount = haematoxylin * column(latents.haematoxylin * latents.thickness)
    e_amount = eosin * column(latents.eosin * latents.thickness)
    lamp = np.clip(0.015 + latents.tint[:, None] * WARMER, 0, None)
    pixels = np.empty((*haematoxylin.shape, 3), np.uint8)
    for channel in range(3):
        density = h_amount * column(h_vector[:, channel]) + e_amount * column(e_vector[:, channel])
        light = np.exp(-np.maximum(density, 0) - column(lamp[:, channel]))
        pixels[..., channel] = 255 * light
    return pixels
