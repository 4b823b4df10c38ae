"""Corpora from text files, tables and folders; one line for whatever is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from clipit_lib.data.reports import FileCorpus, ReportCorpus, says_nothing
from clipit_lib.errors import ClipItError


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))


def opened(path: str, **changes: Any) -> ReportCorpus:
    return FileCorpus(source="file", path=path, **changes).open("mine")


def error(path: str, **changes: Any) -> str:
    with pytest.raises(ClipItError) as caught:
        opened(path, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_report_a_line(tmp_path: Path) -> None:
    text = "tumor -free\u2028margins\nsecond  report\n"
    (tmp_path / "reports.txt").write_text(text, encoding="utf-8")
    corpus = opened("reports.txt", organ="colon", licence="CC0")
    assert corpus.ids == ("line-0001", "line-0002")
    assert corpus.texts == ("tumor-free margins", "second report")
    assert (corpus.name, corpus.organ, corpus.licence, len(corpus)) == ("mine", "colon", "CC0", 2)
    assert opened("reports.txt", cleaning=()).texts == tuple(text[:-1].split("\n"))


def test_the_content_hash_follows_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone  report\r\nanother\r\n".encode())
    (tmp_path / "b.txt").write_text("one report\nanother", encoding="utf-8")
    assert opened("a.txt").content_hash == opened("b.txt").content_hash
    assert opened("a.txt").content_hash != opened("a.txt", cleaning=()).content_hash
    absolute = opened(str(tmp_path / "b.txt"))
    assert absolute.content_hash == opened("b.txt").content_hash


@pytest.mark.parametrize("column", ["text", "report", "report_text"])
def test_a_table_by_its_usual_columns(tmp_path: Path, column: str) -> None:
    (tmp_path / "t.csv").write_text(f'n,{column}\n1,"first, with comma"\n2,NA\n')
    corpus = opened("t.csv")
    assert corpus.ids == ("row-0001", "row-0002")
    assert corpus.texts == ("first, with comma", "NA")


@pytest.mark.parametrize("name", ["id", "case_id", "patient_filename"])
def test_a_table_with_ids_and_a_column_of_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(f"{name},text,findings\nTCGA-1,no,yes\n007,no,yes too\n")
    corpus = opened("t.csv", column="findings")
    assert (corpus.ids, corpus.texts) == (("TCGA-1", "007"), ("yes", "yes too"))


def test_a_folder_of_text_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    left = ("sub/e.csv", "f.docx", "g.docx", "README")
    for name in ("b.txt", "a.TXT", ".hidden.txt", "sub/c.txt", "../linked/d.txt", *left):
        (tmp_path / "folder" / name).write_text(f"report\n{name[-5]}\n")
    (tmp_path / "folder" / "far").symlink_to(tmp_path / "linked")
    (tmp_path / "folder" / "sub" / "circle").symlink_to(tmp_path / "folder")
    corpus = opened("folder")
    assert corpus.ids == ("a", "b", "far/d", "sub/c")
    assert corpus.texts == ("report a", "report b", "report d", "report c")
    said = "4 files passed over (.docx 2, .csv 1, no suffix 1)"
    assert corpus.notes == said and capsys.readouterr().out.endswith(f"folder: {said}\n")


def test_a_file_name_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (Path(os.fsdecode(bytes(tmp_path / "folder") + b"/caf\xe9.txt"))).write_text("a report")
    assert opened("folder").ids == ("caf\\udce9",)


@pytest.mark.parametrize(("name", "content"), [("A.TXT", "one\n"), ("A.CSV", "text\none\n")])
def test_suffixes_in_capitals(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert opened(name).texts == ("one",)


def test_blanks_and_ways_to_compose_letters_make_no_other_name(tmp_path: Path) -> None:
    name, apart = "Bericht \u00e4", "Bericht a\u0308"  # one letter, or a letter and its dots
    (tmp_path / "t.csv").write_text(f"\ufeff ID , {apart} \n A ,one\nB\t, two\n", encoding="utf-8")
    corpus = opened("t.csv", column=name)
    assert (corpus.ids, corpus.texts) == (("A", "B"), ("one", "two"))
    (tmp_path / "t.csv").write_text(f"id,text\n{name},one\n{apart} \u200b,two\n", encoding="utf-8")
    assert f"2 reports have the id {name}" in error("t.csv")
    (tmp_path / "t.csv").write_text("text,Text \none,two\n")
    assert "two columns text" in error("t.csv")


def test_blank_rows_are_counted_and_others_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\nA,one\n\n , \nB,two\n\n")
    corpus = opened("t.csv")
    assert (corpus.ids, corpus.notes) == (("A", "B"), "3 blank rows passed over")
    (tmp_path / "t.csv").write_text("id,text\nA,one\n\nB, \n")
    assert "report B in row 4 is empty" in error("t.csv")
    (tmp_path / "t.csv").write_text("id,text\nA,one\n ,two\n")
    assert "report in row 3 has no id" in error("t.csv")


@pytest.mark.parametrize(
    ("text", "silent"),
    [("NaN", True), ("n/a", True), ("None.", True), ("null", True), ("-", True), ("...", True),
     ("Not  available", True), ("___", True), ("Not reported", True), ("Missing", True),
     ("NA 3", False), ("No tumour.", False), ("0", False), ("\u764c", False)],
)  # fmt: skip
def test_what_stands_where_no_report_is(tmp_path: Path, text: str, silent: bool) -> None:
    assert says_nothing(text) is silent
    (tmp_path / "r.txt").write_text(f"-\n{text}\n", encoding="utf-8")
    if silent:
        assert "none of 2 reports says anything: " in error("r.txt", cleaning=())
    else:
        assert opened("r.txt").texts == ("-", text)


def test_missing_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert error("absent.txt").startswith(f"{tmp_path / 'absent.txt'}: no such file")
    (tmp_path / "reports.pdf").write_bytes(b"%PDF")
    assert "unknown kind of file '.pdf'. Use .txt, .csv or a folder" in error("reports.pdf")
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path / "absent"))
    assert error("reports.txt").startswith("CLIPIT_DATA: no folder")
    monkeypatch.delenv("CLIPIT_DATA")
    assert error("reports.txt").startswith("CLIPIT_DATA: the variable is not set")


def test_empty_corpora(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("text\n")
    (tmp_path / "folder").mkdir()
    for name in ("empty.txt", "header.csv", "folder"):
        assert f"{tmp_path / name}: no reports" in error(name)
    assert "not a csv" in error("empty.csv")


def test_empty_reports_are_named(tmp_path: Path) -> None:
    (tmp_path / "reports.txt").write_text("one\n \x00\nthree\n")
    assert f"{tmp_path / 'reports.txt'}: report line-0002 is empty" in error("reports.txt")
    (tmp_path / "t.csv").write_text("id,text\nTCGA-1,one\nTCGA-2,\n")
    assert "report TCGA-2 in row 3 is empty" in error("t.csv")


def test_not_utf8_says_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "reports.txt").write_bytes("one\ntwo\n1 \u00b5m\n".encode("latin-1"))
    assert "not UTF-8: byte 0xb5 in line 3, byte 3. Save the file as UTF-8" in error("reports.txt")
    (tmp_path / "t.csv").write_bytes(b"text\n\xff\n")
    assert "byte 0xff in line 2, byte 1" in error("t.csv")


def test_other_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case,body\n1,a report\n")
    assert "no column text or report or report_text (found: case, body)" in error("t.csv")
    assert "no column findings (found: case, body)" in error("t.csv", column="findings")


def test_ids_used_twice_and_unknown_rules(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\nA,one\nB,two\nA,three\n")
    assert "2 reports have the id A" in error("t.csv")
    assert "unknown rule 'spelling'" in error("t.csv", cleaning=("spelling",))


@pytest.mark.skipif("CLIPIT_DATA" not in os.environ, reason="CLIPIT_DATA is not set")
def test_the_real_reports(monkeypatch: pytest.MonkeyPatch, real_data: str) -> None:
    monkeypatch.setenv("CLIPIT_DATA", real_data)
    raw = opened("reports/tcga_colorectal.txt", cleaning=())
    cleaned = opened("reports/tcga_colorectal.txt")
    assert len(raw) == len(cleaned) == 376
    for before, after in zip(raw.texts, cleaned.texts, strict=True):
        assert [c for c in before if c.isalnum()] == [c for c in after if c.isalnum()]


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder that was set before a test set its own."""
    return os.environ["CLIPIT_DATA"]
