"""What is known of the paper's data sets without having them: terms, counts, sizes, checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pooch

from clipit_lib import paths
from clipit_lib.errors import ClipItError

READ_TERMS = "Read the terms at the source before use"
NO_PATIENTS = (
    "No patient or slide ids, so intervals over patches are too narrow, and validation patches, "
    "which are drawn out of the training set, may be of the same patients as training patches."
)


@dataclass(frozen=True)
class Published:
    """A public data set as it is published.

    Attributes:
        name: as the paper calls it.
        title: in words.
        classes: in the order of the labels.
        class_texts: how a sentence names each class, in the same order.
        images: train, validation (0 where none is published), test.
        image_size: width and height of an image, pixels.
        download: bytes of the archives.
        unpacked: bytes of what is read.
        licence: short name of the terms.
        page: where they stand.
        limits: what a reader of any result must know.
        md5: of files, by name.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    images: Mapping[str, int]
    image_size: tuple[int, int]
    download: int
    unpacked: int
    licence: str
    page: str
    limits: str
    md5: Mapping[str, str] = field(default_factory=dict)

    @property
    def terms(self) -> str:
        """The licence, and where to read it."""
        return f"{self.licence}. {READ_TERMS}: {self.page}"

    def cache_bytes(self, side: int) -> int:
        """Bytes of the decoded patches at this side."""
        return sum(self.images.values()) * side * side * 3

    def validate(self, found: Mapping[str, int], where: object, fix: str) -> None:
        """Compare counts a split with the published ones.

        Raises:
            ClipItError: they differ; the message names all that do.
        """
        other = [split for split in self.images if found.get(split, 0) != self.images[split]]
        if other:
            said = (f"{found.get(s, 0):,} {s} images, expected {self.images[s]:,}" for s in other)
            raise ClipItError(f"not the published {self.name} ({'; '.join(said)})", where, fix)


PUBLISHED: dict[str, Published] = {
    "pcam": Published(
        name="PCAM",
        title="PatchCamelyon, lymph node patches with or without tumor",
        classes=("no_tumor", "tumor"),
        class_texts=("normal lymph node tissue", "lymph node metastasis of breast carcinoma"),
        images={"train": 262_144, "validation": 32_768, "test": 32_768},
        image_size=(96, 96),
        download=8_028_222_167,
        unpacked=327_680 * (96 * 96 * 3 + 1),
        licence="CC0 1.0",
        page="https://zenodo.org/records/2546921",
        limits="A patch is labelled by its central 32 x 32 pixels; the splits share no slide.",
        # Packed: torchvision/datasets/pcam.py. Unpacked: kaiko-ai/eva, patch_camelyon.py. The
        # README of basveeling/pcam swaps those of valid and test (its issues 1 and 4); torchvision
        # (since its pull request 6644) and the names on Zenodo agree.
        md5={
            "camelyonpatch_level_2_split_train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
            "camelyonpatch_level_2_split_train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
            "camelyonpatch_level_2_split_valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
            "camelyonpatch_level_2_split_valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
            "camelyonpatch_level_2_split_test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
            "camelyonpatch_level_2_split_test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
            "camelyonpatch_level_2_split_train_x.h5": "01844da899645b4d6f84946d417ba453",
            "camelyonpatch_level_2_split_train_y.h5": "0781386bf6c2fb62d58ff18891466aca",
            "camelyonpatch_level_2_split_valid_x.h5": "81cf9680f1724c40673f10dc88e909b1",
            "camelyonpatch_level_2_split_valid_y.h5": "94d8aacc249253159ce2a2e78a86e658",
            "camelyonpatch_level_2_split_test_x.h5": "2614b2e6717d6356be141d9d6dbfcb7e",
            "camelyonpatch_level_2_split_test_y.h5": "11ed647efe9fe457a4eb45df1dba19ba",
        },
    ),
    "bach": Published(
        name="BACH",
        title="BACH (ICIAR 2018), breast photographs in four classes",
        classes=("Benign", "InSitu", "Invasive", "Normal"),
        class_texts=(
            "benign breast lesion",
            "in situ carcinoma of the breast",
            "invasive breast carcinoma",
            "normal breast tissue",
        ),
        images={"train": 268, "validation": 0, "test": 132},
        image_size=(2048, 1536),
        download=10_400_000_000,  # about
        unpacked=400 * 2048 * 1536 * 3,
        licence="CC BY-NC-ND 4.0: not for commercial use, no derivatives",
        page="https://zenodo.org/records/3632035",
        limits=(
            "Test is the part that kaiko's eva holds out by patients (its `val`). The folder "
            f"itself has no ids. {NO_PATIENTS} Photographs are cut to their central square."
        ),
    ),
    "crc": Published(
        name="CRC",
        title="NCT-CRC-HE-100K and CRC-VAL-HE-7K, colorectal patches in nine classes",
        classes=("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"),
        class_texts=(
            "adipose tissue",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        images={"train": 100_000, "validation": 0, "test": 7_180},
        image_size=(224, 224),
        download=12_490_560_932,
        unpacked=107_180 * 151_000,
        licence="CC BY 4.0: name Kather, Halama and Marx",
        page="https://zenodo.org/records/1214456",
        limits=(
            "Test is CRC-VAL-HE-7K, of 50 patients who are not in the training set. "
            f"{NO_PATIENTS} Colours were normalised before publication."
        ),
        # As public downloaders repeat those of Zenodo. What kaiko's eva states for the 100K archive
        # is the MD5 of its NONORM sibling.
        md5={
            "NCT-CRC-HE-100K.zip": "6fd702d11df6292bc054397ae038a464",
            "CRC-VAL-HE-7K.zip": "2fd1651b4f94ebd818ebf90ad2b6ce06",
        },
    ),
}


def place(path: str) -> Path:
    """A path of a profile: as it is if absolute, else under `$CLIPIT_DATA`.

    Raises:
        ClipItError: it is relative, and the variable is unset or names no folder.
    """
    given = Path(path).expanduser()
    return given if given.is_absolute() else paths.data() / given


def stamp(path: Path) -> str:
    """Size and time of a file: what changes with it, without reading it."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def verify(name: str, folder: Path) -> dict[str, bool]:
    """Whether files of a data set have the published MD5, read in full (minutes for PCAM).

    Returns:
        file name: right or not, of the files in `folder` whose MD5 is known; empty if none is.
    """
    there = ((folder / file, md5) for file, md5 in PUBLISHED[name].md5.items())
    return {
        path.name: pooch.file_hash(str(path), alg="md5") == md5
        for path, md5 in there
        if path.is_file()
    }
