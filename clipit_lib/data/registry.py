"""Data sets by their settings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipit_lib import kernels
from clipit_lib.data import bach, crc, pcam
from clipit_lib.data.cache import Recipe, Undecoded, open_or_build
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.crc5 import open_crc5
from clipit_lib.data.folder import open_folder
from clipit_lib.errors import ClipItError
from clipit_lib.settings import (
    BachData,
    Crc5Data,
    CrcData,
    DataSettings,
    PcamData,
    PhantomData,
    PublishedData,
)

PHANTOM_LIMITS = "A phantom: drawn by a program, not tissue; it says nothing about patients."


def open_dataset(name: str, settings: DataSettings) -> PatchDataset:
    """Open a data set; its patches are decoded or drawn into the cache first if need be.

    Raises:
        ClipItError: files are missing, damaged or do not fit the settings, or the cache cannot
            be used; the message says which and what to do.
    """
    if isinstance(settings, PhantomData):
        return _open_phantom(name, settings)
    if isinstance(settings, Crc5Data):
        return open_crc5(name, settings)
    if isinstance(settings, PcamData):
        return pcam.open_pcam(name, settings)
    if isinstance(settings, BachData):
        return bach.open_bach(name, settings)
    if isinstance(settings, CrcData):
        return crc.open_crc(name, settings)
    return open_folder(name, settings)


def problems(settings: PublishedData) -> list[ClipItError]:
    """What is wrong with the files of a published data set, [] if nothing; nothing is decoded.

    Looked at are presence, counts, names, sizes, labels and a few images of each part.
    """
    if isinstance(settings, PcamData):
        return pcam.problems(settings)
    if isinstance(settings, BachData):
        return bach.problems(settings)
    return crc.problems(settings)


def _open_phantom(name: str, settings: PhantomData) -> PatchDataset:
    # Here, so that data of the user can be opened without the phantom.
    from clipit_lib.data.phantom import VERSION
    from clipit_lib.data.phantom.latents import WORLDS

    world = WORLDS[settings.world]
    recipe = Recipe(
        name=name,
        declaration={
            **settings.model_dump(mode="json", exclude={"corpus", "validation_split"}),
            "phantom": VERSION,
            "kernels": kernels.level(),
        },
        classes=world.classes,
        class_texts=world.class_texts,
        side=settings.side,
        gather=lambda: _draw(settings),
        validation_split=settings.validation_split,
        licence="made by this project and under its licence",
        limits=PHANTOM_LIMITS,
    )
    return open_or_build(recipe)


def _draw(settings: PhantomData) -> Undecoded:
    from clipit_lib.data.phantom.latents import draw_dataset
    from clipit_lib.data.phantom.render import render

    latents, splits = draw_dataset(
        settings.world, settings.train, settings.validation, settings.test, settings.seed
    )
    samples = pd.DataFrame(
        {
            "id": [f"{settings.world}-{number:06d}" for number in range(len(splits))],
            "split": [str(split) for split in splits],
            "label": latents.label.astype(np.int64),
            "group": [f"patient-{patient}" for patient in latents.patient],
        }
    )

    def decode(begin: int, end: int) -> np.ndarray:
        return render(latents.take(slice(begin, end)), settings.side, settings.seed, first=begin)

    return Undecoded(samples, decode)
