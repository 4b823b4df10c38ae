"""The paper's data sets as published: PatchCamelyon, BACH and NCT-CRC-HE."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pandas as pd
import pooch
from PIL import Image, ImageOps

from clipit_lib import paths
from clipit_lib.data.folder import decode_image, undecoded
from clipit_lib.data.patches import (
    PatchData,
    PatchDataset,
    Recipe,
    Undecoded,
    ValidationSplit,
    open_or_build,
)
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, read_text_table
from clipit_lib.settings import Positive


class OfThePaper(PatchData):
    """Public data in `folder` under `$CLIPIT_DATA`, on which the paper reports."""

    source: str

    @property
    def paper_name(self) -> str:
        return self.source.upper()

    def problems(self) -> list[ClipItError]:
        """What is wrong with the files, [] if nothing; nothing is decoded.

        Looked at are presence, counts, names, sizes, labels and a few images of each part.
        """
        raise NotImplementedError


class PcamData(OfThePaper):
    """PatchCamelyon in `folder` under `$CLIPIT_DATA`, as torchvision leaves it in `pcam/`."""

    source: Literal["pcam"]
    folder: str = "pcam"
    side: Positive = 96
    validation_split: ValidationSplit = ValidationSplit()

    def open(self, name: str) -> PatchDataset:
        return open_pcam(name, self)

    def problems(self) -> list[ClipItError]:
        return pcam_problems(self)


class BachData(OfThePaper):
    """The photographs of BACH in `folder` under `$CLIPIT_DATA`."""

    source: Literal["bach"]
    folder: str = "bach"
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified", fraction=0.1)

    def open(self, name: str) -> PatchDataset:
        return open_bach(name, self)

    def problems(self) -> list[ClipItError]:
        return bach_problems(self)


class CrcData(OfThePaper):
    """NCT-CRC-HE-100K and CRC-VAL-HE-7K in `folder` under `$CLIPIT_DATA`."""

    source: Literal["crc"]
    folder: str = "crc"
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified", fraction=0.1)

    def open(self, name: str) -> PatchDataset:
        return open_crc(name, self)

    def problems(self) -> list[ClipItError]:
        return crc_problems(self)


# -- What is known of the paper's data sets without having them: terms, counts, sizes, checksums.


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


PUBLISHED_DATA: dict[str, Published] = {
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


def published_place(path: str) -> Path:
    """A path of a profile: as it is if absolute, else under `$CLIPIT_DATA`.

    Raises:
        ClipItError: it is relative, and the variable is unset or names no folder.
    """
    given = Path(path).expanduser()
    return given if given.is_absolute() else paths.data() / given


def published_stamp(path: Path) -> str:
    """Size and time of a file: what changes with it, without reading it."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def verify(name: str, folder: Path) -> dict[str, bool]:
    """Whether files of a data set have the published MD5, read in full (minutes for PCAM).

    Returns:
        file name: right or not, of the files in `folder` whose MD5 is known; empty if none is.
    """
    there = ((folder / file, md5) for file, md5 in PUBLISHED_DATA[name].md5.items())
    return {
        path.name: pooch.file_hash(str(path), alg="md5") == md5
        for path, md5 in there
        if path.is_file()
    }


# -- Published images in one folder a class: listed in the order of the classes, then by name.


SUFFIX = ".tif"


def list_images(root: Path, classes: Sequence[str], fix: str) -> pd.DataFrame:
    """All .tif images in the class folders of `root`; hidden and other files are passed over.

    Args:
        fix: what to do if something is missing.

    Returns:
        path (relative to `root`), label (class name), stamp (size and time): one row an image.

    Raises:
        ClipItError: `root` or class folders are missing, or a class folder has no image.
    """
    if not root.is_dir():
        raise ClipItError("no such folder", root, fix)
    missing = [name for name in classes if not (root / name).is_dir()]
    if missing:
        found = ", ".join(class_folders(root)) or "none"
        what = f"no class folder {', '.join(missing)} (found: {found})"
        raise ClipItError(what, root, fix)
    rows: list[tuple[str, str, str]] = []
    for name in classes:
        images = sorted(_images(root / name))
        if not images:
            raise ClipItError(f"no {SUFFIX} images in this class folder", root / name, fix)
        rows += [(f"{name}/{image}", name, stamp) for image, stamp in images]
    return pd.DataFrame(rows, columns=["path", "label", "stamp"])


def class_folders(root: Path) -> list[str]:
    """Names of the folders in `root` that are not hidden, sorted."""
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def open_listed(
    name: str, settings: BachData | CrcData, entry: Published, folder: Path, listed: pd.DataFrame
) -> PatchDataset:
    """The published images that are listed (see `list_images`), below `folder`.

    Raises:
        ClipItError: see `cache.open_or_build`.
    """
    recipe = Recipe(
        name=name,
        declaration={
            "source": settings.source,
            "folder": str(folder),
            "listed": digest(listed.to_csv(index=False)),
        },
        classes=entry.classes,
        class_texts=entry.class_texts,
        side=settings.side,
        gather=lambda: undecoded(listed, folder, entry.classes, settings.side),
        validation_split=settings.validation_split,
        licence=entry.terms,
        limits=entry.limits,
    )
    return open_or_build(recipe)


def sample_problems(
    root: Path, listed: pd.DataFrame, size: tuple[int, int], prefixes: dict[str, str]
) -> Iterator[ClipItError]:
    """Look at the first and last image of each class: its name, its size, and that it decodes.

    Args:
        listed: as `list_images` gives it.
        size: width and height that every image should have.
        prefixes: how the names of each class begin.
    """
    for label, listed_paths in listed.groupby("label", sort=False)["path"]:
        ends = (root / listed_paths.iloc[0], root / listed_paths.iloc[-1])
        for path in dict.fromkeys(ends):
            if not path.name.startswith(prefixes[str(label)]):
                what = f"images of {label} are called {prefixes[str(label)]}..."
                yield ClipItError(what, path, "Look whether it lies in the wrong folder")
            yield from _undecodable(path, size)


def _undecodable(path: Path, size: tuple[int, int]) -> Iterator[ClipItError]:
    try:
        decode_image(path, min(size))
    except ClipItError as error:
        yield error
        return
    with Image.open(path) as image:
        found = image.size
    if found != size:
        what = f"an image of {found[0]} x {found[1]} pixels, expected {size[0]} x {size[1]}"
        yield ClipItError(what, path, "Use the published images, not resized ones")


def _images(folder: Path) -> Iterator[tuple[str, str]]:
    for entry in os.scandir(folder):
        if entry.name.lower().endswith(SUFFIX) and not entry.name.startswith("."):
            status = entry.stat()
            yield entry.name, f"{status.st_size}-{status.st_mtime_ns}"


# -- The files of PatchCamelyon as torchvision names them: HDF5, read in blocks, and slide ids.


# As the files call the splits, in the order in which they are kept.
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SHAPES = {"x": (96, 96, 3), "y": (1, 1, 1)}
FETCH = "`python -m companion fetch pcam`"


def h5_file(folder: Path, part: str, kind: str) -> Path:
    """The path of a file that is there.

    Raises:
        ClipItError: it is not, or is still packed.
    """
    path = folder / f"camelyonpatch_level_2_split_{part}_{kind}.h5"
    if path.is_file():
        return path
    packed = path.with_name(f"{path.name}.gz")
    if packed.is_file():
        raise ClipItError("still packed", packed, f"Unpack it: gunzip {packed.name}")
    fix = f"Run {FETCH}, or mend `folder` in the profile or CLIPIT_DATA"
    raise ClipItError("no such file", path, fix)


def count_patches(folder: Path, part: str) -> int:
    """Patches of a split, once shapes, types and lengths are found to be as they should be.

    Raises:
        ClipItError: they are not, or a file is missing or damaged.
    """
    lengths = {}
    for kind, shape in SHAPES.items():
        path = h5_file(folder, part, kind)
        with _opened(path) as stream:
            array = stream.get(kind)
            if not isinstance(array, h5py.Dataset):
                raise ClipItError(f"no {kind} (found: {', '.join(stream)})", path, again("it"))
            if array.shape[1:] != shape or array.dtype != np.uint8:
                wanted = ", ".join(map(str, ("n", *shape)))
                what = f"{kind} is {array.dtype} {list(array.shape)}, expected uint8 [{wanted}]"
                raise ClipItError(what, path, again("it"))
            lengths[kind] = int(array.shape[0])
    if lengths["x"] != lengths["y"] or not lengths["x"]:
        what = f"{lengths['x']:,} patches but {lengths['y']:,} labels"
        raise ClipItError(what, h5_file(folder, part, "y"), again("both files"))
    return lengths["x"]


def read_patches(folder: Path, part: str, begin: int, end: int) -> np.ndarray:
    """Patches `begin` to `end` of a split, uint8 [end - begin, 96, 96, 3]."""
    with _opened(h5_file(folder, part, "x")) as stream:
        return np.asarray(stream["x"][begin:end])


def read_labels(folder: Path, part: str) -> np.ndarray:
    """All labels of a split, [n] int64, each 0 or 1."""
    path = h5_file(folder, part, "y")
    with _opened(path) as stream:
        labels = np.asarray(stream["y"]).reshape(-1).astype(np.int64)
    if labels.max() > 1:
        raise ClipItError(f"label {labels.max()}, expected 0 or 1", path, again("it"))
    return labels


def meta_file(folder: Path, part: str) -> Path:
    return folder / f"camelyonpatch_level_2_split_{part}_meta.csv"


def read_slides(folder: Path, part: str, count: int) -> list[str]:
    """The slide of each of the `count` patches of a split, "" if there is no meta file.

    Raises:
        ClipItError: the meta file is no csv with a column wsi, or of another length.
    """
    path = meta_file(folder, part)
    if not path.is_file():
        return [""] * count
    fix = "Restore it, or move it away: without it slides are not known"
    table = read_text_table(path, fix)
    if "wsi" not in table:
        raise ClipItError(f"no column wsi (found: {', '.join(table.columns)})", path, fix)
    if len(table) != count:
        raise ClipItError(f"{len(table):,} rows for {count:,} patches", path, fix)
    return table["wsi"].tolist()


def again(what: str) -> str:
    # What is there is not fetched again, so it must go first.
    return f"Delete {what} and run {FETCH}"


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        # Without a lock, which a read-only or network disk may refuse: nothing is written.
        with h5py.File(path, "r", locking=False) as stream:
            yield stream
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ClipItError(f"damaged or cut short ({reason})", path, again("it")) from error


# -- PCAM: PatchCamelyon, decoded out of the files that torchvision downloads.


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
    folder, entry = published_place(settings.folder), PUBLISHED_DATA["pcam"]
    arrays = [h5_file(folder, part, kind) for part in SPLITS for kind in SHAPES]
    slides = [path for part in SPLITS if (path := meta_file(folder, part)).is_file()]
    recipe = Recipe(
        name=name,
        declaration={
            "source": "pcam",
            "folder": str(folder),
            "files": {path.name: published_stamp(path) for path in (*arrays, *slides)},
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


def pcam_problems(settings: PcamData) -> list[ClipItError]:
    """What is wrong with the files, found within seconds: shapes, labels, counts, a few patches.

    Whole files are compared by `published.verify`.
    """
    found: list[ClipItError] = []
    counts = {}
    try:
        folder = published_place(settings.folder)
    except ClipItError as error:
        return [error]
    for part, split in SPLITS.items():
        try:
            counts[split] = count_patches(folder, part)
            for row in (0, counts[split] - 1):
                read_patches(folder, part, row, row + 1)
            read_labels(folder, part)
            read_slides(folder, part, counts[split])
        except ClipItError as error:
            found.append(error)
    try:
        if len(counts) == len(SPLITS):
            _validate(counts, folder)
    except ClipItError as error:
        found.append(error)
    return found


def _validate(counts: dict[str, int], folder: Path) -> None:
    PUBLISHED_DATA["pcam"].validate(counts, folder, again("the files"))


def _undecoded(folder: Path, side: int) -> Undecoded:
    counts = {part: count_patches(folder, part) for part in SPLITS}
    _validate({split: counts[part] for part, split in SPLITS.items()}, folder)
    tables = [
        pd.DataFrame(
            {
                "id": [f"{part}-{number:06d}" for number in range(count)],
                "split": SPLITS[part],
                "label": read_labels(folder, part),
                "group": read_slides(folder, part, count),
            }
        )
        for part, count in counts.items()
    ]

    def decode(begin: int, end: int) -> np.ndarray:
        first, blocks = 0, []
        for part, count in counts.items():
            inside = max(begin - first, 0), min(end - first, count)
            if inside[0] < inside[1]:
                blocks.append(read_patches(folder, part, *inside))
            first += count
        return _resized(np.concatenate(blocks), side)

    return Undecoded(pd.concat(tables, ignore_index=True), decode)


def _resized(patches: np.ndarray, side: int) -> np.ndarray:
    """[n, 96, 96, 3] to [n, side, side, 3], uint8."""
    if patches.shape[1] == side:
        return patches
    size, bicubic = (side, side), Image.Resampling.BICUBIC
    return np.stack([np.asarray(ImageOps.fit(Image.fromarray(p), size, bicubic)) for p in patches])


# -- BACH: 400 photographs, split by patients as kaiko's eva splits them.


PER_CLASS = 100
# Numbers of the photographs, sorted by class folder and name, ends excluded (kaiko-ai/eva,
# bach.py: its train, and its val, which is the paper's test).
TRAIN = ((0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400))
TEST = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))
PREFIXES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
BACH_FIX = "Run `python -m companion fetch bach`, or mend `folder` in the profile"


def open_bach(name: str, settings: BachData) -> PatchDataset:
    """The photographs with eva's split; the shorter side resized to `side`, the centre kept.

    Raises:
        ClipItError: a class folder is missing, has not 100 photographs, or one is not readable;
            see also `cache.open_or_build`.
    """
    root = _photos(published_place(settings.folder))
    listed = _bach_listed(root)
    return open_listed(name, settings, PUBLISHED_DATA["bach"], root, listed)


def bach_problems(settings: BachData) -> list[ClipItError]:
    """What is wrong with the files, found within seconds: counts, and a few photographs."""
    try:
        root = _photos(published_place(settings.folder))
        listed = _bach_listed(root)
    except ClipItError as error:
        return [error]
    return list(sample_problems(root, listed, PUBLISHED_DATA["bach"].image_size, PREFIXES))


def _photos(folder: Path) -> Path:
    """The folder with the class folders: `folder` itself, or nested as in the archive."""
    first = PUBLISHED_DATA["bach"].classes[0]
    nested = (folder / "ICIAR2018_BACH_Challenge" / "Photos", folder / "Photos")
    return next((each for each in nested if (each / first).is_dir()), folder)


def _bach_listed(root: Path) -> pd.DataFrame:
    entry = PUBLISHED_DATA["bach"]
    listed = list_images(root, entry.classes, BACH_FIX)
    counts = listed["label"].value_counts()
    # The split goes by number, so one photograph too few would move all behind it.
    other = [f"{counts[c]} of {c}" for c in entry.classes if counts[c] != PER_CLASS]
    if other:
        what = f"{', '.join(other)}, expected {PER_CLASS} photographs of each class"
        raise ClipItError(what, root, f"Restore the published ones. {BACH_FIX}")
    splits = np.full(len(listed), "", dtype=object)
    for split, ranges in {"train": TRAIN, "test": TEST}.items():
        for begin, end in ranges:
            splits[begin:end] = split
    listed = listed.assign(split=splits, group="", sha256="")
    entry.validate(Counter(listed["split"].tolist()), root, BACH_FIX)
    return listed


# -- CRC: NCT-CRC-HE-100K to train on, CRC-VAL-HE-7K to test on.


PARTS = {"train": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}
NOT_NORMALISED = "NCT-CRC-HE-100K-NONORM"
CRC_FIX = "Run `python -m companion fetch crc`, or mend `folder` in the profile"


def open_crc(name: str, settings: CrcData) -> PatchDataset:
    """Both parts, with validation taken out of the first as `validation_split` says.

    Raises:
        ClipItError: a part or class folder is missing or empty, the counts are not the published
            ones, there are images without colour normalisation, or one is not readable; see also
            `cache.open_or_build`.
    """
    folder = published_place(settings.folder)
    listed = _crc_listed(folder)
    return open_listed(name, settings, PUBLISHED_DATA["crc"], folder, listed)


def crc_problems(settings: CrcData) -> list[ClipItError]:
    """What is wrong with the files, found within seconds: counts, and a few images."""
    entry = PUBLISHED_DATA["crc"]
    found: list[ClipItError] = []
    prefixes = {each: f"{each}-" for each in entry.classes}
    try:
        folder = published_place(settings.folder)
        listed = _crc_listed(folder)
    except ClipItError as error:
        return [error]
    for _, part in listed.groupby("split", sort=False):
        found += sample_problems(folder, part, entry.image_size, prefixes)
    return found


def _crc_listed(folder: Path) -> pd.DataFrame:
    entry, parts = PUBLISHED_DATA["crc"], []
    for split, part in PARTS.items():
        _refuse_others(folder, folder / part)
        listed = list_images(folder / part, entry.classes, CRC_FIX)
        parts.append(listed.assign(path=f"{part}/" + listed["path"], split=split))
    listed = pd.concat(parts, ignore_index=True).assign(group="", sha256="")
    entry.validate(Counter(listed["split"].tolist()), folder, f"Restore it. {CRC_FIX}")
    return listed


def _refuse_others(folder: Path, part: Path) -> None:
    """Raise ClipItError if a part is there without colour normalisation only, or mixed up."""
    if not part.is_dir():
        if part.name == PARTS["train"] and (folder / NOT_NORMALISED).is_dir():
            what = f"no {part.name}, only {NOT_NORMALISED}: without colour normalisation"
            raise ClipItError(what, folder, f"The paper's CRC is {part.name}. {CRC_FIX}")
        return
    others = [each for each in class_folders(part) if each not in PUBLISHED_DATA["crc"].classes]
    if others:
        what = f"folders that are no class of CRC: {', '.join(others[:5])}"
        raise ClipItError(what, part, "Move them out of it")
