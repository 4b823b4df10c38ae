"""The pilot's patches: five classes of colorectal tissue, and what each looks like in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from clipit_lib.data.folder import read_manifest, undecoded
from clipit_lib.data.patches import PatchData, Recipe, ValidationSplit, open_or_build
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from clipit_lib.settings import Positive
from companion import paths
from companion.reading import read_strict

# -- Short morphological descriptions of tissue classes, in our own words.

WORDS: dict[str, Any] = read_strict(
    Path(__file__).parent / "manifests" / "crc5_words.yaml", dict[str, Any]
)
DESCRIPTIONS: dict[str, list[str]] = WORDS["descriptions"]


def class_captions(class_text: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of one class: its name, a description, or both, in a random frame."""
    captions = []
    for _ in range(count):
        described = str(rng.choice(DESCRIPTIONS[class_text]))
        content = (class_text, described, f"{class_text}, {described}")[rng.integers(3)]
        captions.append(str(rng.choice(WORDS["frames"])).format(content))
    return captions


# -- The five-class colorectal patches, and the split that only the stand-in retriever sees.

CLASSES = ("AC", "H", "S", "T", "V")
CLASS_TEXTS = tuple(DESCRIPTIONS)
LICENCE, LIMITS = WORDS["licence"], WORDS["limits"]
MANIFEST, LIST = Path(__file__).parent / "manifests" / "crc5.csv.gz", "manifest.csv"
SPLITS = ("train", "test", "retriever")
# Patches in the list, so that a plan need not open it; train includes what validation takes.
SIZES = {"train": 2000, "test": 1500}


class Crc5Data(PatchData):
    """The five-class colorectal patches under `$CLIPIT_DATA/crc5`."""

    source: Literal["crc5"]
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stain", fraction=0.2)

    def recipe(self, name: str) -> Recipe:
        """Train, validation and test; the retriever split is left out.

        Raises:
            ClipItError: CLIPIT_DATA is unset or wrong, the manifest is not the one this project
                knows, and, when decoded, an image is missing or differs from its sha256.
        """
        return _recipe(name, self.side, ("train", "test"), self.validation_split)


def retriever_patches(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, side, side, 3] uint8 and labels [n] int64 to train the stand-in retriever on.

    None of them is in the data set that `Crc5Data` opens (see there for what is raised).
    """
    patches = open_or_build(_recipe("crc5-retriever", side, ("retriever",), None))
    return patches.pixels, patches.labels


def _recipe(
    name: str, side: int, splits: tuple[str, ...], validation_split: ValidationSplit | None
) -> Recipe:
    root = paths.in_data("crc5")
    rows = listed(root / LIST)
    rows = rows[rows["split"].isin(splits)].reset_index(drop=True)
    return Recipe(
        name=name,
        # Bytes are checked against the list when they are decoded, so the list stands for them.
        declaration={"source": "crc5", "listed": digest(rows.to_csv(index=False))},
        classes=CLASSES,
        class_texts=CLASS_TEXTS,
        side=side,
        gather=lambda: undecoded(rows, root, CLASSES, side),
        validation_split=validation_split,
        licence=LICENCE,
        limits=LIMITS,
    )


def listed(manifest: Path) -> pd.DataFrame:
    """The list this project carries, if the user's manifest says the same."""
    ours, theirs = read_manifest(MANIFEST, SPLITS), read_manifest(manifest, SPLITS)
    columns = ["path", "split", "label", "sha256"]
    known, found = (set(map(tuple, t[columns].to_numpy().tolist())) for t in (ours, theirs))
    if known != found:
        what = f"differs from the crc5 list of this project, first at {min(known ^ found)[0]} "
        what += f"({len(found)} images, expected {len(known)})"
        fix = "Restore it; images of your own go in a data set with source: folder"
        raise ClipItError(what, manifest, fix)
    return ours
