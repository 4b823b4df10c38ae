"""TCGA reports by small tables in the layouts of both publishers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from clipit_lib.data.reports import FileCorpus
from clipit_lib.errors import ClipItError
from companion.profile import load_profile
from companion.rehearse import write_tcga
from companion.tcga import TcgaCorpus

CODE = "25c0b433-5557-4165-922e-2c1eac9c26f0"
REPORTS = {
    "TCGA-A1-A0SB": "Invasive carci- noma of the breast.",
    "TCGA-AA-3488": "Adenocarcinoma of the colon.",
    "TCGA-A1-A0SD": "Normal breast, nothing else.",
    "TCGA-A1-A0SE": "Invasive carcinoma  of the breast.",  # as the first once both are cleaned
    "TCGA-AF-2687": "Carcinoma of the rectum, grade 2.",
    "TCGA-ZZ-9999": "Of a patient whose cancer type is not listed.",
    "TCGA-A1-A0SF": " \n ",
}
TYPES = {
    "TCGA-A1-A0SB": "BRCA", "TCGA-A1-A0SD": "BRCA", "TCGA-A1-A0SE": "BRCA", "TCGA-A1-A0SF": "BRCA",
    "TCGA-AA-3488": "COAD", "TCGA-AF-2687": "READ", "TCGA-OR-A5J1": "ACC",
}  # fmt: skip
TABLES = {"path": "TCGA_Reports.csv", "cancer_type_table": "tcga_patient_to_cancer_type.csv"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    write_tcga(tmp_path, REPORTS, TYPES)
    return tmp_path


def settings(**changes: object) -> TcgaCorpus:
    values = {"source": "tcga", "cancer_types": ("BRCA",), "organ": "breast", **TABLES}
    return TcgaCorpus.model_validate(values | changes)


def test_reports_of_a_cancer_type(data: Path) -> None:
    corpus = settings().open("breast")
    assert corpus.ids == ("TCGA-A1-A0SB", "TCGA-A1-A0SD")
    assert corpus.texts == ("Invasive carcinoma of the breast.", "Normal breast, nothing else.")
    assert corpus.organ == "breast" and corpus.licence.startswith("TCGA-Reports")
    assert corpus.notes == (
        "2 of 7 reports, those of BRCA; left out: 1 exact duplicates once cleaned, 1 without "
        "text, 1 of patients whose cancer type is not known"
    )


def test_several_types_in_the_order_of_the_file(data: Path) -> None:
    corpus = settings(cancer_types=("READ", "COAD"), organ="colon").open("colon")
    assert corpus.ids == ("TCGA-AA-3488", "TCGA-AF-2687")
    assert "0 exact duplicates" in corpus.notes


def test_texts_that_differ_before_cleaning_only(data: Path) -> None:
    raw = settings(cleaning=()).open("breast")
    assert raw.ids == ("TCGA-A1-A0SB", "TCGA-A1-A0SD", "TCGA-A1-A0SE")
    assert raw.texts[2] == "Invasive carcinoma  of the breast."


def test_a_licence_of_the_profile_is_kept(data: Path) -> None:
    assert settings(licence="ours").open("breast").licence == "ours"


def test_unknown_cancer_types(data: Path) -> None:
    message = r"no cancer type BRAC. Known: ACC, BRCA, COAD, READ"
    with pytest.raises(ClipItError, match=message):
        settings(cancer_types=("BRAC",)).open("breast")
    with pytest.raises(ClipItError, match="no reports of ACC"):
        settings(cancer_types=("ACC",)).open("breast")
    with pytest.raises(ClipItError, match=r"no cancer_types in the profile. Known: ACC"):
        settings(cancer_types=()).open("breast")
    with pytest.raises(ValidationError, match="cancer_types needs cancer_type_table"):
        settings(cancer_type_table=None)
    with pytest.raises(ClipItError, match=r"no column tissue_or_organ_of_origin. Set cancer_type"):
        settings(cancer_type_table=None, cancer_types=()).open("breast")


def test_other_columns_and_missing_files(data: Path) -> None:
    pd.DataFrame({"case": ["a"], "words": ["b"]}).to_csv(data / "other.csv", index=False)
    with pytest.raises(ClipItError, match=r"no column patient_filename or .*found: case, words\)"):
        settings(path="other.csv").open("breast")
    with pytest.raises(ClipItError, match=r"other.csv: no column patient_filename or"):
        settings(cancer_type_table="other.csv").open("breast")
    pd.DataFrame({"patient_id": ["a"], "kind": ["b"]}).to_csv(data / "types.csv", index=False)
    with pytest.raises(ClipItError, match=r"no column cancer_type or .*found: patient_id, kind\)"):
        settings(cancer_type_table="types.csv").open("breast")
    with pytest.raises(ClipItError, match=r"no such file. Run `python -m companion fetch tcga`"):
        settings(path="absent.csv").open("breast")
    (data / "reports.txt").write_text("a\n")
    with pytest.raises(ClipItError, match=r"unknown kind of file '.txt'"):
        settings(path="reports.txt").open("breast")
    (data / "latin.csv").write_bytes(b"patient_filename,text\na,\xe9\n")
    with pytest.raises(ClipItError, match="not a csv in UTF-8"):
        settings(path="latin.csv").open("breast")
    (data / "damaged.parquet").write_bytes(b"PAR1")
    with pytest.raises(ClipItError, match="missing or damaged"):
        settings(path="damaged.parquet").open("breast")


@pytest.fixture
def export(data: Path) -> Path:
    """Reports and clinical data as Lab-Rasool/TCGA has them: lists of pages, repeated patients."""
    reports = pd.DataFrame(
        {
            "PatientID": ["TCGA-A1-A0SB", "TCGA-AA-3488", "TCGA-A1-A0SB", "TCGA-AF-2687"],
            "report_text": [["Breast,", "page two."], ["Colon."], ["An addendum."], ["Rectum."]],
            "embedding": [[0.5] * 4] * 4,
        }
    )
    reports.to_parquet(data / "reports.parquet")
    clinical = pd.DataFrame(
        {
            "case_submitter_id": ["TCGA-A1-A0SB", "TCGA-A1-A0SB", "TCGA-AA-3488", "TCGA-AF-2687"],
            "tissue_or_organ_of_origin": ["Breast, NOS", "Breast, NOS", "Sigmoid colon", None],
        }
    )
    clinical.to_parquet(data / "clinical.parquet")
    return data


def test_an_export_with_a_clinical_table(export: Path) -> None:
    tables = {"path": "reports.parquet", "cancer_type_table": "clinical.parquet"}
    breast = settings(**tables, cancer_types=(), organ="Breast").open("breast")
    assert breast.ids == ("TCGA-A1-A0SB", "TCGA-A1-A0SB/2")
    assert breast.texts == ("Breast, page two.", "An addendum.")
    assert breast.licence.startswith("Lab-Rasool/TCGA, CC BY-NC-ND 4.0")
    assert breast.notes.endswith("1 of patients whose origin is not known")
    colon = settings(**tables, cancer_types=(), organ="colo").open("colon")
    assert colon.texts == ("Colon.",)
    with pytest.raises(ClipItError, match="has tissue_or_organ_of_origin, but cancer_types are"):
        settings(**tables).open("breast")
    with pytest.raises(ClipItError, match="no reports of an origin that contains 'lung'"):
        settings(**tables, cancer_types=(), organ="lung").open("lung")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_in_one_table(data: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {
            "case_submitter_id": ["TCGA-A1-A0SB", "TCGA-AA-3488", "TCGA-AF-2687"],
            "pathology_report": ["Breast.", "Colon.", None],
            "tissue_or_organ_of_origin": ["Breast, NOS", "Colon, NOS", "Colon, NOS"],
        }
    )
    path = data / f"joined.{suffix}"
    table.to_parquet(path) if suffix == "parquet" else table.to_csv(path, index=False)
    one = {"path": path.name, "cancer_type_table": None, "cancer_types": ()}
    corpus = settings(**one, organ="colon").open("colon")
    assert corpus.ids == ("TCGA-AA-3488",) and "1 without text" in corpus.notes


def test_lines_of_text_stay_a_file_corpus(data: Path) -> None:
    (data / "text_colo.txt").write_text("One report.\nAnother.\n")
    corpus = FileCorpus(source="file", path="text_colo.txt").open("colon")
    assert corpus.texts == ("One report.", "Another.") and corpus.notes == ""


def test_the_paper_profile_opens_its_corpora(data: Path) -> None:
    (data / "tcga").mkdir()
    for name in TABLES.values():
        (data / name).rename(data / "tcga" / name)
    corpora = load_profile("paper").corpora
    found = {name: len(each.open(name)) for name, each in corpora.items()}
    assert found == {"tcga-breast": 2, "tcga-colorectal": 2}
