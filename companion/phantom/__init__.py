"""A procedural H&E world with known truth: a phantom as in medical imaging, never tissue.

`latents` says which classes there are and draws the morphology of each patch, `patches` turns
latents into pixels, `reports` into sentences. Pixels depend on latents alone, never
on a label, so whatever a classifier finds out about the class it found in the morphology.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd

from clipit_lib import kernels
from clipit_lib.data.patches import PatchData, Recipe, Undecoded, ValidationSplit
from clipit_lib.settings import PHANTOM_VERSION, Positive
from companion.phantom.latents import WORLDS, Latents, draw_dataset
from companion.phantom.patches import render

PHANTOM_LIMITS = "A phantom: drawn by a program, not tissue; it says nothing about patients."


class Phantom(PatchData):
    """Patches that a program draws: a phantom, never tissue."""

    side: Positive = 64

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Patches of train, validation and test."""
        raise NotImplementedError

    def _recipe(
        self, name: str, classes: tuple[str, ...], class_texts: tuple[str, ...],
        gather: Callable[[], Undecoded], split: ValidationSplit,
    ) -> Recipe:  # fmt: skip
        dumped = self.model_dump(mode="json", exclude={"corpus", "validation_split"})
        return Recipe(
            name=name,
            declaration={**dumped, "phantom": PHANTOM_VERSION, "kernels": kernels.level()},
            classes=classes,
            class_texts=class_texts,
            side=self.side,
            gather=gather,
            validation_split=split,
            licence="made by this project and under its licence",
            limits=PHANTOM_LIMITS,
        )

    def _undecoded(self, name: str, latents: Latents, splits: np.ndarray, seed: int) -> Undecoded:
        """Patches of these latents, called NAME-NUMBER."""
        samples = pd.DataFrame({
            "id": [f"{name}-{number:06d}" for number in range(len(splits))],
            "split": splits.tolist(),
            "label": latents.label,
            "group": [f"patient-{patient}" for patient in latents.patient],
        })  # fmt: skip

        def decode(begin: int, end: int) -> np.ndarray:
            return render(latents.take(slice(begin, end)), self.side, seed, first=begin)

        return Undecoded(samples, decode)


class PhantomData(Phantom):
    """A procedural data set; `train`, `validation` and `test` count patches."""

    source: Literal["phantom"]
    world: Literal["pcam", "bach", "crc"]
    train: Positive
    validation: Positive
    test: Positive
    seed: int = 0
    validation_split: ValidationSplit = ValidationSplit()

    @property
    def paper_name(self) -> str:
        return self.world.upper()

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train, self.validation, self.test

    def recipe(self, name: str) -> Recipe:
        own = WORLDS[self.world]
        split = self.validation_split
        return self._recipe(name, own.classes, own.class_texts, self._draw, split)

    def _draw(self) -> Undecoded:
        latents, splits = draw_dataset(self.world, *self.sizes, self.seed)
        return self._undecoded(self.world, latents, splits, self.seed)
