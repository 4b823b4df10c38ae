"""Fixtures of all tests of fetching."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import NAMES, Handler, Server, md5

from clipit_lib.data.published import PUBLISHED_DATA
from companion import fetch


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(fetch, "CHUNK", 10)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        for origin in ("ZENODO", "GITHUB", "RAW"):
            monkeypatch.setattr(fetch, origin, state.url)
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
    contents, table, checksums = {}, {}, {}
    for number, part in enumerate(fetch.PCAM):
        content = bytes([number]) * 1000
        name, packed = NAMES[number], gzip.compress(content, mtime=0)
        contents[name], table[part] = content, (len(packed), 1)
        checksums |= {name: md5(content), f"{name}.gz": md5(packed)}
        server.files[f"/records/2546921/files/{name}.gz"] = packed
    monkeypatch.setattr(fetch, "PCAM", table)
    monkeypatch.setitem(PUBLISHED_DATA, "pcam", replace(PUBLISHED_DATA["pcam"], md5=checksums))
    return contents
