"""Published images in one folder a class: listed in the order of the classes, then by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from clipit_lib.data.cache import Recipe, open_or_build
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.folder import decode_image, undecoded
from clipit_lib.data.published import Published
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from clipit_lib.settings import BachData, CrcData

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
        found = ", ".join(folders(root)) or "none"
        what = f"no class folder {', '.join(missing)} (found: {found})"
        raise ClipItError(what, root, fix)
    rows: list[tuple[str, str, str]] = []
    for name in classes:
        images = sorted(_images(root / name))
        if not images:
            raise ClipItError(f"no {SUFFIX} images in this class folder", root / name, fix)
        rows += [(f"{name}/{image}", name, stamp) for image, stamp in images]
    return pd.DataFrame(rows, columns=["path", "label", "stamp"])


def folders(root: Path) -> list[str]:
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
    for label, paths in listed.groupby("label", sort=False)["path"]:
        for path in dict.fromkeys((root / paths.iloc[0], root / paths.iloc[-1])):
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
