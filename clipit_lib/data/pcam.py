"""PCAM: PatchCamelyon, decoded out of the files that torchvision downloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from clipit_lib.data import pcam_files as files
from clipit_lib.data.cache import Recipe, Undecoded, open_or_build
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.pcam_files import SHAPES, SPLITS
from clipit_lib.data.published import PUBLISHED, place, stamp
from clipit_lib.errors import ClipItError
from clipit_lib.settings import PcamData

NO_SLIDES = (
    "Not all slides are known (the files camelyonpatch_level_2_split_*_meta.csv say them), so "
    "intervals over patches are too narrow."
)


def open_pcam(name: str, settings: PcamData) -> PatchDataset:
    """Train, validation and test as published; slides as groups where a meta file is.

    Raises:
        ClipItError: a file is missing, packed, damaged, of another shape or length than
            published; see also `cache.open_or_build`.
    """
    folder, entry = place(settings.folder), PUBLISHED["pcam"]
    arrays = [files.h5_file(folder, part, kind) for part in SPLITS for kind in SHAPES]
    slides = [path for part in SPLITS if (path := files.meta_file(folder, part)).is_file()]
    recipe = Recipe(
        name=name,
        declaration={
            "source": "pcam",
            "folder": str(folder),
            "files": {path.name: stamp(path) for path in (*arrays, *slides)},
        },
        classes=entry.classes,
        class_texts=entry.class_texts,
        side=settings.side,
        gather=lambda: _undecoded(folder, settings.side),
        validation_split=settings.validation_split,
        licence=entry.terms,
        limits=entry.limits if len(slides) == len(SPLITS) else f"{entry.limits} {NO_SLIDES}",
    )
    return open_or_build(recipe)


def problems(settings: PcamData) -> list[ClipItError]:
    """What is wrong with the files, found within seconds: shapes, labels, counts, a few patches.

    Whole files are compared by `published.verify`.
    """
    found: list[ClipItError] = []
    counts = {}
    try:
        folder = place(settings.folder)
    except ClipItError as error:
        return [error]
    for part, split in SPLITS.items():
        try:
            counts[split] = files.count_patches(folder, part)
            for row in (0, counts[split] - 1):
                files.read_patches(folder, part, row, row + 1)
            files.read_labels(folder, part)
            files.read_slides(folder, part, counts[split])
        except ClipItError as error:
            found.append(error)
    try:
        if len(counts) == len(SPLITS):
            _validate(counts, folder)
    except ClipItError as error:
        found.append(error)
    return found


def _validate(counts: dict[str, int], folder: Path) -> None:
    PUBLISHED["pcam"].validate(counts, folder, files.again("the files"))


def _undecoded(folder: Path, side: int) -> Undecoded:
    counts = {part: files.count_patches(folder, part) for part in SPLITS}
    _validate({split: counts[part] for part, split in SPLITS.items()}, folder)
    tables = [
        pd.DataFrame(
            {
                "id": [f"{part}-{number:06d}" for number in range(count)],
                "split": SPLITS[part],
                "label": files.read_labels(folder, part),
                "group": files.read_slides(folder, part, count),
            }
        )
        for part, count in counts.items()
    ]

    def decode(begin: int, end: int) -> np.ndarray:
        first, blocks = 0, []
        for part, count in counts.items():
            inside = max(begin - first, 0), min(end - first, count)
            if inside[0] < inside[1]:
                blocks.append(files.read_patches(folder, part, *inside))
            first += count
        return _resized(np.concatenate(blocks), side)

    return Undecoded(pd.concat(tables, ignore_index=True), decode)


def _resized(patches: np.ndarray, side: int) -> np.ndarray:
    """[n, 96, 96, 3] to [n, side, side, 3], uint8."""
    if patches.shape[1] == side:
        return patches
    size, bicubic = (side, side), Image.Resampling.BICUBIC
    return np.stack([np.asarray(ImageOps.fit(Image.fromarray(p), size, bicubic)) for p in patches])
