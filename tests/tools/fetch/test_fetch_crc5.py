"""`fetch crc5`, many small files; and the table of all that can be fetched."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from servers import Server, accept, error_of, fetch_main
from torchvision.datasets import PCAM

from clipit_lib.data.folder import read_manifest
from clipit_lib.files import digest
from companion import crc5, fetch
from companion.fetch import find_source
from companion.published import PUBLISHED_DATA


@pytest.fixture
def few(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Thirty images behind a list of the kind that the project carries; gives path to bytes."""
    images, lines = {}, ["path,split,label,sha256,source_path"]
    (address,) = fetch.sources()["crc5"].urls
    for number in range(30):
        split = crc5.SPLITS[number % 3]
        path, content = f"{split}/AC/{number}.jpg", bytes([number]) * 50
        origin = f"images/a folder/AC/{number}.jpg"
        images[path] = content
        sha256 = hashlib.sha256(content).hexdigest()
        lines.append(f"{path},{split},AC,{sha256},{origin}")
        server.files[address.format(raw="", name=origin)] = content
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
    assert len(crc5.listed(data / "crc5" / "manifest.csv")) == 30
    fetch_main(["crc5"])
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
    assert len(crc5.listed(data / "crc5" / "manifest.csv")) == 30


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
    install, calls = fetch.install, []

    def interrupted(*arguments: Any, **named: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        install(*arguments, **named)

    monkeypatch.setattr(fetch, "install", interrupted)
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
    pieces = find_source("pcam").pieces
    assert {piece.name: piece.checksum for piece in pieces} == known


def test_the_table_is_complete() -> None:
    table = {name: find_source(name) for name in fetch.sources()}
    for source in table.values():
        assert source.licence and source.checked and source.page.startswith("https://")
        targets = [piece.target for piece in source.pieces]
        assert len(set(targets)) == len(targets)
        for piece in source.pieces:
            assert piece.urls or piece.name == crc5.LIST
            assert all(re.fullmatch(r"https://[^\s{}]+", url) for url in piece.urls)
            assert piece.target and not Path(piece.target).is_absolute()
            assert ".." not in piece.target
            for checksum in filter(None, (piece.checksum, piece.contents)):
                assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)
    images = {name: sum(PUBLISHED_DATA[name].images.values()) for name in ("bach", "crc")}
    assert images == {name: sum(p.images for p in table[name].pieces) for name in images}
    assert len(table["crc5"].pieces) == 6001
    first = table["crc5"].pieces[0]
    assert first.urls[0] == (
        "https://raw.githubusercontent.com/Flagy/Colorectal_Carcinoma_Classifier/"
        f"b4c0188d2cfa5a7ea3afdef178c7b894eba2ffc0/{first.name}"
    )
    assert first.name.startswith("images/training/AC/")


def test_the_list_of_crc5_stands_for_the_same_images_as_before_it_named_origins() -> None:
    # Caches and runs made earlier are found by this digest.
    listed = read_manifest(crc5.MANIFEST, crc5.SPLITS)
    assert digest(listed.to_csv(index=False)) == "883cf88043d32cbb"
