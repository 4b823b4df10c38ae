"""The command `fetch`: bring data sets and reports into $CLIPIT_DATA, checked."""

from __future__ import annotations

import argparse
import csv
import errno
import gzip
import os
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote
from zipfile import BadZipFile, ZipFile, ZipInfo

import pandas as pd
import pooch
import requests
from filelock import FileLock, Timeout
from pooch.downloaders import REQUESTS_HEADERS
from tqdm import tqdm

from clipit_lib import paths
from clipit_lib.data.folder import read_manifest
from clipit_lib.data.published import PUBLISHED_DATA
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text, written_beside
from companion import crc5
from companion.crc5 import SPLITS

# -- What can be fetched: where it is, its licence, how it is checked and where it goes.
#
# No address here could be tried while this table was written, so each fact names who states it:
# tfds is tensorflow_datasets/url_checksums/patch_camelyon.txt, eva is kaiko-ai/eva.


ZENODO = "https://zenodo.org"
GITHUB = "https://github.com"
RAW = "https://raw.githubusercontent.com"
# Bytes of each .gz (tfds), and images.
PCAM = {
    "train_x": (6421353462, 262_144),
    "train_y": (21378, 262_144),
    "valid_x": (805965320, 32_768),
    "valid_y": (3038, 32_768),
    "test_x": (800875929, 32_768),
    "test_y": (3040, 32_768),
}
# Bytes of each archive, and images.
CRC = {"NCT-CRC-HE-100K": (11690284003, 100_000), "CRC-VAL-HE-7K": (800276929, 7_180)}
TCGA_REPOSITORY = "tatonetti-lab/tcga-path-reports"
TCGA_COMMIT = "ee2afb0ab754f2f49165ab541723992858af4eef"
CRC5_REPOSITORY = "Flagy/Colorectal_Carcinoma_Classifier"
CRC5_COMMIT = "b4c0188d2cfa5a7ea3afdef178c7b894eba2ffc0"
AUTHORS_REPOSITORY = "BanafshehKarimian/ModalityPairing"
# A commit that is known in full holds the same path, of the same length, as 4f2bed7, which is
# known in short only (GitHub may not resolve that); the checksum decides.
AUTHORS_COMMITS = ("c6e541d9d609413af2afb279ea91bfd241ee34f5", "4f2bed7")


@dataclass(frozen=True)
class Piece:
    """One file at its origin, and what becomes of it.

    Attributes:
        name: at the origin; a copy at hand is looked for under it.
        target: file or folder under `$CLIPIT_DATA`.
        urls: where it is, tried in this order.
        size: bytes to download; a round number is an estimate.
        checksum: `md5:...` or `sha256:...` of the download; None where no source is certain, so
            that the archive's own CRCs and what it holds decide.
        unpack: how, or None for a file that is used as it is.
        inside: the file, or the folder with a slash after it, that is taken from a zip.
        room: bytes once unpacked, an estimate.
        contents: checksum of the unpacked file.
        folders: folders of images, if the target is a folder.
        images: how many .tif are in them at least.
        columns: that a csv must have.
        copies: other paths at which an unpacked copy may be at hand.
        carried: the file of this package that it is written from, instead of a download.
    """

    name: str
    target: str
    urls: tuple[str, ...] = ()
    size: int = 0
    checksum: str | None = None
    unpack: Literal["gzip", "zip"] | None = None
    inside: str = ""
    room: int = 0
    contents: str | None = None
    folders: tuple[str, ...] = ()
    images: int = 0
    columns: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    carried: Path | None = None


@dataclass(frozen=True)
class Source:
    """A data set or corpus: `page` has its terms; `checked` says by what its files are known."""

    name: str
    what: str
    licence: str
    page: str
    checked: str
    pieces: tuple[Piece, ...]


def _zenodo(record: str, name: str) -> tuple[str, ...]:
    return (
        f"{ZENODO}/records/{record}/files/{name}?download=1",
        f"{ZENODO}/api/records/{record}/files/{name}/content",
    )


def _raw(repository: str, commit: str, path: str) -> str:
    return f"{RAW}/{repository}/{commit}/{quote(path)}"


def _pcam() -> Source:
    known, pieces = PUBLISHED_DATA["pcam"], []
    for part, (size, images) in PCAM.items():
        name = f"camelyonpatch_level_2_split_{part}.h5"
        pieces.append(
            Piece(
                name=f"{name}.gz",
                target=f"pcam/{name}",
                urls=_zenodo("2546921", f"{name}.gz"),
                size=size,
                checksum=f"md5:{known.md5[f'{name}.gz']}",
                unpack="gzip",
                room=images * (96 * 96 * 3 if part.endswith("x") else 1),
                contents=f"md5:{known.md5[name]}",
                copies=(name,),
            )
        )
    return Source(
        name="pcam",
        what="PatchCamelyon: 327,680 lymph node patches, tumor or not",
        licence=known.licence,
        page=known.page,
        checked="the MD5s that torchvision states; --from takes its folder of PCAM(download=True)",
        pieces=tuple(pieces),
    )


def _bach() -> Source:
    known = PUBLISHED_DATA["bach"]
    name = "ICIAR2018_BACH_Challenge.zip"
    piece = Piece(
        name=name,
        target="bach",
        urls=_zenodo("3632035", name),
        size=known.download,
        # Early versions of eva state md5 8ae1801334aa943c44627c1eef3631b2 and later ones none.
        checksum=None,
        unpack="zip",
        inside="Photos/",
        room=400 * 18_900_000,
        folders=known.classes,
        images=400,
        copies=("ICIAR2018_BACH_Challenge/Photos", "Photos", "."),
    )
    return Source(
        name="bach",
        what="BACH: 400 breast photographs in four classes (its whole slides are left out)",
        licence=known.licence,
        page=known.page,
        checked="the archive's CRCs and the number of images; no checksum of it is certain",
        pieces=(piece,),
    )


def _crc() -> Source:
    known = PUBLISHED_DATA["crc"]
    pieces = [
        Piece(
            name=f"{name}.zip",
            target=f"crc/{name}",
            urls=_zenodo("1214456", f"{name}.zip"),
            size=size,
            checksum=f"md5:{known.md5[f'{name}.zip']}",
            unpack="zip",
            inside=f"{name}/",
            room=images * 151_000,
            folders=known.classes,
            images=images,
            copies=(name,),
        )
        for name, (size, images) in CRC.items()
    ]
    return Source(
        name="crc",
        what="NCT-CRC-HE-100K and CRC-VAL-HE-7K: 107,180 colorectal patches in nine classes",
        licence=known.licence,
        page=known.page,
        checked="the MD5s of Zenodo as public downloaders repeat them, and the number of images",
        pieces=tuple(pieces),
    )


def _tcga() -> Source:
    types = "tcga_patient_to_cancer_type.csv"
    pieces = (
        Piece(
            name="TCGA_Reports.csv.zip",
            target="tcga/TCGA_Reports.csv",
            urls=(f"{GITHUB}/{TCGA_REPOSITORY}/raw/main/TCGA_Reports.csv.zip",),
            size=15_000_000,
            unpack="zip",
            inside="TCGA_Reports.csv",
            room=40_000_000,
            columns=("patient_filename", "text"),
            copies=("TCGA_Reports.csv",),
        ),
        Piece(
            name=types,
            target=f"tcga/{types}",
            urls=(_raw(TCGA_REPOSITORY, TCGA_COMMIT, f"data/tcga_metadata/{types}"),),
            size=209_548,
            room=209_548,
            columns=("patient_id", "cancer_type"),
            copies=(f"data/tcga_metadata/{types}",),
        ),
    )
    return Source(
        name="tcga",
        what="TCGA-Reports (Kefeli and Tatonetti): 9,523 pathology reports, and their cancers",
        licence="CC BY 4.0 on Mendeley Data; name the authors, try to identify nobody",
        page="https://data.mendeley.com/datasets/hyg5xkznpx/1",
        checked="the archive's CRC and the columns; no checksum of it is certain",
        pieces=pieces,
    )


def _crc5() -> Source:
    listed = pd.read_csv(crc5.MANIFEST, dtype=str)
    images = [
        Piece(
            name=origin,
            target=f"crc5/{path}",
            urls=(_raw(CRC5_REPOSITORY, CRC5_COMMIT, origin),),
            size=16_000,
            room=16_000,
            checksum=f"sha256:{sha256}",
            copies=(path,),
        )
        for path, sha256, origin in listed[["path", "sha256", "source_path"]].to_numpy().tolist()
    ]
    manifest = Piece("manifest.csv", "crc5/manifest.csv", carried=crc5.MANIFEST)
    return Source(
        name="crc5",
        what=f"the {len(images):,} colorectal patches of the pilot, in five classes",
        licence=crc5.LICENCE,
        page=f"{GITHUB}/{CRC5_REPOSITORY}",
        checked="a SHA-256 for each image, from the list that this project carries",
        pieces=(*images, manifest),
    )


def _tcga_colorectal() -> Source:
    path = "text/text_colo.txt"
    piece = Piece(
        name="text_colo.txt",
        target="reports/tcga_colorectal.txt",
        urls=tuple(_raw(AUTHORS_REPOSITORY, commit, path) for commit in AUTHORS_COMMITS),
        size=932_785,
        room=932_785,
        checksum="sha256:205064441c9f92b1f9e15d23b45f0554ddbb1bf7ec5c38b645a9f4b3899241a7",
        copies=(path, "tcga_colorectal.txt"),
    )
    return Source(
        name="tcga-colorectal",
        what="376 TCGA colorectal reports as the authors of CLIP-IT read them, one a line",
        licence="open-access TCGA reports from a repository that states no licence: compute on "
        "them, do not redistribute them",
        page=f"{GITHUB}/{AUTHORS_REPOSITORY}",
        checked="its SHA-256",
        pieces=(piece,),
    )


# Built when asked for: the list of crc5 is long.
SOURCES: dict[str, Callable[[], Source]] = {
    "pcam": _pcam,
    "bach": _bach,
    "crc": _crc,
    "tcga": _tcga,
    "crc5": _crc5,
    "tcga-colorectal": _tcga_colorectal,
}


# -- Downloads that go on where they broke off, from the first mirror that gives the right bytes.
#
# What passes by itself (a server at fault, a broken line) is tried again, ever later; what does not
# (no access, no such file, other bytes) leads to the next mirror.


# Seconds before the first repetition, doubled each time up to the longest; tries in a row that
# bring no new byte before a mirror is given up; seconds without a byte.
FIRST_WAIT, LONGEST_WAIT, ATTEMPTS, TIMEOUT = 1.0, 60.0, 6, 60.0
# A server that asks for more patience than this many seconds is not waited for.
PATIENCE = 900.0
# A chunk that the line breaks in is lost, and asked for again.
CHUNK = 1 << 16
REFUSALS = {
    401: "asks for a login (401)",
    403: "refuses access (403)",
    404: "has no such file (404)",
}


class Refused(Exception):
    """A mirror that will not give the file, and why."""


class _Passing(Exception):
    """A fault that may be gone the next time, and after how many seconds the server says so."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


def download(piece: Piece, folder: Path, page: str, *, show: bool = True) -> Path:
    """The path below `folder` of a whole and checked download.

    What is there from an earlier call is kept: a whole file if its checksum is right, a part
    (`NAME.part`) to go on from. Other bytes than the checksum says are deleted.

    Raises:
        ClipItError: no mirror gave the right bytes, or they cannot be written.
    """
    path = folder / piece.name
    faults = []
    pooch.get_logger().setLevel("WARNING")  # else a line for each of thousands of files
    for url in piece.urls:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # in threads, pooch would race for it
            pooch.retrieve(
                url,
                known_hash=piece.checksum,
                fname=piece.name,
                path=folder,
                downloader=Resuming(path.with_name(f"{path.name}.part"), show),
            )
            return path
        except Refused as fault:
            faults.append(f"{url} {fault}")
        except ValueError as fault:  # pooch: another checksum
            faults.append(f"{url}: {str(fault).partition('. Deleted')[0]}")
        except OSError as error:
            raise ClipItError(
                f"writing failed ({error.strerror})",
                path,
                "Free space or give write permission; the same command goes on from here",
            ) from error
    raise ClipItError(
        "; ".join(faults),
        piece.name,
        f"Try again later, or take it by hand from {page} and run again with --from FOLDER",
    )


@dataclass(frozen=True)
class Resuming:
    """A downloader for pooch, whose own begins anew each time.

    Attributes:
        part: what is there so far; it outlives a failure.
        show: a progress bar on a terminal.
        sleep: waits so many seconds.
    """

    part: Path
    show: bool = True
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Bring `url` into `output_file`.

        Raises:
            Refused: the server will not give it, or not within `ATTEMPTS` fruitless tries.
            OSError: it cannot be written.
        """
        most, fruitless = self._size(), 0
        while True:
            try:
                self._go_on(url)
                break
            except _Passing as fault:
                fruitless = 0 if self._size() > most else fruitless + 1
                most = max(most, self._size())
                wait = fault.wait or min(FIRST_WAIT * 2 ** max(fruitless - 1, 0), LONGEST_WAIT)
                if fruitless == ATTEMPTS or wait > PATIENCE:
                    raise Refused(str(fault)) from None
                self.sleep(wait)
        os.replace(self.part, output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        have = self._size()
        # Packed on the way, a file would have other bytes and no length to go on from.
        headers = {**REQUESTS_HEADERS, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                self._receive(response, have)
        except requests.Timeout:
            raise _Passing(f"gives no answer within {TIMEOUT:g} s") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise _Passing(f"cannot be reached or broke off ({type(error).__name__})") from None
        except requests.RequestException as error:
            raise Refused(" ".join(str(error).split())[:160]) from None

    def _receive(self, response: requests.Response, have: int) -> None:
        status, span = response.status_code, response.headers.get("Content-Range", "")
        if status == 416 and span == f"bytes */{have}":
            return  # it was whole already
        resumed = status == 206 and span.startswith(f"bytes {have}-")
        if status == 416 or (status == 206 and not resumed):
            self.part.unlink()
            raise _Passing(f"answers {status} to a part that does not fit")
        if status == 429 or status >= 500:
            wait = response.headers.get("Retry-After", "")
            raise _Passing(f"answers {status}", float(wait) if wait.isdigit() else None)
        if status not in (200, 206):
            raise Refused(REFUSALS.get(status, f"answers {status}"))
        begin, length = have if resumed else 0, response.headers.get("Content-Length", "")
        total = begin + int(length) if length.isdigit() else None
        with (
            self.part.open("ab" if resumed else "wb") as stream,
            tqdm(
                desc=self.part.stem,
                total=total,
                initial=begin,
                unit="B",
                unit_scale=True,
                disable=None if self.show else True,  # None: unless this is a terminal
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
        if total is not None and self._size() != total:
            raise _Passing(f"broke off after {self._size()} of {total} bytes")


# -- Unpacking of archives: nothing leaves the folder, nothing half-read is taken for whole.


UNPACK_CHUNK = 1 << 20
DAMAGE = (BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def gunzip(archive: Path, target: Path) -> None:
    """Unpack a .gz into the file `target`.

    Raises:
        ClipItError: it is damaged.
    """
    try:
        with gzip.open(archive) as packed, target.open("wb") as stream:
            shutil.copyfileobj(packed, stream, UNPACK_CHUNK)
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
            _unpack_check_room(sum(each.file_size for each in taken.values()), target.parent)
            for path, member in tqdm(taken.items(), desc=f"unpacking {archive.name}", disable=None):
                file = target / path
                file.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as source, file.open("wb") as stream:
                    shutil.copyfileobj(
                        source, stream, UNPACK_CHUNK
                    )  # zipfile compares the CRC at the end
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


def _unpack_check_room(size: int, folder: Path) -> None:
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


# -- Pieces in their place under `$CLIPIT_DATA`: are they there, and how they get there.


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


# -- `fetch`: bring a data set or corpus into `$CLIPIT_DATA`, once its terms are accepted.


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
            _command_check_room(missing, data, staging, local)
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


def _command_check_room(
    missing: Sequence[Piece], data: Path, staging: Path, local: Path | None
) -> None:
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
    parser = argparse.ArgumentParser(prog="python -m companion fetch", description=main.__doc__)
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
