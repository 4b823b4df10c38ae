"""BACH: 400 photographs, split by patients as kaiko's eva splits them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from clipit_lib.data.class_folders import list_images, open_listed, sample_problems
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.published import PUBLISHED, place
from clipit_lib.errors import ClipItError
from clipit_lib.settings import BachData

PER_CLASS = 100
# Numbers of the photographs, sorted by class folder and name, ends excluded (kaiko-ai/eva,
# bach.py: its train, and its val, which is the paper's test).
TRAIN = ((0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400))
TEST = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))
PREFIXES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
FIX = "Run `python -m clipit_lib fetch bach`, or mend `folder` in the profile"


def open_bach(name: str, settings: BachData) -> PatchDataset:
    """The photographs with eva's split; the shorter side resized to `side`, the centre kept.

    Raises:
        ClipItError: a class folder is missing, has not 100 photographs, or one is not readable;
            see also `cache.open_or_build`.
    """
    root = _photos(place(settings.folder))
    listed = _listed(root)
    return open_listed(name, settings, PUBLISHED["bach"], root, listed)


def problems(settings: BachData) -> list[ClipItError]:
    """What is wrong with the files, found within seconds: counts, and a few photographs."""
    try:
        root = _photos(place(settings.folder))
        listed = _listed(root)
    except ClipItError as error:
        return [error]
    return list(sample_problems(root, listed, PUBLISHED["bach"].image_size, PREFIXES))


def _photos(folder: Path) -> Path:
    """The folder with the class folders: `folder` itself, or nested as in the archive."""
    first = PUBLISHED["bach"].classes[0]
    nested = (folder / "ICIAR2018_BACH_Challenge" / "Photos", folder / "Photos")
    return next((each for each in nested if (each / first).is_dir()), folder)


def _listed(root: Path) -> pd.DataFrame:
    entry = PUBLISHED["bach"]
    listed = list_images(root, entry.classes, FIX)
    counts = listed["label"].value_counts()
    # The split goes by number, so one photograph too few would move all behind it.
    other = [f"{counts[c]} of {c}" for c in entry.classes if counts[c] != PER_CLASS]
    if other:
        what = f"{', '.join(other)}, expected {PER_CLASS} photographs of each class"
        raise ClipItError(what, root, f"Restore the published ones. {FIX}")
    splits = np.full(len(listed), "", dtype=object)
    for split, ranges in {"train": TRAIN, "test": TEST}.items():
        for begin, end in ranges:
            splits[begin:end] = split
    listed = listed.assign(split=splits, group="", sha256="")
    entry.validate(Counter(listed["split"].tolist()), root, FIX)
    return listed
