"""The command `fetch`: what it brings, asks, refuses and leaves alone."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from servers import NAMES, Server, accept, error_of, fetch_main, md5, stand_in, zipped

from companion import fetch
from companion.__main__ import main
from companion.fetch import find_source, unpack
from companion.published import PUBLISHED_DATA


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
    fetch_main(["pcam"])  # nothing to accept, nobody asked
    assert len(server.asked) == 6
    assert "nothing to do" in capsys.readouterr().out
    (data / "pcam" / NAMES[2]).unlink()
    (data / "pcam" / NAMES[3]).write_bytes(b"cut short")
    assert [error.where for error in fetch.faults("pcam", data / "pcam")] == [
        str(data / "pcam" / name) for name in NAMES[2:4]
    ]
    accept("pcam")
    assert server.paths()[6:] == [f"/records/2546921/files/{name}.gz" for name in NAMES[2:4]]
    assert {p.name: p.read_bytes() for p in (data / "pcam").iterdir()} == pcam


def test_a_second_command_goes_on_where_the_first_was_cut(
    server: Server, pcam: dict[str, bytes], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "CHUNK", 1)
    path = f"/records/2546921/files/{NAMES[1]}.gz"
    half = len(server.files[path]) // 2
    server.faults[path] = [0.5, *[500] * fetch.ATTEMPTS]
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
    assert "Add --accept-licence" in error_of(lambda: fetch_main(["pcam"]))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    assert "not accepted" in error_of(lambda: fetch_main(["pcam"]))
    assert server.asked == [] and not data.exists()
    monkeypatch.setattr("builtins.input", lambda prompt: "y" if "accept?" in prompt else "")
    fetch_main(["pcam"])
    assert len(list((data / "pcam").iterdir())) == 6


def test_list_and_dry_run_touch_nothing(
    server: Server,
    pcam: dict[str, bytes],
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch_main(["pcam", "--dry-run"])
    said = capsys.readouterr().out
    assert f"{server.url}/records/2546921/files/{NAMES[0]}.gz" in said
    assert str(data / "pcam" / NAMES[0]) in said
    fetch_main(["--list"])
    said = capsys.readouterr().out
    assert re.search(r"pcam .* absent", said) and "BY-NC-ND" in said
    assert not data.exists() and server.asked == []
    accept("pcam")
    (data / "pcam" / NAMES[0]).unlink()
    fetch_main(["--list"])
    assert re.search(r"pcam .* 5 of 6", capsys.readouterr().out)
    monkeypatch.delenv("CLIPIT_DATA")
    fetch_main(["--list"])
    assert "(CLIPIT_DATA?)  PatchCamelyon" in capsys.readouterr().out
    assert main(["fetch", "pcam"]) == 2
    assert "CLIPIT_DATA: the variable is not set" in capsys.readouterr().err
    assert "Name one of pcam, bach" in error_of(lambda: fetch_main([]))


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
        for name in PUBLISHED_DATA["bach"].classes
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
    bach(server)  # fixed upstream: the bad archive was not kept
    accept("bach")
    assert (data / "bach" / "Normal" / "099.tif").exists()


def test_what_the_user_put_there_is_not_overwritten(server: Server, data: Path) -> None:
    (data / "bach" / "Benign").mkdir(parents=True)
    (data / "bach" / "Benign" / "mine.tif").write_bytes(b"mine")
    bach(server)
    assert "no class folder InSitu, Invasive, Normal" in error_of(lambda: accept("bach"))
    assert (data / "bach" / "Benign" / "mine.tif").read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize("tree", ["ICIAR2018_BACH_Challenge/Photos", "Photos", "", "archive"])
def test_bach_from_a_folder(server: Server, data: Path, tmp_path: Path, tree: str) -> None:
    local, archive = tmp_path / "local", bach(server)
    local.mkdir()
    (local / "ICIAR2018_BACH_Challenge.zip").write_bytes(archive)
    if tree != "archive":
        unpack(local / "ICIAR2018_BACH_Challenge.zip", local / tree, "Photos/")
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
    pieces, classes = [], PUBLISHED_DATA["crc"].classes
    for piece in find_source("crc").pieces:
        archive = zipped({f"{piece.unpacked}/{label}/1.tif": b"." for label in classes})
        server.files[f"/api/records/1214456/files/{piece.name}/content"] = archive
        known = {"size": len(archive), "room": 9, "images": 9, "checksum": f"md5:{md5(archive)}"}
        pieces.append(piece.model_copy(update=known))
    stand_in(monkeypatch, "crc", pieces)
    accept("crc")  # the first route gives 404, the second the file
    for piece in pieces:
        assert sorted(p.name for p in (data / "crc" / piece.unpacked).iterdir()) == list(classes)


def tcga(reports: int, columns: str = "patient_filename,text") -> bytes:
    return "\n".join([columns, *(f"TCGA-A1-{n:04}.1,Report {n}" for n in range(reports))]).encode()


def test_tcga_reports_are_counted_and_their_types_known_by_a_checksum(
    server: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = b"patient_id,cancer_type\nTCGA-A1-A0SK,BRCA\n"
    first, second = find_source("tcga").pieces
    known = second.model_copy(update={"checksum": f"md5:{md5(types)}"})
    stand_in(monkeypatch, "tcga", [first, known])
    places = [piece.urls[0].removeprefix(server.url) for piece in (first, second)]
    assert places[0] == "/tatonetti-lab/tcga-path-reports/raw/main/TCGA_Reports.csv.zip"
    server.files[places[1]] = types
    for content, said in (
        (tcga(41), "holds 41 rows, expected 9523"),
        (tcga(9523, "<html>log in</html>,text"), "no column patient_filename (found: <html>log"),
    ):
        server.files[places[0]] = zipped({"TCGA_Reports.csv": content})
        assert said in error_of(lambda: accept("tcga"))
        assert list((data / "tcga").glob("*")) == []
    server.files[places[0]] = zipped({"TCGA_Reports.csv": tcga(9523)})
    accept("tcga")
    assert (data / "tcga" / "TCGA_Reports.csv").read_bytes() == tcga(9523)
    assert (data / "tcga" / "tcga_patient_to_cancer_type.csv").read_bytes() == types
    assert fetch.faults("tcga", data / "tcga") == []
    (data / "tcga" / "TCGA_Reports.csv").write_bytes(tcga(41))  # by hand: neither takes it
    said = error_of(lambda: fetch.require_at("tcga/TCGA_Reports.csv"))
    assert "holds 41 rows, expected 9523. Run `python -m companion fetch tcga`" in said
    server.asked.clear()
    accept("tcga")
    assert server.paths() == places[:1]
