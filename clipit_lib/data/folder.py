"""The user's own images: class folders, or a manifest that lists them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from clipit_lib import paths
from clipit_lib.data.cache import Recipe, Undecoded, open_or_build
from clipit_lib.data.contract import PatchDataset
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest
from clipit_lib.settings import FolderData

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
LIMITS = "Images of the user: origin, selection and labels are not known to this project."


def open_folder(name: str, settings: FolderData) -> PatchDataset:
    """Open a folder of class folders (under train/, validation/, test/), or a manifest.

    Raises:
        ClipItError: a folder, manifest, column or image is missing or damaged, a label is
            outside the classes, there is no test split; see also `cache.open_or_build`.
    """
    folder = paths.data() / settings.folder  # an absolute folder stays as it is
    return open_or_build(recipe(name, settings, folder))


def recipe(name: str, settings: FolderData, folder: Path) -> Recipe:
    """List the images (their bytes are not read) and say how to decode them."""
    if not folder.is_dir():
        raise ClipItError("no such folder", folder, "Mend `folder` in the profile or CLIPIT_DATA")
    if settings.manifest is None:
        listed, origin = list_class_folders(folder), folder
    else:
        origin = folder / settings.manifest
        listed = read_manifest(origin)
    classes = settings.classes or tuple(sorted(set(listed["label"])))
    outside = sorted(set(listed["label"]) - set(classes))
    if outside:
        raise ClipItError(
            f"labels outside the classes: {', '.join(outside[:5])}",
            origin,
            f"Known classes: {', '.join(classes)}",
        )
    if not (listed["split"] == "test").any():
        raise ClipItError(
            "no test images",
            origin,
            "Put them in a test/ folder or a split column; none are drawn at random",
        )
    texts = settings.class_texts or tuple(c.replace("_", " ") for c in classes)
    return Recipe(
        name=name,
        declaration={
            "settings": settings.model_dump(mode="json", include={"source", "folder", "manifest"}),
            "listed": digest(canonical_json(listed.to_dict("list"))),
            "files": digest(canonical_json([_stamp(folder / path) for path in listed["path"]])),
        },
        classes=classes,
        class_texts=texts,
        side=settings.side,
        gather=lambda: undecoded(listed, folder, classes, settings.side),
        validation_split=settings.validation_split,
        licence=settings.licence,
        limits=LIMITS,
    )


def list_class_folders(folder: Path) -> pd.DataFrame:
    """List images by class folder: columns path, label, split, group, sha256 (all str).

    Raises:
        ClipItError: no class folder, or one without images.
    """
    tops = {name: split for name, split in SPLITS.items() if (folder / name).is_dir()}
    rows: list[tuple[str, str, str]] = []
    for top, split in (tops or {"": "train"}).items():
        rows += _images(folder, folder / top, split)
    return pd.DataFrame(rows, columns=["path", "label", "split"]).assign(group="", sha256="")


def _images(folder: Path, top: Path, split: str) -> list[tuple[str, str, str]]:
    classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise ClipItError("no class folders", top, "Make one folder of images for each class")
    rows = []
    for each in classes:
        found = sorted(p for p in each.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise ClipItError("no images in this class folder", each, "Add images or remove it")
        rows += [(path.relative_to(folder).as_posix(), each.name, split) for path in found]
    return rows


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest: columns path, label, split, group, sha256 (all str; "" if absent).

    Raises:
        ClipItError: no such file, not a UTF-8 csv, a column is missing, a path is listed twice,
            a split is unknown, no rows.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ClipItError("no such manifest", path, "Mend `manifest` or make the file") from error
    except (ValueError, OSError) as error:
        raise ClipItError(
            f"not a UTF-8 csv ({str(error).splitlines()[0]})", path, "Save it as UTF-8 csv"
        ) from error
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise ClipItError(
            f"no column {', '.join(sorted(missing))} among {', '.join(table.columns)}",
            path,
            "A manifest needs path and label (and may have split, group, sha256)",
        )
    if table.empty:
        raise ClipItError("no rows", path, "List at least one image")
    for column, default in {"split": "train", "group": "", "sha256": ""}.items():
        if column not in table:
            table[column] = default
    return table


def undecoded(
    listed: pd.DataFrame, folder: Path, classes: tuple[str, ...], side: int
) -> Undecoded:
    """Samples of listed images and how to decode them."""
    position = {name: number for number, name in enumerate(classes)}
    samples = pd.DataFrame(
        {
            "id": listed["path"],
            "split": listed["split"],
            "label": listed["label"].map(position).astype(np.int64),
            "group": listed["group"],
        }
    )
    paths_, digests = listed["path"].tolist(), listed["sha256"].tolist()

    def decode(begin: int, end: int) -> np.ndarray:
        rows = range(begin, end)
        return np.stack([decode_image(folder / paths_[i], side, digests[i]) for i in rows])

    return Undecoded(samples, decode)


def decode_image(path: Path, side: int, sha256: str = "") -> np.ndarray:
    """An image as RGB [side, side, 3] uint8: shortest side resized to `side`, centre cropped.

    Raises:
        ClipItError: missing, unreadable, or other bytes than the manifest lists.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ClipItError("no such image", path, "Add it or take it out of the list") from error
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ClipItError("the file differs from its sha256", path, "Fetch it again")
    try:
        image = Image.open(BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ClipItError("not a readable image", path, "Replace it or take it out") from error
    if image.size != (side, side):
        scale = side / min(image.size)
        size = tuple(max(side, round(length * scale)) for length in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = ((length - side) // 2 for length in size)
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image)


def _stamp(path: Path) -> list[str | int]:
    """What changes when a file changes, without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        raise ClipItError("no such image", path, "Add it or take it out of the list") from error
    return [path.name, status.st_size, status.st_mtime_ns]
