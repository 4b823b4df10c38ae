"""What lies between the cells: collagen, muscle, mucin, necrosis, fat and bare glass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipit_lib.data.phantom.chance import Chance
from clipit_lib.data.phantom.geometry import (
    FIELD, column, pixel_centres, region, smooth, standardised,
)
from clipit_lib.data.phantom.latents import Latents


@dataclass(frozen=True)
class Fields:
    """Smooth noise [b, side, side] that the layers of a patch share."""

    warp_x: np.ndarray
    warp_y: np.ndarray
    patches: np.ndarray
    pools: np.ndarray
    infiltrate: np.ndarray
    bare: np.ndarray
    nests: np.ndarray
    cloud: np.ndarray
    mottle: np.ndarray
    grain: np.ndarray
    speck: np.ndarray

    @staticmethod
    def of(chance: Chance, side: int) -> Fields:
        coarse = [smooth(chance.coarse[:, k], side) for k in range(6)]
        medium = [standardised(smooth(chance.medium[:, k], side)) for k in range(3)]
        fine = [smooth(chance.fine[:, k], side) for k in range(2)]
        regions = [standardised(c) for c in coarse[2:]]
        return Fields(*coarse[:2], *regions, *medium, *fine)
