"""What every data set offers, whatever its files look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from clipit_lib.errors import ClipItError

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class PatchDataset:
    """Decoded patches with labels and splits.

    Attributes:
        name: as the profile calls it.
        classes: class names; a label is an index into them.
        class_texts: how a sentence names each class, in the same order.
        samples: one row a patch: id (str), split, label (int), group (str, "" if unknown).
        pixels: [n, side, side, 3] uint8, memory-mapped, in the order of `samples`.
        content_hash: digest of pixels, labels, splits and groups.
        licence: terms of the images, to be shown before use.
        limits: what a reader of any result on these data must know.
    """

    name: str
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    samples: pd.DataFrame
    pixels: np.ndarray
    content_hash: str
    licence: str = "not stated"
    limits: str = ""

    @property
    def labels(self) -> np.ndarray:
        """[n] int64."""
        return self.samples["label"].to_numpy()

    @property
    def groups_known(self) -> bool:
        """Whether patients or slides are known (else intervals over patches are too narrow)."""
        return bool((self.samples["group"] != "").all())

    def indices(self, split: Split) -> np.ndarray:
        """Row numbers of one split, [m] int64, ascending."""
        return np.flatnonzero((self.samples["split"] == split).to_numpy())

    def validate(self) -> None:
        """Check what every consumer relies on.

        Raises:
            ClipItError: naming the first thing that does not hold.
        """
        shape = (len(self.samples), self.pixels.shape[1], self.pixels.shape[1], 3)
        self._require(self.pixels.dtype == np.uint8, f"pixels are {self.pixels.dtype}, not uint8")
        self._require(self.pixels.shape == shape, f"pixels {self.pixels.shape}, expected {shape}")
        self._require(len(self.class_texts) == len(self.classes), "class_texts and classes differ")
        self._require(self.samples["id"].is_unique, "sample ids are not unique")
        inside = self.samples["label"].between(0, len(self.classes) - 1)
        self._require(bool(inside.all()), f"labels outside 0..{len(self.classes) - 1}")
        for split in ("train", "validation", "test"):
            present = set(self.samples.loc[self.samples["split"] == split, "label"])
            missing = [self.classes[c] for c in range(len(self.classes)) if c not in present]
            self._require(not missing, f"no {split} patches of {', '.join(missing)}")
        if self.groups_known:
            spread = self.samples.groupby("group")["split"].nunique()
            shared = spread[spread > 1]
            self._require(shared.empty, f"group {shared.index.min()} is in several splits")

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise ClipItError(what, f"data set {self.name}", "Mend the data or its settings")
