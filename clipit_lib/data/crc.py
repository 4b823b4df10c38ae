"""CRC: NCT-CRC-HE-100K to train on, CRC-VAL-HE-7K to test on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from clipit_lib.data.class_folders import folders, list_images, open_listed, sample_problems
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.published import PUBLISHED, place
from clipit_lib.errors import ClipItError
from clipit_lib.settings import CrcData

PARTS = {"train": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}
NOT_NORMALISED = "NCT-CRC-HE-100K-NONORM"
FIX = "Run `python -m clipit_lib fetch crc`, or mend `folder` in the profile"


def open_crc(name: str, settings: CrcData) -> PatchDataset:
    """Both parts, with validation taken out of the first as `validation_split` says.

    Raises:
        ClipItError: a part or class folder is missing or empty, the counts are not the published
            ones, there are images without colour normalisation, or one is not readable; see also
            `cache.open_or_build`.
    """
    folder = place(settings.folder)
    listed = _listed(folder)
    return open_listed(name, settings, PUBLISHED["crc"], folder, listed)


def problems(settings: CrcData) -> list[ClipItError]:
    """What is wrong with the files, found within seconds: counts, and a few images."""
    entry = PUBLISHED["crc"]
    found: list[ClipItError] = []
    prefixes = {each: f"{each}-" for each in entry.classes}
    try:
        folder = place(settings.folder)
        listed = _listed(folder)
    except ClipItError as error:
        return [error]
    for _, part in listed.groupby("split", sort=False):
        found += sample_problems(folder, part, entry.image_size, prefixes)
    return found


def _listed(folder: Path) -> pd.DataFrame:
    entry, parts = PUBLISHED["crc"], []
    for split, part in PARTS.items():
        _refuse_others(folder, folder / part)
        listed = list_images(folder / part, entry.classes, FIX)
        parts.append(listed.assign(path=f"{part}/" + listed["path"], split=split))
    listed = pd.concat(parts, ignore_index=True).assign(group="", sha256="")
    entry.validate(Counter(listed["split"].tolist()), folder, f"Restore it. {FIX}")
    return listed


def _refuse_others(folder: Path, part: Path) -> None:
    """Raise ClipItError if a part is there without colour normalisation only, or mixed up."""
    if not part.is_dir():
        if part.name == PARTS["train"] and (folder / NOT_NORMALISED).is_dir():
            what = f"no {part.name}, only {NOT_NORMALISED}: without colour normalisation"
            raise ClipItError(what, folder, f"The paper's CRC is {part.name}. {FIX}")
        return
    others = [each for each in folders(part) if each not in PUBLISHED["crc"].classes]
    if others:
        what = f"folders that are no class of CRC: {', '.join(others[:5])}"
        raise ClipItError(what, part, "Move them out of it")
