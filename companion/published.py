"""The paper's data sets as published: PatchCamelyon, BACH and NCT-CRC-HE."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from clipit_lib.data.folder import undecoded, within
from clipit_lib.data.images import fitted, read_image
from clipit_lib.data.patches import PatchData, Recipe, Undecoded, ValidationSplit
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, named_column, read_text_table, whole
from clipit_lib.settings import Positive
from companion import paths, rehearsal
from companion.reading import read_strict

READ_TERMS = "Read the terms at the source before use"

# -- What is known of the paper's data sets without having them: terms, classes, counts.


@dataclass(frozen=True)
class Published:
    """A public data set as it is published, as published.yaml explains."""

    name: str
    title: str
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    prefixes: tuple[str, ...]
    images: Mapping[str, int]
    image_size: tuple[int, int]
    licence: str
    page: str
    limits: str
    numbered: str = ""
    nested: tuple[str, ...] = ()

    @property
    def terms(self) -> str:
        """The licence, and where to read it."""
        return f"{self.licence}. {READ_TERMS}: {self.page}"

    def validate(self, found: Mapping[str, int], where: object, fix: str) -> None:
        """Compare counts a split with the published ones.

        Raises:
            ClipItError: they differ; the message names all that do.
        """
        other = [split for split in self.images if found.get(split, 0) != self.images[split]]
        if other:
            said = (f"{found.get(s, 0):,} {s} images, expected {self.images[s]:,}" for s in other)
            raise ClipItError(f"not the published {self.name} ({'; '.join(said)})", where, fix)


TABLE = Path(__file__).parent / "manifests" / "published.yaml"
PUBLISHED_DATA: dict[str, Published] = read_strict(TABLE, dict[str, Published])


# -- What they have in common.

FETCH = "Run `python -m companion fetch {}`, or fix `folder` in the profile"


class OfThePaper(PatchData):
    """Public data in `folder` under `$CLIPIT_DATA`, on which the paper reports.

    A rehearsal has fewer images, which is said with the data's limits.
    """

    source: str
    folder: str
    rehearsal: Literal[True] | None = None
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified", fraction=0.1)

    @property
    def paper_name(self) -> str:
        return self.source.upper()

    @property
    def published(self) -> Published:
        known = PUBLISHED_DATA[self.source]
        if self.rehearsal is None:
            return known
        limits = f"{rehearsal.MARK} {known.limits}"
        return replace(known, images=rehearsal.TABLE.images[self.source], limits=limits)

    @property
    def fetch(self) -> str:
        """What to do where files are missing."""
        return FETCH.format(self.source)

    def problems(self) -> Iterator[ClipItError]:
        """What a recipe overlooks and a few images of each part show."""
        yield from ()

    def _recipe(
        self, name: str, folder: Path, files: Mapping[str, object],
        gather: Callable[[], Undecoded], limits: str, notes: tuple[str, ...] = (),
    ) -> Recipe:  # fmt: skip
        marked = {"rehearsal": True} if self.rehearsal else {}  # kept apart from the real one
        return Recipe(
            name=name,
            declaration={"source": self.source, "folder": str(folder), **files, **marked},
            classes=self.published.classes,
            class_texts=self.published.class_texts,
            side=self.side,
            gather=gather,
            validation_split=self.validation_split,
            licence=self.published.terms,
            limits=limits,
            notes=notes,
        )


def _stamp(status: os.stat_result) -> str:
    """Size and time of a file: what changes with it, without reading it."""
    return f"{status.st_size}-{status.st_mtime_ns}"


# -- PCAM: the files of PatchCamelyon as torchvision names them, HDF5, and slide ids.

# As the files call the splits, in the order in which they are kept.
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SHAPES = {"x": (96, 96, 3), "y": (1, 1, 1)}
AGAIN = FETCH.format("pcam")
NO_SLIDES = (
    "Not all slides are known (the files camelyonpatch_level_2_split_*_meta.csv say them), so "
    "intervals over patches are too narrow."
)


class PcamData(OfThePaper):
    """PatchCamelyon in `folder` under `$CLIPIT_DATA`, as torchvision leaves it in `pcam/`."""

    source: Literal["pcam"]
    folder: str = "pcam"
    side: Positive = 96
    validation_split: ValidationSplit = ValidationSplit()

    def recipe(self, name: str) -> Recipe:
        """Train, validation and test as published; slides as groups where a meta file is.

        Raises:
            ClipItError: a file is missing or packed or, when decoded, damaged, of another shape or
                length than published.
        """
        folder = paths.in_data(self.folder)
        arrays = [_h5_file(folder, part, kind) for part in SPLITS for kind in SHAPES]
        slides = [path for part in SPLITS if (path := _meta_file(folder, part)).is_file()]
        stamps = {path.name: _stamp(path.stat()) for path in (*arrays, *slides)}
        limits = self.published.limits + ("" if len(slides) == len(SPLITS) else f" {NO_SLIDES}")
        gather = partial(self._gather, folder)
        return self._recipe(name, folder, {"files": stamps}, gather, limits)

    def _gather(self, folder: Path) -> Undecoded:
        samples = pd.concat([_samples(folder, part) for part in SPLITS], ignore_index=True)
        self.published.validate(Counter(samples["split"]), folder, AGAIN)

        def decode(begin: int, end: int) -> np.ndarray:
            first, blocks = 0, []
            for part, split in SPLITS.items():
                count = self.published.images[split]
                inside = max(begin - first, 0), min(end - first, count)
                if inside[0] < inside[1]:
                    blocks.append(read_patches(folder, part, *inside))
                first += count
            patches = (Image.fromarray(each) for each in np.concatenate(blocks))
            return np.stack([fitted(each, self.side) for each in patches])

        return Undecoded(samples, decode)


def _samples(folder: Path, part: str) -> pd.DataFrame:
    """Samples of a split: id, split, label, group (its slide, "" if there is no meta file)."""
    lengths = {}
    for kind, shape in SHAPES.items():
        path = _h5_file(folder, part, kind)
        with _opened_h5(path) as stream:
            array = stream.get(kind)
            if not isinstance(array, h5py.Dataset):
                what = f"no {kind} (found: {', '.join(stream)})"
                raise ClipItError(what, path, AGAIN)
            if array.shape[1:] != shape or array.dtype != np.uint8:
                wanted = ", ".join(map(str, ("n", *shape)))
                what = f"{kind} is {array.dtype} {list(array.shape)}, expected uint8 [{wanted}]"
                raise ClipItError(what, path, AGAIN)
            lengths[kind] = int(array.shape[0])
            labels = np.asarray(array if kind == "y" else 0).reshape(-1).astype(np.int64)
    if lengths["x"] != lengths["y"] or not lengths["x"]:
        what = f"{lengths['x']:,} patches but {lengths['y']:,} labels"
        raise ClipItError(what, path, AGAIN)
    if labels.max() > 1:
        raise ClipItError(f"label {labels.max()}, expected 0 or 1", path, AGAIN)
    return pd.DataFrame(
        {
            "id": [f"{part}-{number:06d}" for number in range(len(labels))],
            "split": SPLITS[part],
            "label": labels,
            "group": _slides(folder, part, len(labels)),
        }
    )


def _slides(folder: Path, part: str, count: int) -> list[str]:
    path = _meta_file(folder, part)
    if not path.is_file():
        return [""] * count
    fix = "Restore it, or move it away: without it slides are not known"
    table = read_text_table(path, fix)
    slides = table[named_column(table, ["wsi"], path, fix)]
    if len(table) != count:
        raise ClipItError(f"{len(table):,} rows for {count:,} patches", path, fix)
    return slides.str.strip().tolist()


def _meta_file(folder: Path, part: str) -> Path:
    return folder / f"camelyonpatch_level_2_split_{part}_meta.csv"


def _h5_file(folder: Path, part: str, kind: str) -> Path:
    """The path of a file that is there, and is unpacked."""
    path = folder / f"camelyonpatch_level_2_split_{part}_{kind}.h5"
    if path.is_file():
        return path
    packed = path.with_name(f"{path.name}.gz")
    if packed.is_file():
        raise ClipItError("still packed", packed, f"Unpack it: gunzip {packed.name}")
    raise ClipItError("no such file", path, FETCH.format("pcam"))


def read_patches(folder: Path, part: str, begin: int, end: int) -> np.ndarray:
    """Patches `begin` to `end` of a split, uint8 [end - begin, 96, 96, 3]."""
    with _opened_h5(_h5_file(folder, part, "x")) as stream:
        return np.asarray(stream["x"][begin:end])


@contextmanager
def _opened_h5(path: Path) -> Iterator[h5py.File]:
    # Without a lock, which a read-only or network disk may refuse: nothing is written.
    with whole(path, AGAIN), h5py.File(path, "r", locking=False) as stream:
        yield stream


# -- BACH and CRC: images in one folder a class, in the order of the classes, then by name.

SUFFIX = ".tif"


class ClassFolderData(OfThePaper):
    """Published images in one folder a class, decoded one by one."""

    def listed(self) -> tuple[Path, pd.DataFrame]:
        """The folder, and one row an image: path below it, label, stamp, split, group, sha256.

        Raises:
            ClipItError: folders are missing or empty, or the counts are not the published ones.
        """
        raise NotImplementedError

    def recipe(self, name: str) -> Recipe:
        """The published images; the shorter side resized to `side`, the centre kept.

        Raises:
            ClipItError: see `listed`, or, when decoded, an image is not readable.
        """
        folder, listed = self.listed()
        known, files = self.published, {"listed": digest(listed.to_csv(index=False))}
        gather = partial(undecoded, listed, folder, known.classes, self.side)
        notes = listed.attrs.get("notes", ())
        return self._recipe(name, folder, files, gather, known.limits, notes)

    def problems(self) -> Iterator[ClipItError]:
        folder, listed = self.listed()
        size = self.published.image_size
        prefixes = dict(zip(self.published.classes, self.published.prefixes, strict=True))
        ends = listed.groupby(listed["path"].map(os.path.dirname), sort=False).nth([0, -1])
        for name, label in zip(ends["path"], ends["label"], strict=True):
            path = folder / name
            if not path.name.startswith(prefixes[label]):
                what = f"images of {label} are called {prefixes[label]}..."
                yield ClipItError(what, path, "Look whether it lies in the wrong folder")
            try:
                found = read_image(path).size
            except ClipItError as error:
                yield error
                continue
            if found != size:
                what = f"an image of {found[0]} x {found[1]} pixels, expected {size[0]} x {size[1]}"
                yield ClipItError(what, path, "Use the published images, not resized ones")


def class_images(folder: Path, known: Published, fix: str) -> tuple[Path, pd.DataFrame]:
    """The folder of the class folders, and one row per .tif image in them: path, label, stamp.

    Hidden ones are passed over. Where names are numbered, so are others beside the published ones,
    which `attrs["notes"]` says.

    Raises:
        ClipItError: a folder is missing or empty.
    """
    root = next((each for each in (folder / n for n in known.nested) if each.is_dir()), folder)
    if not root.is_dir():
        raise ClipItError("no such folder", root, fix)
    if missing := [name for name in known.classes if not (root / name).is_dir()]:
        found = ", ".join(within(root)[0]) or "none"
        raise ClipItError(f"no class folder {', '.join(missing)} (found: {found})", root, fix)
    rows: list[tuple[str, str, str]] = []
    for name in known.classes:
        images = sorted(
            (f"{name}/{entry.name}", name, _stamp(entry.stat()))
            for entry in os.scandir(root / name)
            if entry.name.lower().endswith(SUFFIX) and not entry.name.startswith(".")
        )
        if not images:
            raise ClipItError(f"no {SUFFIX} images in this class folder", root / name, fix)
        rows += images
    listed = pd.DataFrame(rows, columns=["path", "label", "stamp"])
    if known.numbered and len(listed) > sum(known.images.values()):
        named = listed["path"].str.fullmatch(known.numbered, case=False)
        others, listed = listed["path"][~named], listed[named].reset_index(drop=True)
        said = f"{len(others)} images passed over beside the published ones"
        listed.attrs["notes"] = (f"{said}: {', '.join(others[:9])}",)
    return root, listed


# Numbers of the photographs, sorted by class folder and name, ends excluded (kaiko-ai/eva,
# bach.py: its train; all others are its val, which is the paper's test).
ALL = 400
TRAIN = ((0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400))


class BachData(ClassFolderData):
    """The photographs of BACH in `folder` under `$CLIPIT_DATA`, split as kaiko's eva does."""

    source: Literal["bach"]
    folder: str = "bach"

    def listed(self) -> tuple[Path, pd.DataFrame]:
        known = self.published
        root, listed = class_images(paths.in_data(self.folder), known, self.fetch)
        counts = listed["label"].value_counts()
        # The split goes by number, so one photograph too few would move all behind it.
        each = sum(known.images.values()) // len(known.classes)
        if other := [f"{counts[c]} of {c}" for c in known.classes if counts[c] != each]:
            what = f"{', '.join(other)}, expected {each} photographs of each class"
            raise ClipItError(what, root, f"Restore the published ones. {self.fetch}")
        splits = np.full(ALL, "test", dtype=object)
        for begin, end in TRAIN:
            splits[begin:end] = "train"
        splits = splits[:: ALL // len(listed)]  # of fewer, evenly spaced ones
        return root, listed.assign(split=splits, group="", sha256="")


PARTS = {"train": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}
NOT_NORMALISED = "NCT-CRC-HE-100K-NONORM"


class CrcData(ClassFolderData):
    """NCT-CRC-HE-100K (train) and CRC-VAL-HE-7K (test) in `folder` under `$CLIPIT_DATA`."""

    source: Literal["crc"]
    folder: str = "crc"

    def listed(self) -> tuple[Path, pd.DataFrame]:
        folder, known, tables = paths.in_data(self.folder), self.published, []
        for split, part in PARTS.items():
            root = folder / part
            if root.is_dir():
                if others := [each for each in within(root)[0] if each not in known.classes]:
                    what = f"folders that are no class of CRC: {', '.join(others[:5])}"
                    raise ClipItError(what, root, "Move them out of it")
            elif split == "train" and (folder / NOT_NORMALISED).is_dir():
                what = f"no {part}, only {NOT_NORMALISED}: without colour normalisation"
                raise ClipItError(what, folder, f"The paper's CRC is {part}. {self.fetch}")
            listed = class_images(root, known, self.fetch)[1]
            tables.append(listed.assign(path=f"{part}/" + listed["path"], split=split))
        listed = pd.concat(tables, ignore_index=True).assign(group="", sha256="")
        known.validate(Counter(listed["split"]), folder, f"Restore it. {self.fetch}")
        return folder, listed
