"""Files that are whole or absent, and names that follow from content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clipit_lib.errors import ClipItError


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; move it into place if the block succeeds.

    The block may create a file or a folder there. A failure removes it and leaves an earlier
    `target` untouched.

    Raises:
        ClipItError: the folder of `target` cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise ClipItError(
            f"cannot write here ({error.strerror})",
            target.parent,
            "Give write permission or set CLIPIT_OUTPUT to a folder of yours",
        ) from error
    except OSError as error:
        raise ClipItError(
            f"writing failed ({error.strerror})",
            target,
            "Free space or set CLIPIT_OUTPUT to another disk; what was finished before is kept",
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # what went wrong has been said already
            temporary.unlink()


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
