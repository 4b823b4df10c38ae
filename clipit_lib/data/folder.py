"""The user's own images: class folders, or a manifest that lists them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from clipit_lib import paths
from clipit_lib.data.patches import (
    PatchData,
    PatchDataset,
    Recipe,
    Undecoded,
    ValidationSplit,
    open_or_build,
)
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, read_text_table
from clipit_lib.settings import Positive

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
SPLITS = ("train", "validation", "test")
SPLIT_FOLDERS = {"val": "validation"} | {split: split for split in SPLITS}
LIMITS = "Images of the user: origin, selection and labels are not known to this project."


class FolderData(PatchData):
    """Images of the user: a folder of class folders, or a manifest (path, label, split, group)."""

    source: Literal["folder"]
    folder: str
    manifest: str | None = None
    classes: tuple[str, ...] | None = None
    class_texts: tuple[str, ...] | None = None
    licence: str = "not stated"
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified")

    def open(self, name: str) -> PatchDataset:
        """Open a folder of class folders (under train/, validation/, test/), or a manifest.

        Raises:
            ClipItError: a folder, manifest, column or image is missing or damaged, a label is
                outside the classes, there are no test images; see also `open_or_build`.
        """
        folder = paths.in_data(self.folder)
        if not folder.is_dir():
            fix = "Mend `folder` in the profile or CLIPIT_DATA"
            raise ClipItError("no such folder", folder, fix)
        listed = _listed(folder, self)
        stamps = digest(canonical_json(_stamps(folder, listed["path"])))
        classes = self.classes or tuple(sorted(set(listed["label"])))
        texts = self.class_texts or tuple(each.replace("_", " ") for each in classes)
        if len(set(classes)) < max(len(classes), 2):
            what = f"a classifier needs two classes or more, each named once: {', '.join(classes)}"
            raise ClipItError(what, f"data set {name}", "Mend `classes` or the labels")
        if len(texts) != len(classes):
            what = f"{len(texts)} class_texts for {len(classes)} classes"
            fix = f"Write one for each of {', '.join(classes)}"
            raise ClipItError(what, f"data set {name}", fix)
        recipe = Recipe(
            name=name,
            declaration={
                "source": str(folder),
                "listed": digest(listed.to_csv(index=False)),
                "files": stamps,
            },
            classes=classes,
            class_texts=texts,
            side=self.side,
            gather=lambda: undecoded(listed, folder, classes, self.side),
            validation_split=self.validation_split,
            licence=self.licence,
            limits=LIMITS,
        )
        return open_or_build(recipe)


def _listed(folder: Path, settings: FolderData) -> pd.DataFrame:
    """All images with path, split, label, group and sha256 (str, "" if unknown), checked."""
    origin = folder / settings.manifest if settings.manifest else folder
    listed = read_manifest(origin) if settings.manifest else _class_folders(folder)
    outside = sorted(set(listed["label"]) - set(settings.classes or listed["label"]))
    if outside:
        raise ClipItError(
            f"labels outside the classes: {', '.join(outside[:5])}",
            origin,
            f"Classes of the profile: {', '.join(settings.classes or ())}",
        )
    if "test" not in set(listed["split"]):
        raise ClipItError(
            "no test images",
            origin,
            "Put them in a test/ folder or say so in a split column; none are drawn at random",
        )
    return listed


def _class_folders(folder: Path) -> pd.DataFrame:
    tops = {name: split for name, split in SPLIT_FOLDERS.items() if (folder / name).is_dir()}
    rows: list[tuple[str, str, str]] = []
    for top, split in (tops or {"": "train"}).items():
        entries = sorted((folder / top).iterdir())
        classes = [each for each in entries if each.is_dir() and not each.name.startswith(".")]
        if not classes:
            fix = "Make one folder of images for each class"
            raise ClipItError("no class folders", folder / top, fix)
        for each in classes:
            found = sorted(_image_files(each))
            if not found:
                raise ClipItError("no images in this class folder", each, "Add images or remove it")
            start = each.relative_to(folder).as_posix()
            rows += [(f"{start}/{path}", split, each.name) for path in found]
    return pd.DataFrame(rows, columns=["path", "split", "label"]).assign(group="", sha256="")


def _image_files(folder: Path) -> Iterator[str]:
    """Images at any depth, relative to `folder`; as text, which lists ten times faster."""
    for base, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        within = Path(base).relative_to(folder).as_posix()
        start = "" if within == "." else f"{within}/"
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield start + name


def read_manifest(path: Path, splits: Collection[str] = SPLITS) -> pd.DataFrame:
    """Read a manifest: columns path, split, label, group, sha256, all str.

    Without a split column all images are train; unknown groups and digests are "".

    Raises:
        ClipItError: no such file, not a UTF-8 csv, a column is missing, no rows, a path is listed
            twice, a label is empty, or a split is none of `splits`.
    """
    if not path.exists():
        raise ClipItError("no such manifest", path, "Mend its name or make the file")
    table = read_text_table(path)
    for column in ("path", "label"):
        if column not in table:
            what = f"no column {column} (found: {', '.join(table.columns)})"
            fix = "A manifest needs path and label, and may have split, group, sha256"
            raise ClipItError(what, path, fix)
    for column, default in {"split": "train", "group": "", "sha256": ""}.items():
        table[column] = table.get(column, default)
    if table.empty:
        raise ClipItError("no rows", path, "List at least one image")
    for wrong, what, fix in (
        (table["path"].duplicated(), "{path} is listed again", "List every image once"),
        (table["label"].str.strip() == "", "no label", "Fill it in"),
        (~table["split"].isin([*splits, "val"]), "split {split!r}", f"Use {', '.join(splits)}"),
    ):
        for row in table.index[wrong][:1]:
            said = what.format_map(table.loc[row].to_dict())
            raise ClipItError(f"{said} in line {row + 2}", path, fix)
    return table[["path", "split", "label", "group", "sha256"]].replace(
        {"split": {"val": "validation"}}
    )


def undecoded(listed: pd.DataFrame, folder: Path, classes: tuple[str, ...], side: int) -> Undecoded:
    """Samples of listed images, and how to decode them."""
    numbers = {name: number for number, name in enumerate(classes)}
    samples = pd.DataFrame(
        {
            "id": listed["path"],
            "split": listed["split"],
            "label": listed["label"].map(numbers).astype(np.int64),
            "group": listed["group"],
        }
    )
    files = list(zip(listed["path"], listed["sha256"], strict=True))

    def decode(begin: int, end: int) -> np.ndarray:
        return np.stack([decode_image(folder / p, side, sha256) for p, sha256 in files[begin:end]])

    return Undecoded(samples, decode)


def decode_image(path: Path, side: int, sha256: str = "") -> np.ndarray:
    """An image as RGB, uint8 [side, side, 3]; of another size, it is resized and centre cropped.

    Raises:
        ClipItError: missing, unreadable, or other bytes than `sha256` (if given) says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _no_image(path) from error
    if sha256 and hashlib.sha256(data).hexdigest() != sha256.lower():
        raise ClipItError("the image differs from its sha256", path, "Restore the original file")
    try:
        image = Image.open(BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ClipItError(
            "not a readable image or cut short", path, "Replace it or take it out of the list"
        ) from error
    if image.size != (side, side):
        # Pillow's bicubic filter widens when it shrinks an image, so nothing aliases.
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _stamps(folder: Path, images: Iterable[str]) -> list[tuple[int, int]]:
    """What changes with each file, without reading it."""
    stamps = []
    for image in images:
        try:
            status = os.stat(os.path.join(folder, image))
        except OSError as error:
            raise _no_image(folder / image) from error
        stamps.append((status.st_size, status.st_mtime_ns))
    return stamps


def _no_image(path: Path) -> ClipItError:
    return ClipItError("no such image", path, "Add it or take it out of the list")
