"""The command `fetch`: bring data sets and reports into $CLIPIT_DATA, checked."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import time
import zlib
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote
from zipfile import BadZipFile, ZipFile

import pandas as pd
import requests
from filelock import Timeout
from pooch.downloaders import REQUESTS_HEADERS
from pooch.hashes import hash_matches
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from clipit_lib import files
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Strict, known
from companion import crc5, paths
from companion.published import FETCH, PUBLISHED_DATA, Published, class_images
from companion.reading import agree, read_strict

# -- What can be fetched: where it is, its licence, how it is checked and where it goes.

TABLE = Path(__file__).parent / "manifests" / "sources.yaml"
ORIGINS = {
    "zenodo": "https://zenodo.org",
    "github": "https://github.com",
    "raw": "https://raw.githubusercontent.com",
}
ARCHIVES = (".gz", ".zip")


class Piece(Strict):
    """One file at its origin, and what becomes of it, as sources.yaml explains; a .gz or .zip is
    unpacked. `data` is what is known of its images, `fix` what to do where it is not whole.
    """

    name: str
    target: str = ""
    urls: tuple[str, ...] = ()
    size: int = 0
    checksum: str | None = None
    inside: str = ""
    room: int = 0
    contents: str | None = None
    images: int = 0
    data: Published | None = None
    columns: tuple[str, ...] = ()
    rows: int = 0
    fix: str = ""

    @property
    def unpacked(self) -> str:
        """Its name once unpacked."""
        return str(Path(self.name).with_suffix("")) if self.name.endswith(ARCHIVES) else self.name

    @property
    def known_by(self) -> str | None:
        """The checksum of what is in its place, if one is published."""
        return self.checksum if self.unpacked == self.name else self.contents


class Source(Strict):
    """A data set or corpus, as sources.yaml explains."""

    what: str
    licence: str = ""
    page: str = ""
    checked: str
    urls: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()


def sources() -> dict[str, Source]:
    """Everything in the table, by name, but for the images of crc5."""
    return read_strict(TABLE, dict[str, Source])


def find_source(name: str) -> Source:
    """One data set or corpus, with all addresses, targets and terms."""
    source, known = sources()[name], PUBLISHED_DATA.get(name)
    update = {} if known is None else {"licence": known.licence, "page": known.page}
    pieces = source.pieces
    if name == "crc5":
        update = {"licence": crc5.LICENCE}
        rows = pd.read_csv(crc5.MANIFEST, dtype=str)[["source_path", "path", "sha256"]]
        images = (
            Piece(name=origin, target=f"crc5/{path}", size=16_000, checksum=f"sha256:{sha256}")
            for origin, path, sha256 in rows.to_numpy().tolist()
        )
        pieces = (*images, Piece(name=crc5.LIST))

    def completed(piece: Piece) -> Piece:
        urls = () if piece.name == crc5.LIST else piece.urls or source.urls
        held = {
            "target": piece.target or f"{name}/{piece.unpacked}",
            "urls": tuple(url.format(name=quote(piece.name), **ORIGINS) for url in urls),
            "data": known if piece.images else None,
            "fix": FETCH.format(name),
        }
        return piece.model_copy(update=held)

    return source.model_copy(update={**update, "pieces": tuple(map(completed, pieces))})


# -- Downloads that go on where they broke off, from the first mirror that gives the right bytes.
#
# What passes by itself (a server at fault, a broken line) is tried again, ever later; what does not
# (no access, no such file, other bytes) leads to the next mirror.

# Seconds before the first repetition, doubled each time up to the longest; tries in a row that
# bring no new byte before a mirror is given up; seconds without a byte.
FIRST_WAIT, LONGEST_WAIT, ATTEMPTS, TIMEOUT = 1.0, 60.0, 6, 60.0
# A server that asks for more patience than this many seconds is not waited for.
PATIENCE, NEVER = 900.0, float("inf")
# A chunk that the line breaks in is lost, and asked for again.
CHUNK = 1 << 16
REFUSALS = {
    401: "asks for a login (401)",
    403: "refuses access (403)",
    404: "has no such file (404)",
}


class Refused(ValueError):
    """A mirror that will not give the file, and why; of other bytes pooch says it by itself."""


def download(piece: Piece, folder: Path, page: str, *, show: bool = True) -> Path:
    """The path below `folder` of a whole and checked download.

    What is there from an earlier call is kept: a whole file if its checksum is right, a part
    (`NAME.part`) to go on from. Other bytes than the checksum says are deleted.

    Args:
        show: a progress bar on a terminal.

    Raises:
        ClipItError: no mirror gave the right bytes, or they cannot be written.
    """
    path, faults = folder / piece.name, []
    part = path.with_name(f"{path.name}.part")
    if path.is_file() and hash_matches(path, piece.checksum):
        return path
    for url in piece.urls:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            resume(url, part, show=show)
            hash_matches(part, piece.checksum, strict=True, source=piece.name)
            return part.replace(path)
        except ValueError as fault:
            if not isinstance(fault, Refused):
                part.unlink()
            faults.append(f"{url}: {_mismatch(fault)}")
        except OSError as error:
            fix = "Free space or give write permission; the same command goes on from here"
            raise ClipItError(f"writing failed ({error.strerror})", path, fix) from error
    fix = f"Try again later, or take it by hand from {page} and run again with --from FOLDER"
    raise ClipItError("; ".join(faults), piece.name, fix)


def resume(
    url: str, part: Path, *, show: bool = True, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Bring what is missing of `url` into `part`, which outlives a failure.

    Args:
        sleep: waits so many seconds.

    Raises:
        Refused: the server will not give it, or not within `ATTEMPTS` fruitless tries.
        OSError: it cannot be written.
    """
    with part.open("ab") as stream:
        most, fruitless = stream.tell(), 0
        while fault := _fault(url, stream, show):
            have = stream.seek(0, os.SEEK_END)
            fruitless = 0 if have > most else fruitless + 1
            most = max(most, have)
            wait = fault[1] or min(FIRST_WAIT * 2 ** max(fruitless - 1, 0), LONGEST_WAIT)
            if fruitless == ATTEMPTS or wait > PATIENCE:
                if not have:
                    part.unlink()
                raise Refused(fault[0])
            sleep(wait)


def _fault(url: str, stream: BinaryIO, show: bool) -> tuple[str, float | None] | None:
    """Go on; if it fails, why, and after how many seconds to ask again if that is known."""
    have = stream.tell()
    # Packed on the way, a file would have other bytes and no length to go on from.
    headers = {**REQUESTS_HEADERS, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            status, said = answer.status_code, answer.headers
            span, wait = said.get("Content-Range", ""), said.get("Retry-After", "")
            if status == 416 and span == f"bytes */{have}":
                return None  # it was whole already
            other = status == 206 and not span.startswith(f"bytes {have}-")
            if other or status in (200, 416):  # a server without ranges gives all of it
                stream.truncate(0)
            if other:
                return "gives another part than the one asked for", None
            if status in (416, 429) or status >= 500:
                return f"answers {status}", float(wait) if wait.isdigit() else None
            if not answer.ok:
                return REFUSALS.get(status, f"answers {status}"), NEVER
            length = said.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            with tqdm.wrapattr(stream, "write", total, disable=None if show else True) as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
    except requests.Timeout:
        return f"gives no answer within {TIMEOUT:g} s", None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        return f"cannot be reached or broke off ({type(error).__name__})", None
    except requests.RequestException as error:
        return " ".join(str(error).split())[:160], NEVER
    return None


# -- Unpacking of archives: nothing leaves the folder, nothing half-read is taken for whole.

DAMAGE = (BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unpack(archive: Path, target: Path, inside: str = "") -> None:
    """Unpack a .gz into the file `target`, or what a zip holds at `inside`, wherever that is in it.

    A name with a slash after it is a folder, whose files come below the folder `target`; another
    is a file, which becomes the file `target`. Hidden files stay behind.

    Raises:
        ClipItError: it is damaged, has no `inside`, any member would leave the folder or is a
            link, or there is no room for it (then with an OSError as its cause).
    """
    try:
        if archive.suffix == ".gz":
            with gzip.open(archive) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
        else:
            _unzip(archive, target, inside)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        what = f"a damaged archive ({reason})"
        raise ClipItError(what, archive, "Fetch or download it again") from None


def _unzip(archive: Path, target: Path, inside: str) -> None:
    with ZipFile(archive) as packed:
        taken = {}
        for member in packed.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            leaves = path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
            if leaves or stat.S_ISLNK(member.external_attr >> 16):
                what = f"its member {member.filename!r} leads out of the folder"
                raise ClipItError(what, archive, "Do not trust it; nothing of it was kept")
            _, found, rest = f"/{member.filename}".partition(f"/{inside}")
            hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
            if found and not hidden and not member.is_dir() and bool(rest) == inside.endswith("/"):
                taken[target / rest] = member
        if not taken:
            raise ClipItError(f"holds no {inside}", archive, "Fetch or download it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        size = sum(member.file_size for member in taken.values())
        _check_room("unpacked it takes", size, target.parent)
        for file, member in tqdm(taken.items(), desc=f"unpacking {archive.name}", disable=None):
            file.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, file.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)  # zipfile compares the CRC at the end


def _check_room(what: str, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        what = f"{what} {_bytes(size)}, {_bytes(free)} are free"
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fix = "Free space, or set CLIPIT_DATA to a larger disk"
        raise ClipItError(what, folder, fix) from full


def _bytes(size: int) -> str:
    return tqdm.format_sizeof(size, "B")


# -- Pieces in their place under `$CLIPIT_DATA`: are they whole, and how they get there.

LARGE = 1 << 26  # bytes of a file whose checksum is remembered
REPORTS = ("tcga", "tcga-colorectal", "gastric")


def fault(piece: Piece, path: Path) -> ClipItError | None:
    """Why a piece is not whole at a path, where it lies unpacked: by its checksum where one is
    published, else by what is counted in it; None if it is.
    """
    try:
        _require_whole(piece, path)
    except ClipItError as error:
        return error
    return None


def faults(name: str, folder: Path) -> list[ClipItError]:
    """What is not whole of a data set whose pieces lie in a folder."""
    there = ((p, folder / p.target.partition("/")[2]) for p in find_source(name).pieces)
    return [error for piece, path in there if (error := fault(piece, path))]


def require_at(given: str | None) -> None:
    """Raise, as ClipItError, unless reports that are brought to a path of a profile are whole."""
    for piece in (p for name in REPORTS for p in find_source(name).pieces if p.target == given):
        _require_whole(piece, paths.in_data(piece.target))


def judged_by(name: str) -> str:
    """How it is known that a data set or corpus is whole."""
    exactly = all(each.known_by or not each.urls for each in find_source(name).pieces)
    return "its published checksums" if exactly else "its counts and shapes"


def _require_whole(piece: Piece, path: Path) -> None:
    if piece.data is not None:
        if (found := len(class_images(path, piece.data, piece.fix)[1])) != piece.images:
            raise ClipItError(f"holds {found} images, expected {piece.images}", path, piece.fix)
    elif not piece.urls:
        crc5.listed(path)
    elif not path.is_file():
        raise ClipItError("no such file", path, piece.fix)
    elif piece.known_by is not None:
        _require_checksum(piece, path, piece.known_by)
    else:
        table = files.read_text_table(path, piece.fix)
        for column in piece.columns:
            files.named_column(table, [column], path, piece.fix)
        if len(table) != piece.rows:
            raise ClipItError(f"holds {len(table)} rows, expected {piece.rows}", path, piece.fix)


def _require_checksum(piece: Piece, path: Path, checksum: str | None) -> None:
    status = path.stat()
    stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    card = paths.cache() / "checksums" / files.digest(*map(str, (*stamp, checksum)))
    if checksum is None or card.exists():
        return
    try:
        hash_matches(path, checksum, strict=True)
    except ValueError as error:
        raise ClipItError(f"another or damaged: {_mismatch(error)}", path, piece.fix) from None
    if status.st_size >= LARGE:
        files.write_text(card, str(path))


def find(piece: Piece, folder: Path) -> Path:
    """A checked copy of a piece, unpacked or not, in the user's folder.

    Raises:
        ClipItError: there is none, or its checksum is another.
    """
    top, _, below = piece.target.partition("/")
    names = (piece.unpacked, below, piece.name, Path(piece.name).name)
    for path in (root / each for each in names for root in (folder, folder / top)):
        if path.is_file():
            if path.suffix in ARCHIVES:
                _require_checksum(piece, path, piece.checksum)
            else:
                _require_whole(piece, path)
            return path
        if piece.data is not None and fault(piece, path) is None:
            return path
    said = " or ".join(dict.fromkeys((piece.name, piece.unpacked)))
    raise ClipItError(f"no {said}, or not whole", folder, "Put it there")


def _mismatch(fault: ValueError) -> str:
    """What pooch says of another checksum, but for what it says it has done about it."""
    return str(fault).partition(". Deleted")[0]


def install(piece: Piece, file: Path, data: Path) -> None:
    """Put a file or tree at hand in its place, unpacked if it is packed, whole or not at all.

    Files are hard links where that can be, else copies.

    Raises:
        ClipItError: damaged, not what it should hold, or it cannot be written (then with an
            OSError as its cause).
    """
    fix = "Free space or give write permission, or set CLIPIT_DATA to another folder"
    with files.written_beside(data / piece.target, fix) as temporary:
        if file.suffix in ARCHIVES:
            unpack(file, temporary, piece.inside)
        elif piece.data is not None:
            root, _ = class_images(file, piece.data, piece.fix)
            for name in piece.data.classes:
                shutil.copytree(root / name, temporary / name, copy_function=_link)
        else:
            _link(file, temporary)
        if (error := fault(piece, temporary)) is not None:
            raise ClipItError(error.what, file, "Download it again")


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another disk, or a file of somebody else
        shutil.copy2(source, target)


# -- `fetch`: bring a data set or corpus into `$CLIPIT_DATA`, once its terms are accepted.

# More pieces than this are small files, brought by so many threads at once.
FEW, THREADS = 16, 8
STAGING = ".fetch"


def main(given: Namespace) -> None:
    """Download a data set or corpus into CLIPIT_DATA, or take it from a folder, and check it.

    What is there is kept: the same command again goes on where an earlier one stopped.
    """
    if given.list:
        print(_listing())
        return
    if given.name is None:
        raise ClipItError("nothing to fetch", "fetch", f"Name one of {', '.join(sources())}")
    name = known(given.name, sources(), "data set or corpus", "fetch")
    source, data = find_source(name), paths.data_to_be()
    missing = [piece for piece in source.pieces if fault(piece, data / piece.target)]
    if missing:
        size = _bytes(sum(piece.size for piece in missing))
        print(
            f"{name}: {source.what}\nlicence: {source.licence}\nterms:   {source.page}\n"
            f"size:    {size} to download, {len(missing)} of {len(source.pieces)} files to come\n"
            f"checked: by {source.checked}"
        )
        if given.dry_run:
            lines = [f"  {each.urls[0]} -> {data / each.target}" for each in missing if each.urls]
            more = [f"  ... and {len(lines) - FEW} more"] if len(lines) > FEW else []
            print("\n".join([*lines[:FEW], *more]))
            return
        if not given.accept_licence:
            where, fix = f"fetch {name}", "Add --accept-licence if you do"
            agree(
                "Do you accept?",
                ClipItError("nobody to accept its terms", where, fix),
                ClipItError("not accepted, not fetched", where, "Nothing was done"),
            )
        _bring(name, source.page, missing, data, given.local)
    done = "" if missing else ": nothing to do"
    print(f"{name} is there, whole by {judged_by(name)}, under {data}{done}")


def _bring(name: str, page: str, missing: Sequence[Piece], data: Path, local: Path | None) -> None:
    if local is not None and not local.is_dir():
        raise ClipItError("no such folder", local, "Fix --from")
    for piece in missing:
        target = data / piece.target
        taken = piece.data is not None and target.exists() and any(target.iterdir())
        if taken and (found := fault(piece, target)):
            fix = "Move it out of the way, then fetch again; it is not overwritten"
            raise ClipItError(found.what, target, fix)
    coming = [piece for piece in missing if piece.urls]
    staging, few = data / STAGING / name, len(coming) <= FEW

    def bring(piece: Piece) -> None:
        if few:
            print(f"{piece.name} -> {data / piece.target}", flush=True)
        if local is not None:
            install(piece, find(piece, local), data)
            return
        file = download(piece, staging, page, show=few)
        try:
            install(piece, file, data)
        except ClipItError as error:
            if not isinstance(error.__cause__, OSError):  # bad contents, not a full disk
                file.unlink()
            raise
        file.unlink()

    try:
        staging.mkdir(parents=True, exist_ok=True)
        with files.held(Path(f"{staging}.lock"), timeout=0):
            need = sum(piece.room or piece.size for piece in missing)
            if local is None:  # an archive goes once it is unpacked, so one at a time is there
                there = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
                need += max(max(piece.size for piece in missing) - there, 0)
            _check_room("needs about", need, data)
            if few:
                for piece in coming:
                    bring(piece)
            else:  # the first failure ends it: the others would fail the same way
                thread_map(bring, coming, max_workers=THREADS, desc=name, disable=None)
            if missing[-1].name == crc5.LIST:  # where it is, its files are
                listed = gzip.decompress(crc5.MANIFEST.read_bytes()).decode()
                files.write_text(data / missing[-1].target, listed)
            shutil.rmtree(staging)
    except Timeout:
        raise ClipItError("another fetch of it is at work", data, "Wait for that one") from None
    except KeyboardInterrupt:
        raise ClipItError("stopped", data, "The same command again goes on from here") from None
    except OSError as error:
        what, fix = f"cannot write here ({error.strerror})", "Set CLIPIT_DATA to a folder of yours"
        raise ClipItError(what, data, fix) from error


def _listing() -> str:
    data, lines, wide = paths.named("CLIPIT_DATA"), [], max(map(len, sources()))
    for name in sources():
        source = find_source(name)
        state, count = "(CLIPIT_DATA?)", len(source.pieces)
        if data is not None:
            there = sum(fault(piece, data / piece.target) is None for piece in source.pieces)
            state = {0: "absent", count: "present"}.get(there, f"{there} of {count}")
        size = _bytes(sum(piece.size for piece in source.pieces))
        lines.append(f"{name:{wide}}  {size:>6}  {state:14}  {source.what}")
        lines.append(f"{'':{wide + 26}}licence: {source.licence}")
    return "\n".join(lines)
