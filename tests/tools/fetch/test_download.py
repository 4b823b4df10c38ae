"""One download: broken lines, refusals, mirrors, other bytes."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import BODY, Server, brought, error_of, md5

from companion import fetch
from companion.fetch import Piece, Refused


def test_a_broken_download_goes_on_with_the_rest_alone(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.faults["/file"] = BODY, [0.25, 0.5]
    assert brought(server, tmp_path / "file.part") == BODY
    quarter, rest = len(BODY) // 4, len(BODY) * 3 // 4
    assert [span for _, span in server.asked] == [
        None,
        f"bytes={quarter}-",
        f"bytes={quarter + rest // 2}-",
    ]
    assert sum(server.sent) == len(BODY)


def test_a_broken_download_goes_on_behind_a_redirection(server: Server, tmp_path: Path) -> None:
    server.moved["/file"] = "/elsewhere"
    server.files["/elsewhere"], server.faults["/elsewhere"] = BODY, [0.5]
    assert brought(server, tmp_path / "file.part") == BODY
    assert server.asked[-1] == ("/elsewhere", f"bytes={len(BODY) // 2}-")
    assert sum(server.sent) == len(BODY)


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.faults["/file"], server.ranges = BODY, [0.5], False
    assert brought(server, tmp_path / "file.part") == BODY
    assert server.sent == [len(BODY) // 2, len(BODY)]


def test_a_part_that_is_whole_is_not_brought_again(server: Server, tmp_path: Path) -> None:
    server.files["/file"], part = BODY, tmp_path / "file.part"
    part.write_bytes(BODY)
    assert brought(server, part) == BODY
    assert server.sent == [0]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/file"], part = BODY, tmp_path / "file.part"
    part.write_bytes(BODY + b"more")
    assert brought(server, part) == BODY


def test_another_part_than_the_one_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    server.files["/file"], server.astray, part = BODY, 5, tmp_path / "file.part"
    part.write_bytes(BODY[:100])
    assert brought(server, part) == BODY
    assert [span for _, span in server.asked] == ["bytes=100-", None]


def test_faults_that_pass_are_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "FIRST_WAIT", 1.0)
    server.files["/file"], server.faults["/file"] = BODY, [500, 503, 502, 0.5, 500]
    waits: list[float] = []
    assert brought(server, tmp_path / "file.part", waits) == BODY
    assert waits == [1, 2, 4, 1, 1]  # new bytes start the count again
    server.faults["/file"], server.retry_after = [429], "17"
    assert brought(server, tmp_path / "file.part", waits) == BODY
    assert waits[-1] == 17


def test_patience_has_an_end_and_the_part_stays(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "file.part"
    server.files["/file"], server.faults["/file"] = BODY, [0.5, *[500] * 20]
    with pytest.raises(Refused, match="answers 500"):
        brought(server, part)
    assert len(server.asked) == 1 + fetch.ATTEMPTS
    assert part.read_bytes() == BODY[: len(BODY) // 2]
    server.faults["/file"], server.retry_after = [429], "86400"
    with pytest.raises(Refused, match="answers 429"):
        brought(server, part)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "asks for a login"), (403, "refuses access"), (404, "has no such file"), (410, "410")],
)
def test_a_refusal_is_one_line_and_is_not_repeated(
    server: Server, tmp_path: Path, status: int, words: str
) -> None:
    server.files["/file"], server.faults["/file"] = BODY, [status]
    piece = Piece(name="file", target="there", urls=(f"{server.url}/file",))
    said = error_of(lambda: fetch.download(piece, tmp_path, "https://terms"))
    assert f"{server.url}/file" in said and words in said and "--from FOLDER" in said
    assert len(server.asked) == 1


def test_no_server_at_all(server: Server, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        address = f"http://127.0.0.1:{closed.server_address[1]}"
    piece = Piece(name="file", target="there", urls=(f"{address}/file",))
    assert "cannot be reached or broke off (ConnectionError)" in error_of(
        lambda: fetch.download(piece, tmp_path, "https://terms")
    )


def test_mirrors_are_tried_in_order_until_the_bytes_are_right(
    server: Server, tmp_path: Path
) -> None:
    server.files |= {"/b": b"other bytes", "/c": BODY, "/d": BODY}
    urls = tuple(f"{server.url}/{name}" for name in "abcd")
    piece = Piece(name="file", target="there", urls=urls, checksum=f"md5:{md5(BODY)}")
    assert fetch.download(piece, tmp_path, "https://terms").read_bytes() == BODY
    assert server.paths() == ["/a", "/b", "/c"]


def test_other_bytes_are_deleted_and_named(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = b"other bytes"
    piece = Piece(
        name="file", target="there", urls=(f"{server.url}/file",), checksum=f"md5:{md5(BODY)}"
    )
    said = error_of(lambda: fetch.download(piece, tmp_path, "https://terms"))
    assert md5(BODY) in said and md5(b"other bytes") in said
    assert list(tmp_path.iterdir()) == []
