"""Downloads that go on where they broke off, from the first mirror that gives the right bytes.

What passes by itself (a server at fault, a broken line) is tried again, ever later; what does not
(no access, no such file, other bytes) leads to the next mirror.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from pooch.downloaders import REQUESTS_HEADERS
from tqdm import tqdm

from clipit_lib.errors import ClipItError
from clipit_lib.fetch.sources import Piece

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
