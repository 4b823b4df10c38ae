"""Fetching from servers on this machine: broken lines, other bytes, hostile archives, consent."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile, ZipInfo

import pytest
from filelock import FileLock
from torchvision.datasets import PCAM

from clipit_lib.__main__ import main
from clipit_lib.data import crc5
from clipit_lib.data.folder import read_manifest
from clipit_lib.data.published import PUBLISHED
from clipit_lib.errors import ClipItError
from clipit_lib.fetch import command, download, sources
from clipit_lib.fetch import main as fetch
from clipit_lib.fetch.download import Refused, Resuming
from clipit_lib.fetch.sources import Piece
from clipit_lib.fetch.unpack import gunzip, unzip
from clipit_lib.files import digest

BODY = bytes(range(256)) * 400
NAMES = [f"camelyonpatch_level_2_split_{part}.h5" for part in sources.PCAM]
Fault = int | float  # a status to answer, or the share of the body after which the line breaks


@dataclass
class Server:
    """Serves `files`; answers a path by its `faults` first. Notes what was asked and sent."""

    url: str = ""
    ranges: bool = True
    retry_after: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
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
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        self._answer(206 if begin else 200, rest[: int(fault * len(rest))], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        if self.state.retry_after:
            headers["Retry-After"] = self.state.retry_after
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.state.sent.append(len(body))

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(download, "CHUNK", 10)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        for origin in ("ZENODO", "GITHUB", "RAW"):
            monkeypatch.setattr(sources, origin, state.url)
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


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClipItError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def accept(*arguments: str) -> None:
    fetch([*arguments, "--accept-licence"])


def brought(server: Server, part: Path, waits: list[float] | None = None) -> bytes:
    sleep = (lambda seconds: None) if waits is None else waits.append
    Resuming(part, show=False, sleep=sleep)(f"{server.url}/file", str(part.with_name("out")), None)
    assert not part.exists()
    return part.with_name("out").read_bytes()


@pytest.fixture
def pcam(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six small files in place of the real ones, on Zenodo's first route; gives them unpacked."""
    contents, table, checksums = {}, {}, {}
    for number, part in enumerate(sources.PCAM):
        content = bytes([number]) * 1000
        name, packed = NAMES[number], gzip.compress(content, mtime=0)
        contents[name], table[part] = content, (len(packed), 1)
        checksums |= {name: md5(content), f"{name}.gz": md5(packed)}
        server.files[f"/records/2546921/files/{name}.gz"] = packed
    monkeypatch.setattr(sources, "PCAM", table)
    monkeypatch.setitem(PUBLISHED, "pcam", replace(PUBLISHED["pcam"], md5=checksums))
    return contents


# --- one download


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


def test_faults_that_pass_are_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FIRST_WAIT", 1.0)
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
    assert len(server.asked) == 1 + download.ATTEMPTS
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
    piece = Piece("file", "there", urls=(f"{server.url}/file",))
    said = error_of(lambda: download.download(piece, tmp_path, "https://terms"))
    assert f"{server.url}/file" in said and words in said and "--from FOLDER" in said
    assert len(server.asked) == 1


def test_no_server_at_all(server: Server, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        address = f"http://127.0.0.1:{closed.server_address[1]}"
    piece = Piece("file", "there", urls=(f"{address}/file",))
    assert "cannot be reached or broke off (ConnectionError)" in error_of(
        lambda: download.download(piece, tmp_path, "https://terms")
    )


def test_mirrors_are_tried_in_order_until_the_bytes_are_right(
    server: Server, tmp_path: Path
) -> None:
    server.files |= {"/b": b"other bytes", "/c": BODY, "/d": BODY}
    urls = tuple(f"{server.url}/{name}" for name in "abcd")
    piece = Piece("file", "there", urls=urls, checksum=f"md5:{md5(BODY)}")
    assert download.download(piece, tmp_path, "https://terms").read_bytes() == BODY
    assert server.paths() == ["/a", "/b", "/c"]


def test_other_bytes_are_deleted_and_named(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = b"other bytes"
    piece = Piece("file", "there", urls=(f"{server.url}/file",), checksum=f"md5:{md5(BODY)}")
    said = error_of(lambda: download.download(piece, tmp_path, "https://terms"))
    assert md5(BODY) in said and md5(b"other bytes") in said
    assert list(tmp_path.iterdir()) == []


# --- archives


@pytest.mark.parametrize("name", ["../evil", "in/../../evil", "/evil", "..\\evil", "C:/evil"])
def test_nothing_in_a_zip_leaves_the_folder(tmp_path: Path, name: str) -> None:
    archive, target = tmp_path / "a.zip", tmp_path / "sub" / "target"
    archive.write_bytes(zipped({"in/good": b"good", name: b"bad"}))
    assert "leads out of the folder" in error_of(lambda: unzip(archive, target, "in/"))
    assert sorted(tmp_path.rglob("*")) == [archive]


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    archive, link = tmp_path / "a.zip", ZipInfo("in/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(archive, "w") as packed:
        packed.writestr(link, "/etc/passwd")
    assert "leads out" in error_of(lambda: unzip(archive, tmp_path / "target", "in/"))


def test_only_what_is_inside_is_taken(tmp_path: Path) -> None:
    members = {
        "Top/Photos/A/1.tif": b"1",
        "Top/Photos/.DS_Store": b"x",
        "__MACOSX/Top/Photos/A/._1.tif": b"x",
        "Top/WSI/2.svs": b"2",
        "Top/table.csv": b"3",
        "Top/table.csv.old": b"4",
    }
    (tmp_path / "a.zip").write_bytes(zipped(members))
    unzip(tmp_path / "a.zip", tmp_path / "photos", "Photos/")
    unzip(tmp_path / "a.zip", tmp_path / "table.csv", "table.csv")
    found = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*.*")}
    del found["a.zip"]
    assert found == {"photos/A/1.tif": b"1", "table.csv": b"3"}
    assert "holds no Other/" in error_of(
        lambda: unzip(tmp_path / "a.zip", tmp_path / "other", "Other/")
    )


def test_damaged_archives_are_told(tmp_path: Path) -> None:
    whole = zipped({"in/file": BODY})
    broken = bytearray(whole)
    broken[200] ^= 1  # within the content: only the member's CRC can tell
    for content in (bytes(broken), whole[:-50], b"<html>log in</html>"):
        (tmp_path / "a.zip").write_bytes(content)
        said = error_of(lambda: unzip(tmp_path / "a.zip", tmp_path / "target", "in/"))
        assert "a damaged archive" in said
    for content in (gzip.compress(BODY)[:-20], b"<html>log in</html>"):
        (tmp_path / "a.gz").write_bytes(content)
        assert "a damaged archive" in error_of(
            lambda: gunzip(tmp_path / "a.gz", tmp_path / "target.h5")
        )


# --- the command


def test_pcam_is_fetched_unpacked_and_then_left_alone(
    server: Server, pcam: dict[str, bytes], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accept("pcam")
    assert {p.name: p.read_bytes() for p in (data / "pcam").iterdir()} == pcam
    assert len(server.asked) == 6
    left = [p for p in (data / ".fetch").rglob("*") if p.suffix != ".lock"]
    assert left == []
    said = capsys.readouterr().out
    assert "CC0" in said and "https://zenodo.org/records/2546921" in said and "6 of 6 files" in said
    fetch(["pcam"])  # nothing to accept, nobody asked
    assert len(server.asked) == 6
    assert "nothing to do" in capsys.readouterr().out
    (data / "pcam" / NAMES[2]).unlink()
    accept("pcam")
    assert server.paths()[6:] == [f"/records/2546921/files/{NAMES[2]}.gz"]


def test_a_second_command_goes_on_where_the_first_was_cut(
    server: Server, pcam: dict[str, bytes], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CHUNK", 1)
    path = f"/records/2546921/files/{NAMES[1]}.gz"
    half = len(server.files[path]) // 2
    server.faults[path] = [0.5, *[500] * download.ATTEMPTS]
    assert "has no such file" in error_of(lambda: accept("pcam"))  # the second route, after 500s
    assert [p.name for p in (data / "pcam").iterdir()] == [NAMES[0]]
    server.asked.clear()
    accept("pcam")
    assert server.asked[0] == (path, f"bytes={half}-")
    assert NAMES[0] not in str(server.asked)
    assert {p.name: p.read_bytes() for p in (data / "pcam").iterdir()} == pcam


def test_wrong_bytes_never_come_into_place(
    server: Server, pcam: dict[str, bytes], data: Path
) -> None:
    path = f"/records/2546921/files/{NAMES[0]}.gz"
    right = md5(server.files[path])
    server.files[path] = gzip.compress(b"other")
    said = error_of(lambda: accept("pcam"))
    assert right in said and md5(server.files[path]) in said
    assert not (data / "pcam").exists()
    assert list((data / ".fetch").rglob("*.h5*")) == []


def test_terms_must_be_accepted(
    server: Server, pcam: dict[str, bytes], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # not a terminal
    assert "Add --accept-licence" in error_of(lambda: fetch(["pcam"]))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    assert "not accepted" in error_of(lambda: fetch(["pcam"]))
    assert server.asked == [] and not data.exists()
    monkeypatch.setattr("builtins.input", lambda prompt: "y" if "accept?" in prompt else "")
    fetch(["pcam"])
    assert len(list((data / "pcam").iterdir())) == 6


def test_list_and_dry_run_touch_nothing(
    server: Server,
    pcam: dict[str, bytes],
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch(["pcam", "--dry-run"])
    said = capsys.readouterr().out
    assert f"{server.url}/records/2546921/files/{NAMES[0]}.gz" in said
    assert str(data / "pcam" / NAMES[0]) in said
    fetch(["--list"])
    said = capsys.readouterr().out
    assert re.search(r"pcam .* absent", said) and "BY-NC-ND" in said
    assert not data.exists() and server.asked == []
    accept("pcam")
    (data / "pcam" / NAMES[0]).unlink()
    fetch(["--list"])
    assert re.search(r"pcam .* 5 of 6", capsys.readouterr().out)
    monkeypatch.delenv("CLIPIT_DATA")
    fetch(["--list"])
    assert "(CLIPIT_DATA?)" in capsys.readouterr().out
    assert main(["fetch", "pcam"]) == 2
    assert "CLIPIT_DATA: the variable is not set" in capsys.readouterr().err
    assert "Name one of pcam, bach" in error_of(lambda: fetch([]))


@pytest.mark.parametrize("free", [3000, 10_000])
def test_a_full_disk_is_told_before_anything_is_asked(
    server: Server,
    pcam: dict[str, bytes],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert "Free space" in error_of(lambda: accept("pcam"))
    assert server.asked == []


def test_an_archive_that_would_fill_the_disk_is_kept(
    server: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frees = iter([10**12, 10])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=next(frees)))
    archive = bach(server)
    assert "unpacked it takes" in error_of(lambda: accept("bach"))
    assert not (data / "bach").exists()
    assert (data / ".fetch/bach/ICIAR2018_BACH_Challenge.zip").read_bytes() == archive


def test_another_fetch_is_not_disturbed(server: Server, pcam: dict[str, bytes], data: Path) -> None:
    (data / ".fetch").mkdir(parents=True)
    with FileLock(data / ".fetch" / "pcam.lock"):
        assert "another fetch" in error_of(lambda: accept("pcam"))
    assert server.asked == []


def bach(server: Server, images: int = 100, prefix: str = "ICIAR2018_BACH_Challenge/") -> bytes:
    members = {
        f"{prefix}Photos/{name}/{number:03}.tif": name.encode()
        for name in PUBLISHED["bach"].classes
        for number in range(images)
    }
    archive = zipped(members | {f"{prefix}WSI/A01.svs": b"slide"})
    server.files["/records/3632035/files/ICIAR2018_BACH_Challenge.zip"] = archive
    return archive


def test_bach_leaves_the_slides_out(server: Server, data: Path) -> None:
    bach(server)
    accept("bach")
    found = sorted(p.relative_to(data / "bach").as_posix() for p in (data / "bach").rglob("*.*"))
    assert len(found) == 400 and found[0] == "Benign/000.tif" and found[-1] == "Normal/099.tif"


def test_an_archive_with_too_few_images_is_no_archive(server: Server, data: Path) -> None:
    bach(server, 99)
    assert "holds 396 images, expected 400" in error_of(lambda: accept("bach"))
    assert not (data / "bach").exists()
    bach(server)  # mended upstream: the bad archive was not kept
    accept("bach")
    assert (data / "bach" / "Normal" / "099.tif").exists()


def test_what_the_user_put_there_is_not_overwritten(server: Server, data: Path) -> None:
    (data / "bach" / "Benign").mkdir(parents=True)
    (data / "bach" / "Benign" / "mine.tif").write_bytes(b"mine")
    bach(server)
    assert "holds 1 of 400 images" in error_of(lambda: accept("bach"))
    assert (data / "bach" / "Benign" / "mine.tif").read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize("tree", ["ICIAR2018_BACH_Challenge/Photos", "Photos", "", "archive"])
def test_bach_from_a_folder(server: Server, data: Path, tmp_path: Path, tree: str) -> None:
    local, archive = tmp_path / "local", bach(server)
    local.mkdir()
    (local / "ICIAR2018_BACH_Challenge.zip").write_bytes(archive)
    if tree != "archive":
        unzip(local / "ICIAR2018_BACH_Challenge.zip", local / tree, "Photos/")
        (local / "ICIAR2018_BACH_Challenge.zip").unlink()
    accept("bach", "--from", str(local))
    assert len(list((data / "bach").glob("*/*.tif"))) == 400
    assert server.asked == []
    if tree != "archive":
        copy, original = data / "bach/Benign/000.tif", local / tree / "Benign/000.tif"
        assert copy.samefile(original)  # a hard link
    else:
        assert (local / "ICIAR2018_BACH_Challenge.zip").read_bytes() == archive


@pytest.mark.parametrize("kind", ["packed", "unpacked", "torchvision"])
def test_pcam_from_a_folder(
    server: Server, pcam: dict[str, bytes], data: Path, tmp_path: Path, kind: str
) -> None:
    local = tmp_path / "local" / ("pcam" if kind == "torchvision" else "")
    local.mkdir(parents=True)
    for name, content in pcam.items():
        if kind != "unpacked":
            packed = server.files[f"/records/2546921/files/{name}.gz"]
            (local / f"{name}.gz").write_bytes(packed)
        if kind != "packed":
            (local / name).write_bytes(content)
    first = local / (f"{NAMES[0]}.gz" if kind == "packed" else NAMES[0])
    right = first.read_bytes()
    first.write_bytes(b"other")
    said = error_of(lambda: accept("pcam", "--from", str(tmp_path / "local")))
    assert md5(right) in said and md5(b"other") in said and str(first) in said
    assert first.read_bytes() == b"other"  # the user's file stays as it is
    first.unlink()
    if kind == "unpacked":
        said = error_of(lambda: accept("pcam", "--from", str(tmp_path / "local")))
        assert f"no {NAMES[0]}.gz or {NAMES[0]}" in said
    first.write_bytes(right)
    accept("pcam", "--from", str(tmp_path / "local"))
    assert {p.name: p.read_bytes() for p in (data / "pcam").iterdir()} == pcam
    assert server.asked == []
    assert "no such folder" in error_of(lambda: accept("bach", "--from", str(tmp_path / "absent")))


def test_crc_is_two_trees(server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, checksums, classes = {}, {}, PUBLISHED["crc"].classes
    for name in sources.CRC:
        archive = zipped({f"{name}/{label}/1.tif": b"." for label in classes})
        server.files[f"/api/records/1214456/files/{name}.zip/content"] = archive
        table[name], checksums[f"{name}.zip"] = (len(archive), 9), md5(archive)
    monkeypatch.setattr(sources, "CRC", table)
    monkeypatch.setitem(PUBLISHED, "crc", replace(PUBLISHED["crc"], md5=checksums))
    accept("crc")  # the first route gives 404, the second the file
    for name in table:
        assert sorted(p.name for p in (data / "crc" / name).iterdir()) == list(classes)


def test_tcga_reports_are_known_by_their_columns(server: Server, data: Path) -> None:
    reports = b"patient_filename,text\nTCGA-A1-A0SK.1,A report\n"
    types = f"/{sources.TCGA_REPOSITORY}/{sources.TCGA_COMMIT}/data/tcga_metadata/"
    types += "tcga_patient_to_cancer_type.csv"
    archive = f"/{sources.TCGA_REPOSITORY}/raw/main/TCGA_Reports.csv.zip"
    server.files[archive] = zipped({"TCGA_Reports.csv": reports})
    server.files[types] = b"<html>log in, please</html>"
    assert "no column patient_id (found: <html>log in" in error_of(lambda: accept("tcga"))
    server.files[types] = b"patient_id,cancer_type\nTCGA-A1-A0SK,BRCA\n"
    accept("tcga")
    assert (data / "tcga" / "TCGA_Reports.csv").read_bytes() == reports
    assert (data / "tcga" / "tcga_patient_to_cancer_type.csv").read_bytes() == server.files[types]
    assert server.paths().count(archive) == 1


# --- crc5: many small files


@pytest.fixture
def few(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Thirty images behind a list of the kind that the project carries; gives path to bytes."""
    images, lines = {}, ["path,split,label,sha256,source_path"]
    for number in range(30):
        split = crc5.SPLITS[number % 3]
        path, content = f"{split}/AC/{number}.jpg", bytes([number]) * 50
        origin = f"images/a folder/AC/{number}.jpg"
        images[path] = content
        sha256 = hashlib.sha256(content).hexdigest()
        lines.append(f"{path},{split},AC,{sha256},{origin}")
        server.files[f"/{sources.CRC5_REPOSITORY}/{sources.CRC5_COMMIT}/{origin}"] = content
    manifest = tmp_path / "few.csv.gz"
    manifest.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    monkeypatch.setattr(crc5, "MANIFEST", manifest)
    return images


def there(data: Path) -> dict[str, bytes]:
    root = data / "crc5"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.jpg")}


def test_crc5_comes_image_by_image_with_a_list_that_the_loader_takes(
    server: Server, few: dict[str, bytes], data: Path
) -> None:
    accept("crc5")
    assert there(data) == few
    assert len(server.asked) == 30
    assert len(crc5._listed(data / "crc5" / "manifest.csv")) == 30
    fetch(["crc5"])
    assert len(server.asked) == 30


def test_only_images_that_are_missing_or_damaged_are_brought(
    server: Server, few: dict[str, bytes], data: Path
) -> None:
    accept("crc5")
    server.asked.clear()
    (data / "crc5/train/AC/0.jpg").unlink()
    (data / "crc5/test/AC/1.jpg").write_bytes(b"damaged")
    (data / "crc5/manifest.csv").write_text("path,split,label,sha256\na,train,AC,0\n")
    accept("crc5")
    assert sorted(path.rsplit("/", 1)[1] for path in server.paths()) == ["0.jpg", "1.jpg"]
    assert there(data) == few
    assert len(crc5._listed(data / "crc5" / "manifest.csv")) == 30


def test_the_list_is_written_last(server: Server, few: dict[str, bytes], data: Path) -> None:
    path = next(each for each in server.files if each.endswith("/17.jpg"))
    right = server.files.pop(path)
    assert "has no such file" in error_of(lambda: accept("crc5"))
    assert not (data / "crc5" / "manifest.csv").exists()
    server.files[path] = right
    accept("crc5")
    assert there(data) == few


@pytest.mark.parametrize("kind", ["clone", "copy"])
def test_crc5_from_a_folder(
    server: Server, few: dict[str, bytes], data: Path, tmp_path: Path, kind: str
) -> None:
    for path, content in few.items():
        name = path.rsplit("/", 1)[1]
        place = f"images/a folder/AC/{name}" if kind == "clone" else f"crc5/{path}"
        (tmp_path / "local" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / place).write_bytes(content)
    accept("crc5", "--from", str(tmp_path / "local"))
    assert there(data) == few and server.asked == []
    assert (data / "crc5" / "manifest.csv").exists()


def test_an_interruption_keeps_what_is_there(
    server: Server, pcam: dict[str, bytes], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install, calls = command.install, []

    def interrupted(*arguments: Any, **named: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        install(*arguments, **named)

    monkeypatch.setattr(command, "install", interrupted)
    assert "goes on from here" in error_of(lambda: accept("pcam"))
    accept("pcam")
    assert len(server.asked) == 6  # the third was kept, whole, beside its place
    assert {p.name: p.read_bytes() for p in (data / "pcam").iterdir()} == pcam


# --- the table


def test_pcam_agrees_with_torchvision() -> None:
    known = {
        f"{name}.gz": f"md5:{checksum}"
        for split in PCAM._FILES.values()
        for name, _, checksum in split.values()
    }
    pieces = sources.SOURCES["pcam"]().pieces
    assert {piece.name: piece.checksum for piece in pieces} == known


def test_the_table_is_complete() -> None:
    table = {name: build() for name, build in sources.SOURCES.items()}
    for name, source in table.items():
        assert source.name == name
        assert source.licence and source.checked and source.page.startswith("https://")
        targets = [piece.target for piece in source.pieces]
        assert len(set(targets)) == len(targets)
        for piece in source.pieces:
            assert piece.carried or piece.urls
            assert all(re.fullmatch(r"https://\S+", url) for url in piece.urls)
            assert not Path(piece.target).is_absolute() and ".." not in piece.target
            for checksum in filter(None, (piece.checksum, piece.contents)):
                assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)
    first = table["crc5"].pieces[0]
    assert first.urls[0].startswith(
        "https://raw.githubusercontent.com/Flagy/Colorectal_Carcinoma_Classifier/"
        "b4c0188d2cfa5a7ea3afdef178c7b894eba2ffc0/images/training/AC/"
    )
    assert replace(first, urls=()).name == first.urls[0].partition("eba2ffc0/")[2]


def test_the_list_of_crc5_stands_for_the_same_images_as_before_it_named_origins() -> None:
    # Caches and runs made earlier are found by this digest.
    listed = read_manifest(crc5.MANIFEST, crc5.SPLITS)
    assert digest(listed.to_csv(index=False)) == "883cf88043d32cbb"
