"""A server on this machine, with the faults of real ones."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

import pytest

from clipit_lib.errors import ClipItError
from companion import fetch
from companion.__main__ import parser
from companion.fetch import Piece

BODY = bytes(range(256)) * 400
NAMES = [piece.unpacked for piece in fetch.sources()["pcam"].pieces]
Fault = int | float  # a status to answer, or the share of the body after which the line breaks


@dataclass
class Server:
    """Serves `files`; answers a path by its `faults` first, or by where it has `moved`.

    Notes what was asked and sent.
    """

    url: str = ""
    ranges: bool = True
    astray: int = 0  # where a part begins that it sends, behind the one that was asked for
    retry_after: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        state, path = self.state, unquote(self.path.partition("?")[0])
        span = self.headers.get("Range")
        state.asked.append((path, span))
        assert self.headers["Accept-Encoding"] == "identity"
        if path in state.moved:
            self._answer(302, b"", {"Location": state.moved[path], "Content-Length": "0"})
            return
        faults = state.faults.get(path, [])
        fault = faults.pop(0) if faults else 1.0
        body = state.files.get(path)
        if isinstance(fault, int) or body is None:
            self._answer(fault if isinstance(fault, int) else 404, b"", {})
            return
        begin = int(span.removeprefix("bytes=").removesuffix("-")) if span and state.ranges else 0
        if begin >= len(body):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        rest = body[begin:]
        headers = {"Content-Length": str(len(rest))}
        if begin:
            headers["Content-Range"] = f"bytes {begin + state.astray}-{len(body) - 1}/{len(body)}"
        self._answer(206 if begin else 200, rest[: int(fault * len(rest))], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.state.sent.append(len(body))  # before the answer: who has it may look at once
        self.send_response(status)
        if self.state.retry_after:
            headers["Retry-After"] = self.state.retry_after
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def stand_in(patch: pytest.MonkeyPatch, name: str, pieces: Sequence[Piece]) -> None:
    """Let a source be of these pieces."""
    table = fetch.sources()
    table[name] = table[name].model_copy(update={"pieces": tuple(pieces)})
    patch.setattr(fetch, "sources", lambda: table)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClipItError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fetch_main(arguments: Sequence[str]) -> None:
    """`fetch`, called with these arguments."""
    fetch.main(parser().parse_args(["fetch", *arguments]))


def accept(*arguments: str) -> None:
    fetch_main([*arguments, "--accept-licence"])


def brought(server: Server, part: Path, waits: list[float] | None = None) -> bytes:
    sleep = (lambda seconds: None) if waits is None else waits.append
    fetch.resume(f"{server.url}/file", part, show=False, sleep=sleep)
    content = part.read_bytes()
    part.unlink()
    return content
