"""TCGA reports of one organ, out of TCGA-Reports or an export of Lab-Rasool/TCGA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from clipit_lib.data.published import READ_TERMS, place
from clipit_lib.errors import ClipItError
from clipit_lib.reports.cleaning import clean
from clipit_lib.reports.corpus import ReportCorpus, cleaned_corpus
from clipit_lib.settings import TcgaCorpus
from clipit_lib.text_tables import read_text_table

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
FETCH = "Run `python -m clipit_lib fetch tcga`, or mend the profile"


def open_tcga(name: str, settings: TcgaCorpus) -> ReportCorpus:
    """Reports of the wanted cancer types or organ, each text once, the first kept.

    Ids are patient barcodes; a patient's further reports are numbered (`TCGA-A1-A0SB/2`). What
    was left out is counted in `notes`.

    Raises:
        ClipItError: a file is missing, not readable or lacks a column, a cancer type is not in
            the table, no report is left, or a cleaning rule is unknown.
    """
    path = place(settings.path)
    reports = _read(path)
    patient, text = _column(reports, PATIENTS, path), _column(reports, TEXTS, path)
    reports = reports.assign(patient=reports[patient].map(_barcode), text=reports[text].map(_text))
    wanted, known, said = _patients(reports, settings, path)
    chosen = reports[reports["patient"].isin(wanted)]
    texts = [clean(each, settings.cleaning) for each in chosen["text"]]
    taken = _first_of_each(texts)
    if not taken:
        raise ClipItError(f"no reports of {said}", path, "Mend cancer_types or organ")
    unknown = int((~reports["patient"].isin(known)).sum())
    empty = sum(not each.strip() for each in texts)
    patients = chosen["patient"].tolist()
    corpus = cleaned_corpus(
        name,
        _numbered([patients[row] for row in taken]),
        [texts[row] for row in taken],
        organ=settings.organ,
        licence=settings.licence or TERMS.get(text, "not stated"),
        origin=path,
    )
    notes = (
        f"{len(taken):,} of {len(reports):,} reports, those of {said}; left out: "
        f"{len(texts) - len(taken) - empty} exact duplicates once cleaned, {empty} without text, "
        f"{unknown} of patients whose {'cancer type' if settings.cancer_types else 'origin'} is "
        "not known"
    )
    return replace(corpus, notes=notes)


def _patients(
    reports: pd.DataFrame, settings: TcgaCorpus, path: Path
) -> tuple[set[str], set[str], str]:
    """Patients that are wanted, all whose kind is known, and what is wanted in words."""
    if settings.cancer_type_table is not None:
        path = place(settings.cancer_type_table)
        table = _read(path)
        table = table.assign(patient=table[_column(table, PATIENTS, path)].map(_barcode))
    elif ORIGIN in reports:
        table = reports
    else:
        fix = "Set cancer_type_table in the profile to the table that says what patients have"
        raise ClipItError(f"no column {ORIGIN}", path, fix)
    column = _column(table, (CANCER_TYPE, ORIGIN), path)
    table = table.assign(kind=table[column].map(_text))
    table = table[table["kind"].str.strip() != ""]
    if column == ORIGIN:
        is_wanted = _containing(settings, path)
        said = f"an origin that contains {settings.organ!r}"
    else:
        is_wanted = _among(settings, set(table["kind"]), path)
        said = ", ".join(settings.cancer_types)
    wanted = table[table["kind"].map(is_wanted).astype(bool)]
    return set(wanted["patient"]), set(table["patient"]), said


def _containing(settings: TcgaCorpus, path: Path) -> Callable[[str], bool]:
    if settings.cancer_types:
        what = f"has {ORIGIN}, but cancer_types are given"
        raise ClipItError(what, path, "Take cancer_types out of the profile; `organ` is looked for")
    return lambda kind: settings.organ.lower() in kind.lower()


def _among(settings: TcgaCorpus, known: set[str], path: Path) -> Callable[[str], bool]:
    other = [each for each in settings.cancer_types if each not in known]
    if other or not settings.cancer_types:
        what = f"no cancer type {', '.join(other)}" if other else "no cancer_types in the profile"
        raise ClipItError(what, path, f"Known: {', '.join(sorted(known))}")
    return lambda kind: kind in settings.cancer_types


def _read(path: Path) -> pd.DataFrame:
    """The columns above of a csv or parquet file; a csv's are all str, "" where empty."""
    if not path.is_file():
        raise ClipItError("no such file", path, FETCH)
    known = {*PATIENTS, *TEXTS, CANCER_TYPE, ORIGIN}
    try:
        if path.suffix == ".parquet":  # embeddings in it are large and stay there
            names = pq.read_schema(path).names
            table = pd.read_parquet(path, columns=[each for each in names if each in known])
        elif path.suffix == ".csv":
            table = read_text_table(path, FETCH)
            names = list(table.columns)
        else:
            what = f"unknown kind of file {path.suffix!r}"
            raise ClipItError(what, path, "Use .csv or .parquet; a .txt is `source: file`")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ClipItError(f"not readable ({reason})", path, FETCH) from error
    table.attrs["names"] = names
    return table


def _column(table: pd.DataFrame, wanted: Sequence[str], path: Path) -> str:
    found = next((each for each in wanted if each in table), None)
    if found is None:
        names = ", ".join(table.attrs.get("names", table.columns))
        raise ClipItError(f"no column {' or '.join(wanted)} (found: {names})", path, FETCH)
    return found


def _barcode(name: Any) -> str:
    """TCGA-BP-5195 of TCGA-BP-5195.25c0b433-5557-4165-922e-2c1eac9c26f0."""
    return str(name).split(".")[0].strip()


def _text(cell: Any) -> str:
    """A cell as text: an export may hold lists of pages, or nothing."""
    if isinstance(cell, str):
        return cell
    return " ".join(map(str, cell)) if hasattr(cell, "__iter__") else ""


def _first_of_each(texts: Sequence[str]) -> list[int]:
    """Rows that say something, and not what an earlier one says."""
    rows = {text: row for row, text in reversed(list(enumerate(texts))) if text.strip()}
    return sorted(rows.values())


def _numbered(patients: Sequence[str]) -> list[str]:
    """Unique ids: a patient's second report is PATIENT/2."""
    seen: Counter[str] = Counter()
    ids = []
    for patient in patients:
        seen[patient] += 1
        ids.append(patient if seen[patient] == 1 else f"{patient}/{seen[patient]}")
    return ids
