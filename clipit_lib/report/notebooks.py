"""Executed notebooks as sections of the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from markupsafe import Markup

from clipit_lib import paths
from clipit_lib.files import whole
from clipit_lib.report.cells import code, results
from clipit_lib.report.outline import Outline
from clipit_lib.report.pictures import Pictures
from clipit_lib.report.prose import prose

TITLE = re.compile(r"\A# +(.+?)\n")
FIRST_PER_PROFILE = 3  # notebooks below this number run once an encoder, data set or cell


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor and title for the contents, and its HTML."""

    anchor: str
    title: str
    html: Markup


def executed(profile: str) -> tuple[list[Path], list[Path]]:
    """Whole executed notebooks in number order: those run once a profile, and the others."""
    found = sorted(paths.executed_notebooks(profile).glob("[0-9]*.ipynb"))
    whole = [path for path in found if not path.stem.endswith(".failed")]
    once = [path for path in whole if _number(path) >= FIRST_PER_PROFILE]
    return once, [path for path in whole if _number(path) < FIRST_PER_PROFILE]


def section(
    path: Path, outline: Outline, pictures: Pictures, level: int, shareable: bool
) -> Section:
    """A notebook as a section whose own heading is of this level.

    Raises:
        ClipItError: the file is damaged.
    """
    with whole(path, "Delete it and run ./run_all.sh again"):
        cells = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells
    first = cells[0].source + "\n" if cells and cells[0].cell_type == "markdown" else ""
    match = TITLE.match(first)
    title = match[1] if match else path.stem
    if about := path.stem.split("__")[1:]:  # which encoder, data set or cell
        title += f" ({', '.join(about)})"
    parts = [outline.heading(Markup.escape(title), level, path.stem)]
    anchor = outline.at
    if match:
        cells[0].source = first[match.end() :]
    folded: list[str] = []  # code whose result is still to come
    for cell in cells:
        if cell.cell_type == "markdown":
            parts += [code(folded), prose(cell.source, outline, level + 1)]
            folded = []
        elif cell.cell_type == "code" and cell.source.strip():
            folded.append(cell.source.strip("\n"))
            if shown := results(cell.outputs, outline, pictures, level + 1, shareable):
                parts += [code(folded), shown]
                folded = []
    return Section(anchor, title, Markup("").join([*parts, code(folded)]))


def _number(path: Path) -> int:
    digits = re.match(r"\d+", path.name)
    return int(digits[0]) if digits else 0
