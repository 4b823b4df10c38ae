"""The files of PatchCamelyon as torchvision names them: HDF5, read in blocks, and slide ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from clipit_lib.errors import ClipItError
from clipit_lib.text_tables import read_text_table

# As the files call the splits, in the order in which they are kept.
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SHAPES = {"x": (96, 96, 3), "y": (1, 1, 1)}
FETCH = "`python -m clipit_lib fetch pcam`"


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
