"""What can be fetched: where it is, its licence, how it is checked and where it goes.

No address here could be tried while this table was written, so each fact names who states it:
tfds is tensorflow_datasets/url_checksums/patch_camelyon.txt, eva is kaiko-ai/eva.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pandas as pd

from clipit_lib.data import crc5
from clipit_lib.data.published import PUBLISHED

ZENODO = "https://zenodo.org"
GITHUB = "https://github.com"
RAW = "https://raw.githubusercontent.com"
# Bytes of each .gz (tfds), and images.
PCAM = {
    "train_x": (6421353462, 262_144),
    "train_y": (21378, 262_144),
    "valid_x": (805965320, 32_768),
    "valid_y": (3038, 32_768),
    "test_x": (800875929, 32_768),
    "test_y": (3040, 32_768),
}
# Bytes of each archive, and images.
CRC = {"NCT-CRC-HE-100K": (11690284003, 100_000), "CRC-VAL-HE-7K": (800276929, 7_180)}
TCGA_REPOSITORY = "tatonetti-lab/tcga-path-reports"
TCGA_COMMIT = "ee2afb0ab754f2f49165ab541723992858af4eef"
CRC5_REPOSITORY = "Flagy/Colorectal_Carcinoma_Classifier"
CRC5_COMMIT = "b4c0188d2cfa5a7ea3afdef178c7b894eba2ffc0"
AUTHORS_REPOSITORY = "BanafshehKarimian/ModalityPairing"
# A commit that is known in full holds the same path, of the same length, as 4f2bed7, which is
# known in short only (GitHub may not resolve that); the checksum decides.
AUTHORS_COMMITS = ("c6e541d9d609413af2afb279ea91bfd241ee34f5", "4f2bed7")


@dataclass(frozen=True)
class Piece:
    """One file at its origin, and what becomes of it.

    Attributes:
        name: at the origin; a copy at hand is looked for under it.
        target: file or folder under `$CLIPIT_DATA`.
        urls: where it is, tried in this order.
        size: bytes to download; a round number is an estimate.
        checksum: `md5:...` or `sha256:...` of the download; None where no source is certain, so
            that the archive's own CRCs and what it holds decide.
        unpack: how, or None for a file that is used as it is.
        inside: the file, or the folder with a slash after it, that is taken from a zip.
        room: bytes once unpacked, an estimate.
        contents: checksum of the unpacked file.
        folders: folders of images, if the target is a folder.
        images: how many .tif are in them at least.
        columns: that a csv must have.
        copies: other paths at which an unpacked copy may be at hand.
        carried: the file of this package that it is written from, instead of a download.
    """

    name: str
    target: str
    urls: tuple[str, ...] = ()
    size: int = 0
    checksum: str | None = None
    unpack: Literal["gzip", "zip"] | None = None
    inside: str = ""
    room: int = 0
    contents: str | None = None
    folders: tuple[str, ...] = ()
    images: int = 0
    columns: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    carried: Path | None = None


@dataclass(frozen=True)
class Source:
    """A data set or corpus: `page` has its terms; `checked` says by what its files are known."""

    name: str
    what: str
    licence: str
    page: str
    checked: str
    pieces: tuple[Piece, ...]


def _zenodo(record: str, name: str) -> tuple[str, ...]:
    return (
        f"{ZENODO}/records/{record}/files/{name}?download=1",
        f"{ZENODO}/api/records/{record}/files/{name}/content",
    )


def _raw(repository: str, commit: str, path: str) -> str:
    return f"{RAW}/{repository}/{commit}/{quote(path)}"


def _pcam() -> Source:
    known, pieces = PUBLISHED["pcam"], []
    for part, (size, images) in PCAM.items():
        name = f"camelyonpatch_level_2_split_{part}.h5"
        pieces.append(
            Piece(
                name=f"{name}.gz",
                target=f"pcam/{name}",
                urls=_zenodo("2546921", f"{name}.gz"),
                size=size,
                checksum=f"md5:{known.md5[f'{name}.gz']}",
                unpack="gzip",
                room=images * (96 * 96 * 3 if part.endswith("x") else 1),
                contents=f"md5:{known.md5[name]}",
                copies=(name,),
            )
        )
    return Source(
        name="pcam",
        what="PatchCamelyon: 327,680 lymph node patches, tumor or not",
        licence=known.licence,
        page=known.page,
        checked="the MD5s that torchvision states; --from takes its folder of PCAM(download=True)",
        pieces=tuple(pieces),
    )


def _bach() -> Source:
    known = PUBLISHED["bach"]
    name = "ICIAR2018_BACH_Challenge.zip"
    piece = Piece(
        name=name,
        target="bach",
        urls=_zenodo("3632035", name),
        size=known.download,
        # Early versions of eva state md5 8ae1801334aa943c44627c1eef3631b2 and later ones none.
        checksum=None,
        unpack="zip",
        inside="Photos/",
        room=400 * 18_900_000,
        folders=known.classes,
        images=400,
        copies=("ICIAR2018_BACH_Challenge/Photos", "Photos", "."),
    )
    return Source(
        name="bach",
        what="BACH: 400 breast photographs in four classes (its whole slides are left out)",
        licence=known.licence,
        page=known.page,
        checked="the archive's CRCs and the number of images; no checksum of it is certain",
        pieces=(piece,),
    )


def _crc() -> Source:
    known = PUBLISHED["crc"]
    pieces = [
        Piece(
            name=f"{name}.zip",
            target=f"crc/{name}",
            urls=_zenodo("1214456", f"{name}.zip"),
            size=size,
            checksum=f"md5:{known.md5[f'{name}.zip']}",
            unpack="zip",
            inside=f"{name}/",
            room=images * 151_000,
            folders=known.classes,
            images=images,
            copies=(name,),
        )
        for name, (size, images) in CRC.items()
    ]
    return Source(
        name="crc",
        what="NCT-CRC-HE-100K and CRC-VAL-HE-7K: 107,180 colorectal patches in nine classes",
        licence=known.licence,
        page=known.page,
        checked="the MD5s of Zenodo as public downloaders repeat them, and the number of images",
        pieces=tuple(pieces),
    )


def _tcga() -> Source:
    types = "tcga_patient_to_cancer_type.csv"
    pieces = (
        Piece(
            name="TCGA_Reports.csv.zip",
            target="tcga/TCGA_Reports.csv",
            urls=(f"{GITHUB}/{TCGA_REPOSITORY}/raw/main/TCGA_Reports.csv.zip",),
            size=15_000_000,
            unpack="zip",
            inside="TCGA_Reports.csv",
            room=40_000_000,
            columns=("patient_filename", "text"),
            copies=("TCGA_Reports.csv",),
        ),
        Piece(
            name=types,
            target=f"tcga/{types}",
            urls=(_raw(TCGA_REPOSITORY, TCGA_COMMIT, f"data/tcga_metadata/{types}"),),
            size=209_548,
            room=209_548,
            columns=("patient_id", "cancer_type"),
            copies=(f"data/tcga_metadata/{types}",),
        ),
    )
    return Source(
        name="tcga",
        what="TCGA-Reports (Kefeli and Tatonetti): 9,523 pathology reports, and their cancers",
        licence="CC BY 4.0 on Mendeley Data; name the authors, try to identify nobody",
        page="https://data.mendeley.com/datasets/hyg5xkznpx/1",
        checked="the archive's CRC and the columns; no checksum of it is certain",
        pieces=pieces,
    )


def _crc5() -> Source:
    listed = pd.read_csv(crc5.MANIFEST, dtype=str)
    images = [
        Piece(
            name=origin,
            target=f"crc5/{path}",
            urls=(_raw(CRC5_REPOSITORY, CRC5_COMMIT, origin),),
            size=16_000,
            room=16_000,
            checksum=f"sha256:{sha256}",
            copies=(path,),
        )
        for path, sha256, origin in listed[["path", "sha256", "source_path"]].to_numpy().tolist()
    ]
    manifest = Piece("manifest.csv", "crc5/manifest.csv", carried=crc5.MANIFEST)
    return Source(
        name="crc5",
        what=f"the {len(images):,} colorectal patches of the pilot, in five classes",
        licence=crc5.LICENCE,
        page=f"{GITHUB}/{CRC5_REPOSITORY}",
        checked="a SHA-256 for each image, from the list that this project carries",
        pieces=(*images, manifest),
    )


def _tcga_colorectal() -> Source:
    path = "text/text_colo.txt"
    piece = Piece(
        name="text_colo.txt",
        target="reports/tcga_colorectal.txt",
        urls=tuple(_raw(AUTHORS_REPOSITORY, commit, path) for commit in AUTHORS_COMMITS),
        size=932_785,
        room=932_785,
        checksum="sha256:205064441c9f92b1f9e15d23b45f0554ddbb1bf7ec5c38b645a9f4b3899241a7",
        copies=(path, "tcga_colorectal.txt"),
    )
    return Source(
        name="tcga-colorectal",
        what="376 TCGA colorectal reports as the authors of CLIP-IT read them, one a line",
        licence="open-access TCGA reports from a repository that states no licence: compute on "
        "them, do not redistribute them",
        page=f"{GITHUB}/{AUTHORS_REPOSITORY}",
        checked="its SHA-256",
        pieces=(piece,),
    )


# Built when asked for: the list of crc5 is long.
SOURCES: dict[str, Callable[[], Source]] = {
    "pcam": _pcam,
    "bach": _bach,
    "crc": _crc,
    "tcga": _tcga,
    "crc5": _crc5,
    "tcga-colorectal": _tcga_colorectal,
}
