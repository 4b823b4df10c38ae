"""Data sets and report corpora by their settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from clipit_lib import kernels, paths
from clipit_lib.data import published
from clipit_lib.data.folder import open_folder
from clipit_lib.data.patches import PatchDataset, Recipe, Undecoded, open_or_build
from clipit_lib.data.reports import ReportCorpus, cleaned_corpus, open_tcga
from clipit_lib.errors import ClipItError
from clipit_lib.files import read_text_table
from clipit_lib.settings import (
    BachData,
    CorpusSettings,
    Crc5Data,
    CrcData,
    DataSettings,
    FileCorpus,
    PcamData,
    PhantomCorpus,
    PhantomData,
    PublishedData,
    SyntheticCorpus,
    TcgaCorpus,
)

# -- Data sets by their settings.


PHANTOM_LIMITS = "A phantom: drawn by a program, not tissue; it says nothing about patients."


def open_dataset(name: str, settings: DataSettings) -> PatchDataset:
    """Open a data set; its patches are decoded or drawn into the cache first if need be.

    Raises:
        ClipItError: files are missing, damaged or do not fit the settings, or the cache cannot
            be used; the message says which and what to do.
    """
    if isinstance(settings, PhantomData):
        return _open_phantom(name, settings)
    if isinstance(settings, Crc5Data):
        from companion.pilot import open_crc5

        return open_crc5(name, settings)
    if isinstance(settings, PcamData):
        return published.open_pcam(name, settings)
    if isinstance(settings, BachData):
        return published.open_bach(name, settings)
    if isinstance(settings, CrcData):
        return published.open_crc(name, settings)
    return open_folder(name, settings)


def problems(settings: PublishedData) -> list[ClipItError]:
    """What is wrong with the files of a published data set, [] if nothing; nothing is decoded.

    Looked at are presence, counts, names, sizes, labels and a few images of each part.
    """
    if isinstance(settings, PcamData):
        return published.pcam_problems(settings)
    if isinstance(settings, BachData):
        return published.bach_problems(settings)
    return published.crc_problems(settings)


def _open_phantom(name: str, settings: PhantomData) -> PatchDataset:
    # Here, so that data of the user can be opened without the phantom.
    from companion.phantom import VERSION
    from companion.phantom.latents import WORLDS

    world = WORLDS[settings.world]
    recipe = Recipe(
        name=name,
        declaration={
            **settings.model_dump(mode="json", exclude={"corpus", "validation_split"}),
            "phantom": VERSION,
            "kernels": kernels.level(),
        },
        classes=world.classes,
        class_texts=world.class_texts,
        side=settings.side,
        gather=lambda: _draw(settings),
        validation_split=settings.validation_split,
        licence="made by this project and under its licence",
        limits=PHANTOM_LIMITS,
    )
    return open_or_build(recipe)


def _draw(settings: PhantomData) -> Undecoded:
    from companion.phantom.latents import draw_dataset
    from companion.phantom.patches import render

    latents, splits = draw_dataset(
        settings.world, settings.train, settings.validation, settings.test, settings.seed
    )
    samples = pd.DataFrame(
        {
            "id": [f"{settings.world}-{number:06d}" for number in range(len(splits))],
            "split": [str(split) for split in splits],
            "label": latents.label.astype(np.int64),
            "group": [f"patient-{patient}" for patient in latents.patient],
        }
    )

    def decode(begin: int, end: int) -> np.ndarray:
        return render(latents.take(slice(begin, end)), settings.side, settings.seed, first=begin)

    return Undecoded(samples, decode)


# -- Report corpora by their settings.


TEXT_COLUMNS = ("text", "report", "report_text")
ID_COLUMNS = ("id", "case_id", "patient_filename")
Reports = tuple[list[str], list[str]]


def open_corpus(name: str, settings: CorpusSettings) -> ReportCorpus:
    """Read, clean and check a corpus.

    Raises:
        ClipItError: a file is missing, empty, not UTF-8 or of an unknown kind, a column is
            missing, a report is empty, or a cleaning rule is unknown.
    """
    if isinstance(settings, PhantomCorpus):
        # Here, so that reports of the user can be opened without the phantom.
        from companion.phantom.reports import report_corpus

        return report_corpus(settings, name)
    if isinstance(settings, SyntheticCorpus):
        return _open_synthetic(name, settings)
    if isinstance(settings, TcgaCorpus):
        return open_tcga(name, settings)
    return _open_file(name, settings)


def _open_synthetic(name: str, settings: SyntheticCorpus) -> ReportCorpus:
    if settings.path is None:
        from companion.synthetic import grammar_corpus

        return grammar_corpus(settings, name)
    written = FileCorpus(
        source="file",
        path=settings.path,
        column="text",
        organ=settings.organ,
        licence=settings.licence,
    )
    return _open_file(name, written)


def _open_file(name: str, settings: FileCorpus) -> ReportCorpus:
    path = Path(settings.path).expanduser()
    if not path.is_absolute():
        path = paths.data() / path
    ids, texts = _read(path, settings.column)
    return cleaned_corpus(
        name,
        ids,
        texts,
        organ=settings.organ,
        cleaning=settings.cleaning,
        licence=settings.licence,
        origin=path,
    )


def _read(path: Path, column: str | None) -> Reports:
    if not path.exists():
        raise ClipItError("no such file", path, "Mend `path` in the profile or CLIPIT_DATA")
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".txt":
        return _read_lines(path)
    if path.suffix == ".csv":
        return _read_table(path, column)
    raise ClipItError(
        f"unknown kind of file {path.suffix!r}", path, "Use .txt, .csv or a folder of .txt files"
    )


def _read_folder(folder: Path) -> Reports:
    """One report a file."""
    files = sorted(folder.glob("[!.]*.txt"))
    return [file.stem for file in files], [_decode(file) for file in files]


def _read_lines(path: Path) -> Reports:
    """One report a line; only "\\n" ends a line, whatever else a report contains."""
    lines = _decode(path).removesuffix("\n").split("\n")
    texts = [] if lines == [""] else lines
    return [f"line-{number:04d}" for number in range(1, len(texts) + 1)], texts


def _read_table(path: Path, column: str | None) -> Reports:
    """One report a row."""
    table = read_text_table(path, content=_decode(path))
    wanted = (column,) if column else TEXT_COLUMNS
    texts = next((each for each in wanted if each in table), None)
    if texts is None:
        raise ClipItError(
            f"no column {' or '.join(wanted)} (found: {', '.join(table.columns)})",
            path,
            "Set `column` in the profile to the one that holds the reports",
        )
    named = next((each for each in ID_COLUMNS if each in table), None)
    rows = [f"row-{number:04d}" for number in range(1, len(table) + 1)]
    return rows if named is None else table[named].tolist(), table[texts].tolist()


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise ClipItError(
            f"not UTF-8: byte 0x{data[error.start]:02x} in line {line}, byte {byte}",
            path,
            "Save the file as UTF-8",
        ) from error
