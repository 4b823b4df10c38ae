"""Files: written whole or not at all, locked, hashed; tables of text; progress bars."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import sys
import unicodedata
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock, SoftFileLock
from safetensors import SafetensorError
from tqdm import tqdm

from clipit_lib.errors import ClipItError

NO_ENTRY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)


@contextmanager
def written_beside(target: Path, fix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; move it into place if the block succeeds.

    The block may make a file or a folder there. A failure leaves an earlier `target` untouched.

    Args:
        fix: what to do if it cannot be written, if not what is said of caches and results.

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
        raise _not_written(target, error, fix) from error
    finally:
        _remove(temporary)


# What flock(2) answers where a disk has no locks, as many a shared one.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def held(lock: Path, timeout: int = -1) -> Iterator[None]:
    """Hold a lock file, which a killed process gives back; wait `timeout` seconds, -1 for ever.

    On a disk without locks a file `LOCK.held` stands for it, which is named: what a killed process
    leaves of those is passed over on the same machine only.

    Raises:
        OSError: the file cannot be written; as `filelock.Timeout`, another process holds it.
    """
    try:
        grip = FileLock(lock, timeout, fallback_to_soft=False).acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        said = "no locks on this disk (%s): of a process killed on another machine, remove %s.held"
        logging.getLogger(__name__).warning(said, error.strerror, lock)
        grip = SoftFileLock(f"{lock}.held", timeout).acquire()
    with grip:
        yield


@contextmanager
def locked(target: Path, lock: Path | None = None) -> Iterator[None]:
    """Be the only process that makes `target`; what killed ones have left of it is removed.

    Args:
        lock: the lock file, if not the one beside `target`; see `held`.

    Raises:
        ClipItError: the folder of `target` cannot be written.
    """
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(lock or Path(f"{target}.lock")))
        except OSError as error:
            raise _not_written(target, error) from error
        for rest in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            _remove(rest)
        yield


def kept(target: Path, make: Callable[[Path], object], lock: Path | None = None) -> Path:
    """`target`, made first if it is not there: whole or not at all, by one process of several.

    Args:
        make: writes a file or a folder at the path it is given, see `written_beside`.
        lock: as in `locked`.
    """
    if not target.exists():
        with locked(target, lock):
            if not target.exists():  # another process may have made it meanwhile
                with written_beside(target) as temporary:
                    make(temporary)
    return target


@contextmanager
def whole(path: Path, fix: str) -> Iterator[None]:
    """Whatever fails in the block means, as ClipItError, that `path` is missing or damaged."""
    try:
        yield
    except (ClipItError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise ClipItError(f"missing or damaged ({reason})", path, fix) from error


def _not_written(
    target: Path, error: OSError | SafetensorError, fix: str | None = None
) -> ClipItError:
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    if isinstance(error, IsADirectoryError):
        return ClipItError("this is a folder", target, "Name a file")
    set_to = "set CLIPIT_OUTPUT (for caches CLIPIT_CACHE) to"
    if isinstance(error, OSError) and error.errno in NO_ENTRY:
        what, where = "cannot write here", target.parent
        advice = f"Give write permission, or {set_to} your folder"
    else:
        what, where = "writing failed", target
        advice = f"Free space, or {set_to} another disk; what was finished before is kept"
    return ClipItError(f"{what} ({reason})", where, fix or advice)


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


# -- A csv of the user: every cell is text, and every row has the cells of the header.


SAVE = "Save it as UTF-8 csv with a header"


def tidy(text: str) -> str:
    """As a name is compared: composed (NFC), without what has no width, any blanks as one space."""
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        seen = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
        text = "".join(seen)
    return " ".join(text.split())


def header(name: str, known: Collection[str]) -> str:
    """The name of a column: in small letters, if it is known so."""
    name = tidy(name)
    return name.lower() if name.lower() in known else name


def read_text_table(
    path: Path, fix: str = SAVE, content: str | None = None, blank_lines: bool = False
) -> pd.DataFrame:
    """Read a csv; an empty cell is "".

    Args:
        fix: what to do if it cannot be read.
        content: what the file holds, if it has been decoded.
        blank_lines: whether an empty line is a row of empty cells, and not nothing.

    Raises:
        ClipItError: no csv in UTF-8, or rows with more cells than the header: texts with commas
            that are not quoted, whose first cells pandas would take for names of the rows.
    """
    source = path if content is None else StringIO(content)
    try:
        table = pd.read_csv(
            source, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            skip_blank_lines=not blank_lines,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ClipItError(f"not a csv in UTF-8 ({reason})", path, fix) from error
    if not isinstance(table.index, pd.RangeIndex):
        what = "rows have more cells than the header"
        raise ClipItError(what, path, "Quote texts that hold commas")
    return table


def named_column(table: pd.DataFrame, wanted: Sequence[str], path: Path, fix: str) -> str:
    """The first of the wanted columns that a table has.

    Raises:
        ClipItError: it has none of them, or two of the same name.
    """
    found = next((each for each in map(tidy, wanted) if each in table), None)
    if found is None:
        names = ", ".join(table.attrs.get("names", table.columns))
        raise ClipItError(f"no column {' or '.join(wanted)} (found: {names})", path, fix)
    if list(table.columns).count(found) > 1:
        raise ClipItError(f"two columns {found}", path, "Keep one of them")
    return found


# -- One kind of progress bar, for a terminal, a log and a notebook alike.


DELAY = 5.0  # seconds; what is done sooner shows no bar
Item = TypeVar("Item")


def progress(
    items: Iterable[Item], what: str, unit: str = "it", total: int | None = None
) -> tqdm[Item]:
    """`items` behind a bar that comes late and leaves nothing behind.

    On standard output: a notebook colours standard error, and keeps an emptied bar's line there.
    """
    return tqdm(items, desc=what, unit=unit, total=total, leave=False, delay=DELAY, file=sys.stdout)
