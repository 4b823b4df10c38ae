"""The user's own images: class folders, or a manifest that lists them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator

from clipit_lib import paths
from clipit_lib.data.images import (
    decode_image,
    image_files,
    is_image,
    no_image,
    passed_over,
    visible,
)
from clipit_lib.data.patches import PatchData, Recipe, Undecoded, ValidationSplit
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, header, named_column, read_text_table, tidy
from clipit_lib.settings import Positive

SPLITS = ("train", "validation", "test")
COLUMNS = ["path", "split", "label", "group", "sha256"]
# What a split may be called, in any case, in the order in which folders are read.
SPLIT_NAMES = {"val": "validation", **{split: split for split in SPLITS},
               "valid": "validation", "dev": "validation"}  # fmt: skip
LIMITS = "Images of the user: origin, selection and labels are not known to this project."
# With another way from files to pixels, patches that were kept are made anew.
DECODING = 2
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


Texts = Annotated[tuple[str, ...], AfterValidator(lambda given: tuple(map(tidy, given)))]


class FolderData(PatchData):
    """Images of the user: a folder of class folders, or a manifest (path, label, split, group)."""

    source: Literal["folder"]
    folder: str
    manifest: str | None = None
    classes: Texts | None = None
    class_texts: Texts | None = None
    licence: str = "not stated"
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified")

    def recipe(self, name: str) -> Recipe:
        """A folder of class folders (under train/, validation/, test/), or a manifest.

        Folders of the splits may be called as `SPLIT_NAMES` says, in any case.

        Raises:
            ClipItError: a folder, manifest, column or image is missing or damaged, a label is
                outside the classes, a name is not UTF-8, there are no test images, or several
                folders of one split.
        """
        folder = paths.in_data(self.folder)
        if not folder.is_dir():
            fix = "Fix `folder` in the profile or CLIPIT_DATA"
            raise ClipItError("no such folder", folder, fix)
        listed, notes = _listed(folder, self)
        found = [_on_disk(folder, path) for path in listed["path"]]
        listed["path"] = [path for path, *_ in found]
        _require_apart(listed, [file for *_, file in found], folder)
        stamps = digest(canonical_json([stamp for _, stamp, _ in found]))
        classes = self.classes or tuple(sorted(set(listed["label"])))
        texts = self.class_texts or tuple(each.replace("_", " ") for each in classes)
        if len(set(classes)) < max(len(classes), 2):
            what = f"a classifier needs two classes or more, each named once: {', '.join(classes)}"
            raise ClipItError(what, f"data set {name}", "Fix `classes` or the labels")
        if len(texts) != len(classes):
            what = f"{len(texts)} class_texts for {len(classes)} classes"
            fix = f"Write one for each of {', '.join(classes)}"
            raise ClipItError(what, f"data set {name}", fix)
        declaration = {"source": str(folder), "listed": digest(listed.to_csv(index=False)),
                       "files": stamps, "decoding": DECODING}  # fmt: skip
        return Recipe(
            name, declaration, classes, texts, self.side,
            lambda: undecoded(listed, folder, classes, self.side),
            self.validation_split, self.licence, LIMITS, tuple(notes),
        )  # fmt: skip


def _listed(folder: Path, settings: FolderData) -> tuple[pd.DataFrame, list[str]]:
    """All images (columns as of `read_manifest`), checked, and lines on what was passed over."""
    origin, notes = folder, list[str]()
    if settings.manifest:
        origin = folder / settings.manifest
        listed = read_manifest(origin)
        if unused := listed.attrs.pop("unused"):
            notes = [f"columns of {settings.manifest} that are not used: {', '.join(unused)}"]
    else:
        listed, notes = _class_folders(folder)
    classes = settings.classes or listed["label"]
    if outside := sorted(set(listed["label"]) - set(classes)):
        what = f"labels outside the classes: {', '.join(outside[:5])}"
        raise ClipItError(what, origin, f"Classes of the profile: {', '.join(classes)}")
    if "test" not in set(listed["split"]):
        fix = "Put them in a test/ folder or say so in a split column; none are drawn at random"
        raise ClipItError("no test images", origin, fix)
    return listed, notes


def _class_folders(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """What lies in `folder`/SPLIT/CLASS, or in `folder`/CLASS, and what does not."""
    beside, loose = within(folder)
    tops: dict[str, str] = {}
    for called, split in SPLIT_NAMES.items():
        for name in (each for each in beside if tidy(each).casefold() == called):
            if split in tops.values():
                both = [*(each for each in tops if tops[each] == split), name]
                what = f"several folders of {split} images: {', '.join(both)}"
                raise ClipItError(what, folder, "Keep one of them")
            tops[name] = split
    rows: list[tuple[str, str, str]] = []
    others: Counter[str] = Counter()
    for top, split in (tops or {"": "train"}).items():
        classes, here = within(folder / top)
        loose += here if top else 0
        if not classes:
            fix = "Make one folder of images for each class"
            raise ClipItError("no class folders", folder / top, fix)
        for name in classes:
            found, more = image_files(folder / top / name)
            if not found:
                what = "; ".join(["no images in this class folder", *passed_over(more)])
                raise ClipItError(what, folder / top / name, "Add images or remove it")
            start = f"{top}/{name}" if top else name
            rows += [(f"{start}/{path}", split, tidy(name)) for path in found]
            others += more
    notes = passed_over(others)
    if tops and (unknown := [visible(name) for name in beside if name not in tops]):
        notes.append(f"folders passed over beside {', '.join(tops)}: {', '.join(unknown)}")
    if loose:
        notes.append(f"{loose} images passed over that lie in no class folder")
    for path in (str(folder), *(path for path, *_ in rows)):
        if visible(path) != path:  # no table could hold it
            fix = "Rename it (convmv -t utf8 renames all that lies in a folder)"
            raise ClipItError(f"the name {path} is not UTF-8", folder, fix)
    listed = pd.DataFrame(rows, columns=["path", "split", "label"]).assign(group="", sha256="")
    return listed, notes


def within(folder: Path) -> tuple[list[str], int]:
    """Names of the folders in a folder, sorted, and its number of images; hidden ones left out.

    A link that leads back is no folder of it: under its name everything would be there again.
    """
    entries = [each for each in os.scandir(folder) if not each.name.startswith(".")]
    back = [os.path.realpath(folder), *map(str, Path(os.path.realpath(folder)).parents)]
    folders = [e.name for e in entries if e.is_dir() and os.path.realpath(e.path) not in back]
    return sorted(folders), sum(is_image(each.name) and each.is_file() for each in entries)


def read_manifest(path: Path, splits: Collection[str] = SPLITS) -> pd.DataFrame:
    """Read a manifest: columns path, split, label, group, sha256, all str and tidy; `attrs` names
    the `unused`.

    Without a split column all images are train; unknown groups and digests are "".

    Raises:
        ClipItError: no such file, not a UTF-8 csv, a column is missing or there twice, no rows, a
            path is listed twice, a label is empty, or a split is none of `splits`.
    """
    if not path.exists():
        raise ClipItError("no such manifest", path, "Fix its name or make the file")
    table = read_text_table(path).rename(columns=lambda name: header(name, COLUMNS))
    unused = [name for name in table.columns if name not in COLUMNS]
    fix = "A manifest needs path and label, and may have split, group, sha256"
    for column in COLUMNS:
        if column in table or column in ("path", "label"):
            named_column(table, [column], path, fix)
    for column, default in {"split": "train", "group": "", "sha256": ""}.items():
        table[column] = table.get(column, default)
    if table.empty:
        raise ClipItError("no rows", path, "List at least one image")
    table = table[COLUMNS]
    # As it is written: the disk may know it with its letters composed or not.
    table = table.map(tidy).assign(path=table["path"].str.strip())
    known = {name: split for name, split in SPLIT_NAMES.items() if split in splits}
    table["split"] = table["split"].map(lambda split: known.get(split.casefold(), split))
    for wrong, what, fix in (
        (table["path"].duplicated(), "{path} is listed again", "List every image once"),
        (table["label"] == "", "no label", "Fill it in"),
        (~table["split"].isin(splits), "split {split!r}", f"Use {', '.join(splits)}"),
    ):
        for row in table.index[wrong][:1]:
            said = what.format_map(table.loc[row].to_dict())
            raise ClipItError(f"{said} in line {row + 2}", path, fix)
    table.attrs["unused"] = unused
    return table


def undecoded(listed: pd.DataFrame, folder: Path, classes: tuple[str, ...], side: int) -> Undecoded:
    """Samples of listed images, and how to decode them."""
    numbers = {name: number for number, name in enumerate(classes)}
    labels = listed["label"].map(numbers).astype(np.int64)
    samples = pd.DataFrame({"id": listed["path"], "split": listed["split"], "label": labels,
                            "group": listed["group"]})  # fmt: skip
    files = list(zip(listed["path"], listed["sha256"], strict=True))
    odd: Counter[str] = Counter()

    def decode(begin: int, end: int) -> np.ndarray:
        patches = np.empty((end - begin, side, side, 3), np.uint8)
        for row, (path, sha256) in zip(patches, files[begin:end], strict=True):
            row[:] = decode_image(folder / path, side, sha256, odd)
        return patches

    def notes() -> list[str]:
        return [f"{count} of {len(files)} images are {what}" for what, count in odd.items()]

    return Undecoded(samples, decode, notes)


def _require_apart(listed: pd.DataFrame, files: list[tuple[int, int]], folder: Path) -> None:
    """Raises ClipItError if one file, by two names or by a link, is in two splits or classes."""
    first: dict[tuple[int, int], list[str]] = {}
    for file, *row in zip(files, *(listed[n] for n in ("path", "split", "label")), strict=True):
        other = first.setdefault(file, row)
        if file[1] and row[1:] != other[1:]:  # 0: a disk that does not number its files
            both = (f"{path} ({split}, {label})" for path, split, label in (other, row))
            raise ClipItError(f"{' and '.join(both)} are one file", folder, "Keep one of them")


def _on_disk(folder: Path, path: str) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """The name by which the disk knows a listed image, what changes with it, and what file it is.

    Its letters may be composed there or not, and a \\ in a list stands for / where it must.
    """
    slashed = path.replace("\\", "/")
    forms = (unicodedata.normalize(form, each) for each in (path, slashed) for form in FORMS)
    for name in (path, *forms):
        with suppress(OSError, ValueError):
            status = os.stat(os.path.join(folder, name))
            stamp = (status.st_size, status.st_mtime_ns)
            return name, stamp, (status.st_dev, status.st_ino)
    raise no_image(folder / path)
