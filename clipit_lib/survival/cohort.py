"""A cohort: the bags of all slides with follow-up and folds, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest
from clipit_lib.survival.bags import SUFFIXES, Bag, read_bag
from clipit_lib.text_tables import read_text_table

COLUMNS = ["slide", "time", "event", "fold"]


@dataclass(frozen=True)
class Cohort:
    """Slides with follow-up.

    Attributes:
        clinical: one row a slide: slide (str), time (months), event (bool), fold (1, 2, ...).
        bags: one a row of `clinical`.
        content_hash: digest of all of it.
        planted: [n] log hazard that was planted in a phantom; None for real slides.
    """

    clinical: pd.DataFrame
    bags: tuple[Bag, ...]
    content_hash: str
    limits: str = ""
    planted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.bags)

    @property
    def width(self) -> int:
        """Width of the patch features."""
        return self.bags[0].features.shape[1]

    @property
    def text_width(self) -> int:
        """Width of the retriever's embeddings, of images and of text.

        Raises:
            ClipItError: the bags hold none.
        """
        retriever = self.bags[0].retriever
        if retriever is None:
            raise ClipItError(
                "no retriever embeddings in the bags", "survival, clip_it",
                "Write them as `retriever`, or run unimodal only",
            )  # fmt: skip
        return retriever.shape[1]

    @property
    def folds(self) -> list[int]:
        return sorted(self.clinical["fold"].unique().tolist())


def read(folder: Path, clinical: Path, folds: int, most: int | None = None) -> Cohort:
    """Read a cohort (see `bags` for the layout); slides come in the order of the csv.

    Args:
        folds: how many there are, numbered from 1.
        most: patches kept of a slide, all if None.

    Raises:
        ClipItError: a file or column is missing; a slide is named twice or has no file; a time is
            negative or no number; an event is not 0 or 1; a fold is unknown, missing or without
            an event; bags differ in width.
    """
    table = _read_clinical(clinical, folds)
    if not folder.is_dir():
        raise ClipItError("no such folder", folder, "Mend `bags` in the profile or CLIPIT_DATA")
    paths = [_file(folder, slide, clinical) for slide in table["slide"]]
    bags = [read_bag(path, most) for path in paths]
    for path, bag in zip(paths, bags, strict=True):
        if _widths(bag) != _widths(bags[0]):
            raise ClipItError(
                f"widths {_widths(bag)}, but {paths[0].name} has {_widths(bags[0])}", path,
                "Embed all slides with the same encoders",
            )  # fmt: skip
    return Cohort(table, tuple(bags), _content_hash(table, bags))


def _read_clinical(path: Path, folds: int) -> pd.DataFrame:
    if not path.is_file():
        raise ClipItError("no such file", path, "Mend `clinical` in the profile or CLIPIT_DATA")
    raw = read_text_table(path)
    missing = [name for name in COLUMNS if name not in raw]
    if missing:
        raise ClipItError(
            f"no column {', '.join(missing)} (found: {', '.join(map(str, raw.columns))})", path,
            f"It needs {', '.join(COLUMNS)}",
        )  # fmt: skip
    if raw.empty:
        raise ClipItError("no slides", path, "Add one row a slide")
    number = {name: pd.to_numeric(raw[name], errors="coerce") for name in COLUMNS[1:]}
    known = range(1, folds + 1)
    rules: list[tuple[pd.Series[bool], str, str]] = [
        (raw["slide"] == "", "slide", "Name every slide"),
        (raw["slide"].duplicated(), "slide", "Name every slide once"),
        (~(np.isfinite(number["time"]) & (number["time"] >= 0)), "time", "Give months, 0 or more"),
        (~number["event"].isin([0, 1]), "event", "Give 1 (seen) or 0 (censored)"),
        (~number["fold"].isin(known), "fold", f"Known: {', '.join(map(str, known))}"),
    ]
    for broken, column, fix in rules:
        if broken.any():
            row = raw[broken].iloc[0]
            raise ClipItError(f"{column} {row[column]!r} of slide {row['slide']!r}", path, fix)
    table = pd.DataFrame({
        "slide": raw["slide"], "time": number["time"].astype(float),
        "event": number["event"].astype(bool), "fold": number["fold"].astype(int),
    })  # fmt: skip
    seen = table.groupby("fold")["event"].sum()
    for fold in known:
        if seen.get(fold, 0) == 0:
            raise ClipItError(f"no event in fold {fold}", path, "Stratify the folds by event")
    return table


def _file(folder: Path, slide: str, clinical: Path) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{slide}{suffix}").is_file():
            return folder / f"{slide}{suffix}"
    raise ClipItError(
        f"no {' or '.join(slide + suffix for suffix in SUFFIXES)} for a slide of {clinical.name}",
        folder, "Add the bag or take the slide out",
    )  # fmt: skip


def _widths(bag: Bag) -> dict[str, int]:
    widths = {"features": bag.features.shape[1]}
    return widths if bag.retriever is None else widths | {"retriever": bag.retriever.shape[1]}


def _content_hash(table: pd.DataFrame, bags: list[Bag]) -> str:
    columns: dict[str, Any] = {name: table[name].tolist() for name in COLUMNS}
    parts: list[bytes | str] = [canonical_json(columns)]
    for bag in bags:
        for values in (bag.features, bag.retriever):
            if values is not None:
                parts += [canonical_json(list(values.shape)), digest(values.tobytes())]
    return digest(*parts)
