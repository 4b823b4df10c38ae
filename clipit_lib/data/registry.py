"""Data sets by their settings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipit_lib.data.cache import Recipe, Undecoded, open_or_build
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.crc5 import open_crc5
from clipit_lib.data.folder import open_folder
from clipit_lib.settings import Crc5Data, DataSettings, FolderData, PhantomData


def open_dataset(name: str, settings: DataSettings) -> PatchDataset:
    """Open a data set; its patches are decoded or drawn into the cache first if need be."""
    if isinstance(settings, PhantomData):
        return _open_phantom(name, settings)
    if isinstance(settings, Crc5Data):
        return open_crc5(name, settings)
    assert isinstance(settings, FolderData)
    return open_folder(name, settings)


def _open_phantom(name: str, settings: PhantomData) -> PatchDataset:
    from clipit_lib.data.phantom import latents as world_latents
    from clipit_lib.data.phantom import render

    world = world_latents.WORLDS[settings.world]

    def gather() -> Undecoded:
        drawn, splits = world_latents.draw_dataset(
            settings.world, settings.train, settings.validation, settings.test, settings.seed
        )
        pixels = render.render(drawn, settings.side, settings.seed)
        samples = pd.DataFrame(
            {
                "id": [f"{name}-{i:06d}" for i in range(len(splits))],
                "split": np.asarray(splits).astype(str),
                "label": drawn.label.astype(np.int64),
                "group": [f"patient-{p}" for p in drawn.patient],
            }
        )
        return Undecoded(samples, lambda begin, end: pixels[begin:end])

    declaration = settings.model_dump(mode="json", exclude={"corpus"})
    return open_or_build(
        Recipe(
            name, declaration, world.classes, world.class_texts, settings.side, gather,
            settings.validation_split, "this project's",
            "A phantom: procedural images, not tissue.",
        )
    )  # fmt: skip
