"""Phantom data sets by their settings."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from clipit_lib import kernels
from clipit_lib.data.patches import PatchData, Recipe, Undecoded, ValidationSplit
from clipit_lib.settings import PHANTOM_VERSION, Positive
from companion.phantom.latents import WORLDS, draw_dataset
from companion.phantom.patches import render

PHANTOM_LIMITS = "A phantom: drawn by a program, not tissue; it says nothing about patients."


class Phantom(PatchData):
    """Patches that a program draws: a phantom, never tissue."""

    side: Positive = 64

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Patches of train, validation and test."""
        raise NotImplementedError


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
        world = WORLDS[self.world]
        return Recipe(
            name=name,
            declaration={
                **self.model_dump(mode="json", exclude={"corpus", "validation_split"}),
                "phantom": PHANTOM_VERSION,
                "kernels": kernels.level(),
            },
            classes=world.classes,
            class_texts=world.class_texts,
            side=self.side,
            gather=self._draw,
            validation_split=self.validation_split,
            licence="made by this project and under its licence",
            limits=PHANTOM_LIMITS,
        )

    def _draw(self) -> Undecoded:
        latents, splits = draw_dataset(
            self.world, self.train, self.validation, self.test, self.seed
        )
        samples = pd.DataFrame(
            {
                "id": [f"{self.world}-{number:06d}" for number in range(len(splits))],
                "split": [str(split) for split in splits],
                "label": latents.label.astype(np.int64),
                "group": [f"patient-{patient}" for patient in latents.patient],
            }
        )

        def decode(begin: int, end: int) -> np.ndarray:
            return render(latents.take(slice(begin, end)), self.side, self.seed, first=begin)

        return Undecoded(samples, decode)
