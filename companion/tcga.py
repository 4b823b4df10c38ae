"""TCGA reports of one organ, out of TCGA-Reports or an export of Lab-Rasool/TCGA."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq
from pydantic import model_validator

from clipit_lib.data.reports import CLEANING, Corpus, ReportCorpus, checked, clean
from clipit_lib.errors import ClipItError
from clipit_lib.files import named_column, read_text_table, tidy, whole
from clipit_lib.settings import Distinct
from companion import paths
from companion.published import READ_TERMS

# Of TCGA-Reports first, then of Lab-Rasool/TCGA, which has reports and clinical data apart.
PATIENTS = ("patient_filename", "patient_id", "PatientID", "case_submitter_id")
TEXTS = ("text", "report_text", "pathology_report")
CANCER_TYPE, ORIGIN = "cancer_type", "tissue_or_organ_of_origin"
TERMS = {
    "text": "TCGA-Reports of Kefeli and Tatonetti, CC BY 4.0: name the authors, try to identify "
    f"nobody. {READ_TERMS}: https://data.mendeley.com/datasets/hyg5xkznpx/1",
    "report_text": "Lab-Rasool/TCGA, CC BY-NC-ND 4.0: not for commercial use, no derivatives. "
    f"{READ_TERMS}: https://huggingface.co/datasets/Lab-Rasool/TCGA",
}
FETCH = "Run `python -m companion fetch tcga`, or fix the profile"


class TcgaCorpus(Corpus):
    """TCGA reports of one organ, out of a table of all.

    With `cancer_type_table` (patient_id, cancer_type) the reports of `cancer_types` are taken;
    where tissue_or_organ_of_origin is known instead, in it or, if it is null, beside the reports,
    those of an origin that contains `organ`. `licence` None: as is known of the kind of table.
    """

    source: Literal["tcga"]
    path: str = "tcga/TCGA_Reports.csv"
    cancer_types: Distinct[str] = ()
    cancer_type_table: str | None = "tcga/tcga_patient_to_cancer_type.csv"
    organ: str
    licence: str | None = None
    cleaning: Distinct[str] = CLEANING

    @model_validator(mode="after")
    def _types_are_known(self) -> TcgaCorpus:
        if self.cancer_types and self.cancer_type_table is None:
            raise ValueError("cancer_types needs cancer_type_table")
        return self

    def open(self, name: str) -> ReportCorpus:
        """Reports of the wanted cancer types or organ, each text once, the first kept.

        Ids are patient barcodes; a patient's further reports are numbered (`TCGA-A1-A0SB/2`).
        What was left out is counted in `notes`.

        Raises:
            ClipItError: a file is missing, not readable or lacks a column, a cancer type is not
                in the table, no report is left, or a cleaning rule is unknown.
        """
        path = paths.in_data(self.path)
        reports = _of_patients(path)
        column = named_column(reports, TEXTS, path, FETCH)
        known, wanted, said = self._patients(reports, path)
        chosen = reports[reports["patient"].isin(wanted)]
        texts = pd.Series([clean(_text(cell), self.cleaning) for cell in chosen[column]])
        full = texts[texts.str.strip() != ""] if len(texts) else texts
        first = full.drop_duplicates()
        if first.empty:
            raise ClipItError(f"no reports of {said}", path, "Fix cancer_types or organ")
        patients = chosen["patient"].iloc[first.index]
        numbered = zip(patients, patients.groupby(patients).cumcount(), strict=True)
        notes = (
            f"{len(first):,} of {len(reports):,} reports, those of {said}; left out: "
            f"{len(full) - len(first)} exact duplicates once cleaned, {len(texts) - len(full)} "
            f"without text, {(~reports['patient'].isin(known)).sum()} of patients whose "
            f"{'cancer type' if self.cancer_types else 'origin'} is not known"
        )
        ids = [f"{patient}/{number + 1}" if number else patient for patient, number in numbered]
        licence = self.licence or TERMS.get(column, "not stated")
        return checked(name, ids, first.tolist(), self.organ, licence, path, notes)

    def _patients(self, reports: pd.DataFrame, path: Path) -> tuple[set[str], set[str], str]:
        """All patients whose kind is known, those that are wanted, and what is wanted in words."""
        table = reports
        asked = self.cancer_types or "cancer_type_table" in self.model_fields_set
        if self.cancer_type_table is not None and (asked or ORIGIN not in reports):
            path = paths.in_data(self.cancer_type_table)
            table = _of_patients(path)
        elif ORIGIN not in reports:
            fix = "Set cancer_type_table in the profile to the table that says what patients have"
            raise ClipItError(f"no column {ORIGIN}", path, fix)
        column = named_column(table, (CANCER_TYPE, ORIGIN), path, FETCH)
        kinds = table.set_index("patient")[column].map(_text).astype(str).str.strip()
        kinds = kinds[kinds != ""]
        if column == ORIGIN:
            if self.cancer_types:
                fix = "Take cancer_types out of the profile; `organ` is looked for"
                raise ClipItError(f"has {ORIGIN}, but cancer_types are given", path, fix)
            wanted = kinds.str.lower().str.contains(self.organ.lower(), regex=False)
            said = f"an origin that contains {self.organ!r}"
        else:
            said = ", ".join(each for each in self.cancer_types if each not in set(kinds))
            if said or not self.cancer_types:
                what = f"no cancer type {said}" if said else "no cancer_types in the profile"
                raise ClipItError(what, path, f"Known: {', '.join(sorted(set(kinds)))}")
            wanted = kinds.isin(self.cancer_types)
            said = ", ".join(self.cancer_types)
        return set(kinds.index), set(kinds.index[wanted]), said


def _of_patients(path: Path) -> pd.DataFrame:
    """The columns above of a csv (all str, "" where empty) or parquet file, and `patient`."""
    if not path.is_file():
        raise ClipItError("no such file", path, FETCH)
    if path.suffix.lower() not in (".csv", ".parquet"):
        what = f"unknown kind of file {path.suffix!r}"
        raise ClipItError(what, path, "Use .csv or .parquet; a .txt is `source: file`")
    known = {*PATIENTS, *TEXTS, CANCER_TYPE, ORIGIN}
    if path.suffix.lower() == ".csv":
        table = read_text_table(path, FETCH).rename(columns=tidy)
        names = list(table.columns)
    else:
        with whole(path, FETCH):
            names = pq.read_schema(path).names
            # Embeddings in it are large and stay there.
            table = pd.read_parquet(path, columns=[each for each in names if each in known])
    table.attrs["names"] = names
    barcodes = table[named_column(table, PATIENTS, path, FETCH)]
    # TCGA-BP-5195 of TCGA-BP-5195.25c0b433-5557-4165-922e-2c1eac9c26f0.
    return table.assign(patient=[str(name).split(".")[0].strip() for name in barcodes])


def _text(cell: Any) -> str:
    """A cell as text: an export may hold lists of pages, or nothing."""
    if isinstance(cell, str):
        return cell
    return " ".join(map(str, cell)) if hasattr(cell, "__iter__") else ""
