"""Pieces in their place under `$CLIPIT_DATA`: are they there, and how they get there."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch

from clipit_lib.data.crc5 import SPLITS
from clipit_lib.data.folder import read_manifest
from clipit_lib.errors import ClipItError
from clipit_lib.fetch.sources import Piece
from clipit_lib.fetch.unpack import gunzip, unzip
from clipit_lib.files import write_text, written_beside


def present(piece: Piece, data: Path) -> bool:
    """Whether it is there and whole.

    A file that is used as it came is compared with its checksum. What was unpacked got its name
    only when it was whole, so it is not read again; the images of a folder are counted.
    """
    path = data / piece.target
    if piece.folders:
        return count_images(piece, path) >= piece.images
    if not path.is_file():
        return False
    if piece.carried:
        return _rows(path) == _rows(piece.carried)
    return piece.unpack is not None or matches(path, piece.checksum) is None


def count_images(piece: Piece, folder: Path) -> int:
    """How many .tif there are in the folders that a piece promises."""
    inside = (folder / name for name in piece.folders)
    names = (entry for each in inside if each.is_dir() for entry in os.listdir(each))
    return sum(name.endswith(".tif") and not name.startswith(".") for name in names)


def matches(path: Path, checksum: str | None) -> str | None:
    """None if a file has this checksum or none is known; else what was expected and found."""
    if checksum is None:
        return None
    algorithm, _, expected = checksum.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    return None if found == expected else f"{algorithm} expected {expected}, found {found}"


def write_carried(piece: Piece, data: Path) -> None:
    """Write a list that this package carries, as csv."""
    assert piece.carried is not None
    opened = gzip.open if piece.carried.suffix == ".gz" else open
    with opened(piece.carried, "rt", encoding="utf-8") as stream:
        write_text(data / piece.target, str(stream.read()))


def refuse_occupied(piece: Piece, data: Path) -> None:
    """Raise ClipItError if something else than the piece is in its place."""
    target = data / piece.target
    if piece.folders and target.exists() and any(target.iterdir()):
        raise ClipItError(
            f"holds {count_images(piece, target)} of {piece.images} images",
            target,
            "Move it out of the way, then fetch again; it is not overwritten",
        )


def install(piece: Piece, file: Path, data: Path, *, packed: bool) -> None:
    """Put a file or tree at hand in its place, unpacked if it is packed, whole or not at all.

    Files are hard links where that can be, else copies.

    Raises:
        ClipItError: damaged, not what it should hold, or it cannot be written (then with an
            OSError as its cause).
    """
    with _placed(data / piece.target) as temporary:
        if packed and piece.unpack == "gzip":
            gunzip(file, temporary)
        elif packed and piece.unpack == "zip":
            unzip(file, temporary, piece.inside)
        elif file.is_dir():
            for name in piece.folders:
                shutil.copytree(file / name, temporary / name, copy_function=_link)
        else:
            _link(file, temporary)
        _check_contents(piece, temporary, file)


def find(piece: Piece, folder: Path) -> tuple[Path, bool]:
    """A checked copy of a piece in the user's folder, and whether it is packed.

    Raises:
        ClipItError: there is none, or its checksum is another.
    """
    within = (folder, folder / piece.target.split("/")[0])
    for path in (root / each for root in within for each in (*piece.copies, piece.target)):
        whole = count_images(piece, path) >= piece.images if piece.folders else path.is_file()
        if whole:
            known = piece.contents if piece.unpack else piece.checksum
            return _checked(path, known), False
    for path in (root / piece.name for root in within):
        if path.is_file():
            return _checked(path, piece.checksum), piece.unpack is not None
    names = dict.fromkeys((piece.name, *(each for each in piece.copies if each != ".")))
    raise ClipItError(f"no {' or '.join(names)}, or not whole", folder, "Put it there")


def _checked(path: Path, checksum: str | None) -> Path:
    if path.is_file() and (fault := matches(path, checksum)):
        raise ClipItError(fault, path, "This is another or a damaged file: download it again")
    return path


def _check_contents(piece: Piece, path: Path, origin: Path) -> None:
    if piece.folders and (count := count_images(piece, path)) < piece.images:
        raise ClipItError(
            f"holds {count} images, expected {piece.images}", origin, "Download it again"
        )
    if piece.columns:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            header = next(csv.reader(stream), [])
        for column in piece.columns:
            if column not in header:
                found = ", ".join(header)[:80]
                raise ClipItError(f"no column {column} (found: {found})", origin, "Mend the file")


def _rows(manifest: Path) -> set[tuple[str, ...]] | None:
    try:
        table = read_manifest(manifest, SPLITS)
    except ClipItError:
        return None
    return set(map(tuple, table[["path", "split", "label", "sha256"]].to_numpy().tolist()))


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another disk, or a file of somebody else
        shutil.copy2(source, target)


@contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """`written_beside`, with advice that fits the user's data."""
    try:
        with written_beside(target) as temporary:
            yield temporary
    except ClipItError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        advice = "Free space or give write permission, or set CLIPIT_DATA to another folder"
        raise ClipItError(error.what, error.where, advice) from error.__cause__
