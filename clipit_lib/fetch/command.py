"""`fetch`: bring a data set or corpus into `$CLIPIT_DATA`, once its terms are accepted."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.fetch.download import download
from clipit_lib.fetch.place import find, install, present, refuse_occupied, write_carried
from clipit_lib.fetch.sources import SOURCES, Piece, Source

# More pieces than this are small files, brought by so many threads at once.
FEW, THREADS = 16, 8
STAGING = ".fetch"


def main(arguments: list[str]) -> None:
    """Download a data set or corpus into CLIPIT_DATA, or take it from a folder, and check it.

    What is there is kept: the same command again goes on where an earlier one stopped.
    """
    given = _parser().parse_args(arguments)
    if given.list:
        print(_listing())
        return
    if given.name is None:
        raise ClipItError("nothing to fetch", "fetch", f"Name one of {', '.join(SOURCES)}")
    source, data, local = SOURCES[given.name](), paths.data_to_be(), given.local
    missing = [piece for piece in source.pieces if not present(piece, data)]
    if not missing:
        print(f"{source.name} is there, whole, under {data}: nothing to do")
        return
    print(_terms(source, missing))
    if given.dry_run:
        print(_plan(missing, data))
        return
    _accept(source, given.accept_licence)
    if local is not None and not local.is_dir():
        raise ClipItError("no such folder", local, "Mend --from")
    for piece in missing:
        refuse_occupied(piece, data)
    _bring(source, missing, data, local)
    print(f"{source.name} is there, whole, under {data}")


def _bring(source: Source, missing: Sequence[Piece], data: Path, local: Path | None) -> None:
    staging = data / STAGING / source.name
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with FileLock(data / STAGING / f"{source.name}.lock", timeout=0):
            _check_room(missing, data, staging, local)
            _bring_all(source, missing, data, local)
            shutil.rmtree(staging)
    except Timeout:
        raise ClipItError("another fetch of it is at work", data, "Wait for that one") from None
    except KeyboardInterrupt:
        raise ClipItError("stopped", data, "The same command again goes on from here") from None
    except OSError as error:
        raise ClipItError(
            f"cannot write here ({error.strerror})", data, "Set CLIPIT_DATA to a folder of yours"
        ) from error


def _bring_all(source: Source, missing: Sequence[Piece], data: Path, local: Path | None) -> None:
    coming = [piece for piece in missing if not piece.carried]
    if len(coming) <= FEW:
        for piece in coming:
            print(f"{piece.name} -> {data / piece.target}", flush=True)
            _bring_one(source, piece, data, local, show=True)
    else:
        bar = tqdm(total=len(coming), desc=source.name, unit="file", disable=None)
        with bar, ThreadPoolExecutor(THREADS) as pool:
            tasks = [
                pool.submit(_bring_one, source, piece, data, local, show=False) for piece in coming
            ]
            try:
                for task in as_completed(tasks):
                    task.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # the others would fail the same way
                raise
    for piece in missing:
        if piece.carried:  # the list comes last: where it is, its files are
            write_carried(piece, data)


def _bring_one(source: Source, piece: Piece, data: Path, local: Path | None, show: bool) -> None:
    if local is not None:
        file, packed = find(piece, local)
        install(piece, file, data, packed=packed)
        return
    file = download(piece, data / STAGING / source.name, source.page, show=show)
    try:
        install(piece, file, data, packed=piece.unpack is not None)
    except ClipItError as error:
        if not isinstance(error.__cause__, OSError):  # bad contents, not a full disk
            file.unlink()
        raise
    file.unlink()


def _check_room(missing: Sequence[Piece], data: Path, staging: Path, local: Path | None) -> None:
    need = sum(piece.room for piece in missing)
    if local is None:  # an archive goes once it is unpacked, so one at a time is there
        there = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
        need += max(max(piece.size for piece in missing) - there, 0)
    free = shutil.disk_usage(data).free
    if need > free:
        raise ClipItError(
            f"needs about {_bytes(need)}, {_bytes(free)} are free",
            data,
            "Free space, or set CLIPIT_DATA to a larger disk",
        )


def _accept(source: Source, accepted: bool) -> None:
    if accepted:
        return
    if not sys.stdin.isatty():
        raise ClipItError(
            "nobody to accept its terms", f"fetch {source.name}", "Add --accept-licence if you do"
        )
    if input("Do you accept? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ClipItError("not accepted, not fetched", f"fetch {source.name}", "Nothing was done")


def _terms(source: Source, missing: Sequence[Piece]) -> str:
    size = _bytes(sum(piece.size for piece in missing))
    files = f"{len(missing)} of {len(source.pieces)} files to come"
    return (
        f"{source.name}: {source.what}\nlicence: {source.licence}\nterms:   {source.page}\n"
        f"size:    {size} to download, {files}\nchecked: by {source.checked}"
    )


def _plan(missing: Sequence[Piece], data: Path) -> str:
    lines = [f"  {each.urls[0]} -> {data / each.target}" for each in missing if each.urls]
    more = [f"  ... and {len(lines) - FEW} more"] if len(lines) > FEW else []
    return "\n".join([*lines[:FEW], *more])


def _listing() -> str:
    try:
        data = paths.data_to_be()
    except ClipItError:
        data = None
    lines = []
    for build in SOURCES.values():
        source = build()
        size = _bytes(sum(piece.size for piece in source.pieces))
        lines.append(f"{source.name:16}{size:>9}  {_state(source, data):14}{source.what}")
        lines.append(f"{'':27}licence: {source.licence}")
    return "\n".join(lines)


def _state(source: Source, data: Path | None) -> str:
    if data is None:
        return "(CLIPIT_DATA?)"
    there = sum(present(piece, data) for piece in source.pieces)
    if there == len(source.pieces):
        return "present"
    return f"{there} of {len(source.pieces)}" if there else "absent"


def _bytes(size: int) -> str:
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if size >= 1000**power:
            return f"{size / 1000**power:.{1 if power == 3 else 0}f} {unit}"
    return f"{size} B"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clipit_lib fetch", description=main.__doc__)
    add = parser.add_argument
    add("name", nargs="?", choices=list(SOURCES), help="what to fetch")
    add(
        "--from",
        dest="local",
        type=Path,
        metavar="DIR",
        help="take it from here, packed or unpacked, instead of downloading it",
    )
    add("--accept-licence", action="store_true", help="accept the terms; needed without a terminal")
    add("--list", action="store_true", help="what there is, its licence and size, and what is here")
    add("--dry-run", action="store_true", help="print what would be brought from where, only")
    return parser
