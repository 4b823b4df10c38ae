"""Fixtures of all tests of fetching."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import Handler, Server, md5, stand_in

from companion import fetch
from companion.fetch import find_source


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(fetch, "CHUNK", 10)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        monkeypatch.setattr(fetch, "ORIGINS", dict.fromkeys(fetch.ORIGINS, state.url))
        thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.01))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`$CLIPIT_DATA`, which does not exist yet."""
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path / "deep" / "data"))
    return tmp_path / "deep" / "data"


@pytest.fixture
def pcam(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six small files in place of the real ones, on Zenodo's first route; gives them unpacked."""
    contents, pieces = {}, []
    for number, piece in enumerate(find_source("pcam").pieces):
        content = bytes([number]) * 1000
        packed = gzip.compress(content, mtime=0)
        contents[piece.unpacked] = content
        server.files[f"/records/2546921/files/{piece.name}"] = packed
        known = {"checksum": f"md5:{md5(packed)}", "contents": f"md5:{md5(content)}"}
        pieces.append(piece.model_copy(update={"size": len(packed), "room": 4000, **known}))
    stand_in(monkeypatch, "pcam", pieces)
    return contents
