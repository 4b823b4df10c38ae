"""How many patches a data set has, said without opening it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from clipit_lib.data import crc5
from clipit_lib.data.published import PUBLISHED
from clipit_lib.settings import Crc5Data, PhantomData, Profile, PublishedData
from clipit_lib.workbench import Workbench


@dataclass(frozen=True)
class Sizes:
    """Patches a split, and the side of a kept patch in pixels."""

    train: int
    validation: int
    test: int
    side: int

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test


def sizes(profile: Profile, dataset: str) -> Sizes:
    """Sizes of one data set of a profile.

    Raises:
        ClipItError: it is the user's own and cannot be opened.
    """
    settings = profile.data_settings(dataset)
    if isinstance(settings, PhantomData):
        return Sizes(settings.train, settings.validation, settings.test, settings.side)
    if isinstance(settings, Crc5Data):
        counts: Mapping[str, int] = crc5.SIZES
        return _held_out(counts, settings.validation_split.fraction, settings.side)
    if isinstance(settings, get_args(PublishedData)):
        counts = PUBLISHED[settings.source].images
        drawn = settings.validation_split.by != "official"
        return _held_out(
            counts, settings.validation_split.fraction if drawn else 0.0, settings.side
        )
    data = Workbench(profile).dataset(dataset)
    train, validation, test = (len(data.indices(s)) for s in ("train", "validation", "test"))
    return Sizes(train, validation, test, data.pixels.shape[1])


def _held_out(counts: Mapping[str, int], fraction: float, side: int) -> Sizes:
    held = round(counts["train"] * fraction)
    return Sizes(counts["train"] - held, counts.get("validation", 0) + held, counts["test"], side)
