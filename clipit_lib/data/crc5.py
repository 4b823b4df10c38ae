"""The five-class colorectal patches, and the split that only the stand-in retriever sees."""

from __future__ import annotations

import numpy as np

from clipit_lib import paths
from clipit_lib.data import folder
from clipit_lib.data.cache import Recipe, Undecoded, open_or_build
from clipit_lib.data.contract import PatchDataset
from clipit_lib.settings import Crc5Data, FolderData

CLASSES = ("AC", "H", "S", "T", "V")
CLASS_TEXTS = (
    "adenocarcinoma",
    "healthy colon mucosa",
    "serrated adenoma",
    "tubular adenoma",
    "villous adenoma",
)
LICENCE = (
    "From a public repository under GPL-3.0; the licence of the images is not stated upstream. "
    "Compute on them, do not redistribute them."
)
LIMITS = (
    "No patient or slide ids: intervals over patches are too narrow. Stain is confounded with "
    "class, and the test patches come from other slides than the training patches."
)


def _recipe(name: str, settings: Crc5Data, splits: tuple[str, ...]) -> Recipe:
    root = paths.data() / "crc5"
    as_folder = FolderData(
        source="folder", folder=str(root), manifest="manifest.csv", classes=CLASSES,
        class_texts=CLASS_TEXTS, licence=LICENCE, side=settings.side, corpus=settings.corpus,
        validation_split=settings.validation_split,
    )  # fmt: skip
    listed = folder.read_manifest(root / "manifest.csv")
    listed = listed[listed["split"].isin(splits)].reset_index(drop=True)
    digests = folder.digest(folder.canonical_json(listed[["path", "split", "label", "sha256"]].to_dict("list")))

    def gather() -> Undecoded:
        return folder.undecoded(listed, root, CLASSES, settings.side)

    own = "retriever" not in splits
    return Recipe(
        name, {"source": "crc5", "listed": digests, "splits": list(splits)}, CLASSES, CLASS_TEXTS,
        settings.side, gather, as_folder.validation_split if own else None, LICENCE, LIMITS,
    )  # fmt: skip


def open_crc5(name: str, settings: Crc5Data) -> PatchDataset:
    """Train, validation (by stain, see `splits`) and test."""
    return open_or_build(_recipe(name, settings, ("train", "test")))


def retriever_patches(settings: Crc5Data) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, side, side, 3] uint8 and labels [n] of the retriever split."""
    held = open_or_build(_recipe("crc5-retriever", settings, ("retriever",)))
    return held.pixels, held.labels
