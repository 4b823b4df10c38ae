"""Archives, hostile and damaged ones among them."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest
from servers import BODY, error_of, zipped

from companion.fetch import unpack


@pytest.mark.parametrize("name", ["../evil", "in/../../evil", "/evil", "..\\evil", "C:/evil"])
def test_nothing_in_a_zip_leaves_the_folder(tmp_path: Path, name: str) -> None:
    archive, target = tmp_path / "a.zip", tmp_path / "sub" / "target"
    archive.write_bytes(zipped({"in/good": b"good", name: b"bad"}))
    assert "leads out of the folder" in error_of(lambda: unpack(archive, target, "in/"))
    assert sorted(tmp_path.rglob("*")) == [archive]


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    archive, link = tmp_path / "a.zip", ZipInfo("in/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(archive, "w") as packed:
        packed.writestr(link, "/etc/passwd")
    assert "leads out" in error_of(lambda: unpack(archive, tmp_path / "target", "in/"))


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
    unpack(tmp_path / "a.zip", tmp_path / "photos", "Photos/")
    unpack(tmp_path / "a.zip", tmp_path / "table.csv", "table.csv")
    found = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*.*")}
    del found["a.zip"]
    assert found == {"photos/A/1.tif": b"1", "table.csv": b"3"}
    assert "holds no Other/" in error_of(
        lambda: unpack(tmp_path / "a.zip", tmp_path / "other", "Other/")
    )


def test_damaged_archives_are_told(tmp_path: Path) -> None:
    whole = zipped({"in/file": BODY})
    broken = bytearray(whole)
    broken[200] ^= 1  # within the content: only the member's CRC can tell
    for content in (bytes(broken), whole[:-50], b"<html>log in</html>"):
        (tmp_path / "a.zip").write_bytes(content)
        said = error_of(lambda: unpack(tmp_path / "a.zip", tmp_path / "target", "in/"))
        assert "a damaged archive" in said
    for content in (gzip.compress(BODY)[:-20], b"<html>log in</html>"):
        (tmp_path / "a.gz").write_bytes(content)
        assert "a damaged archive" in error_of(
            lambda: unpack(tmp_path / "a.gz", tmp_path / "target.h5")
        )
