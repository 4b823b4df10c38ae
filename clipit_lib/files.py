"""Files that are whole or absent, and names that follow from content."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from clipit_lib.errors import ClipItError

NO_ENTRY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; move it into place if the block succeeds.

    The block may create a file or a folder there. A failure removes it and leaves an earlier
    `target` untouched.

    Raises:
        ClipItError: the folder of `target` cannot be written, or a file was made and `target` is a
            folder.
    """
    target = Path(os.path.abspath(target))  # "." has no name
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise _not_written(target, error) from error
    finally:
        _remove(temporary)


@contextmanager
def locked(target: Path, lock: Path | None = None) -> Iterator[None]:
    """Be the only process that makes `target`, by a lock file that a killed process gives back.

    What killed processes have left of their attempts is removed.

    Args:
        lock: the lock file, if not the one beside `target`.

    Raises:
        ClipItError: the folder of `target` cannot be written.
    """
    holder = FileLock(lock or f"{target}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        holder.acquire()
    except OSError as error:
        raise _not_written(target, error) from error
    try:
        for rest in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            _remove(rest)
        yield
    finally:
        holder.release()


@contextmanager
def whole(path: Path, fix: str) -> Iterator[None]:
    """Whatever fails while `path` is read in the block is said to be the fault of `path`.

    Raises:
        ClipItError: `path` is missing or damaged.
    """
    try:
        yield
    except (ClipItError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise ClipItError(f"missing or damaged ({reason})", path, fix) from error


def _not_written(target: Path, error: OSError | SafetensorError) -> ClipItError:
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    if isinstance(error, IsADirectoryError):
        return ClipItError("this is a folder", target, "Name a file")
    if isinstance(error, OSError) and error.errno in NO_ENTRY:
        return ClipItError(
            f"cannot write here ({reason})",
            target.parent,
            "Give write permission, or set CLIPIT_OUTPUT (for caches CLIPIT_CACHE) to your folder",
        )
    return ClipItError(
        f"writing failed ({reason})",
        target,
        "Free space, or set CLIPIT_OUTPUT (for caches CLIPIT_CACHE) to another disk; what was "
        "finished before is kept",
    )


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; what went wrong has been said already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def write_text(target: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with written_beside(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no free choices, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: bytes | str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the parts, each preceded by its length."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
