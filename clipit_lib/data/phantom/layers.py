"""The amount of each stain in a patch, built up layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipit_lib.data.phantom.chance import Chance
from clipit_lib.data.phantom.geometry import smooth, standardised


@dataclass(frozen=True)
class Noise:
    """Smooth random fields [b, side, side]; standardised, except warp and grain."""

    warp_x: np.ndarray
    warp_y: np.ndarray
    dying: np.ndarray
    pools: np.ndarray
    infiltrate: np.ndarray
    bare: np.ndarray
    nests: np.ndarray
    mottle: np.ndarray
    cloud: np.ndarray
    grain: np.ndarray
    speck: np.ndarray

    @staticmethod
    def of(chance: Chance, side: int) -> Noise:
        """The fields of a block of patches."""
        coarse = [smooth(chance.coarse[:, k], side) for k in range(7)]
        medium = [standardised(smooth(chance.medium[:, k], side)) for k in range(2)]
        fine = [smooth(chance.fine[:, k], side) for k in range(2)]
        regions = [standardised(field) for field in coarse[2:]]
        # Nests need ragged borders, finer than the lattice they follow.
        regions[-1] = standardised(regions[-1] + 0.45 * medium[1])
        return Noise(*coarse[:2], *regions, *medium, *fine)


@dataclass(frozen=True)
class Layers:
    """Stain densities and what lies where, each [b, side, side] float32.

    Attributes:
        haematoxylin, eosin: optical density of each stain, from 0 (none) up.
        stroma: share of a pixel that is connective tissue.
        wall: share that is the wall of a gland.
        solid: share that is epithelium in sheets, where nuclei fill the plane.
        dying: share that is necrotic.
    """

    haematoxylin: np.ndarray
    eosin: np.ndarray
    stroma: np.ndarray
    wall: np.ndarray
    solid: np.ndarray
    dying: np.ndarray

    def covered(
        self,
        share: np.ndarray,
        haematoxylin: np.ndarray | float,
        eosin: np.ndarray | float,
        stroma: np.ndarray | float = 0.0,
        wall: np.ndarray | float = 0.0,
        solid: np.ndarray | float = 0.0,
        dying: np.ndarray | float = 0.0,
    ) -> Layers:
        """The layers under a new one that takes `share` of each pixel."""
        rest = 1 - share
        return Layers(
            self.haematoxylin * rest + share * haematoxylin,
            self.eosin * rest + share * eosin,
            self.stroma * rest + share * stroma,
            self.wall * rest + share * wall,
            self.solid * rest + share * solid,
            self.dying * rest + share * dying,
        )
