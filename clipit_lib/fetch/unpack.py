"""Unpacking of archives: nothing leaves the folder, nothing half-read is taken for whole."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import zlib
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from tqdm import tqdm

from clipit_lib.errors import ClipItError

CHUNK = 1 << 20
DAMAGE = (BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def gunzip(archive: Path, target: Path) -> None:
    """Unpack a .gz into the file `target`.

    Raises:
        ClipItError: it is damaged.
    """
    try:
        with gzip.open(archive) as packed, target.open("wb") as stream:
            shutil.copyfileobj(packed, stream, CHUNK)
    except DAMAGE as error:
        raise _damaged(archive, error) from None


def unzip(archive: Path, target: Path, inside: str) -> None:
    """Unpack what a zip holds at `inside`, wherever that is in it.

    A name with a slash after it is a folder, whose files come below the folder `target`; another
    is a file, which becomes the file `target`. Hidden files stay behind.

    Raises:
        ClipItError: it is damaged, has no `inside`, any member would leave the folder or is a
            link, or there is no room for it (then with an OSError as its cause).
    """
    try:
        with ZipFile(archive) as packed:
            for member in packed.infolist():
                _refuse_leaving(member, archive)
            taken = {path: each for each in packed.infolist() if (path := _below(each, inside))}
            if not taken:
                raise ClipItError(f"holds no {inside}", archive, "Fetch or download it again")
            target.parent.mkdir(parents=True, exist_ok=True)
            _check_room(sum(each.file_size for each in taken.values()), target.parent)
            for path, member in tqdm(taken.items(), desc=f"unpacking {archive.name}", disable=None):
                file = target / path
                file.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as source, file.open("wb") as stream:
                    shutil.copyfileobj(source, stream, CHUNK)  # zipfile compares the CRC at the end
    except DAMAGE as error:
        raise _damaged(archive, error) from None


def _below(member: ZipInfo, inside: str) -> str:
    """Its path below `inside` ("." for the file itself), or "" if it is not to be taken."""
    _, found, rest = f"/{member.filename}".partition(f"/{inside}")
    hidden = any(part.startswith((".", "__MACOSX")) for part in member.filename.split("/"))
    if not found or member.is_dir() or hidden:
        return ""
    if inside.endswith("/"):
        return rest
    return "." if not rest else ""


def _refuse_leaving(member: ZipInfo, archive: Path) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    leaves = path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
    if leaves or stat.S_ISLNK(member.external_attr >> 16):
        raise ClipItError(
            f"its member {member.filename!r} leads out of the folder",
            archive,
            "Do not trust it; nothing of it was kept",
        )


def _check_room(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ClipItError(
            f"unpacked it takes {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            folder,
            "Free space, or set CLIPIT_DATA to a larger disk",
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _damaged(archive: Path, error: BaseException) -> ClipItError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ClipItError(f"a damaged archive ({reason})", archive, "Fetch or download it again")
