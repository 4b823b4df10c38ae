"""Tables of notebooks (as pandas writes them) as accessible HTML, built anew from their text."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag
from markupsafe import Markup

from clipit_lib.report.prose import in_a_box

NUMBER = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?%?|nan", re.IGNORECASE)


def data_tables(source: str) -> Markup:
    """The tables in a piece of HTML; empty if there is none. Whatever is in a cell is text."""
    found = BeautifulSoup(source, "html.parser").find_all("table")
    return Markup("").join(in_a_box(_table(table)) for table in found)


def _table(table: Tag) -> Markup:
    rows = [list(row.find_all(["th", "td"])) for row in table.find_all("tr")]
    if _only_counts(rows):
        rows = [row[1:] for row in rows]
    head = sum(all(cell.name == "th" for cell in row) for row in rows)
    parts = [
        Markup("<thead>{}</thead>").format(_rows(rows[:head], "col")),
        Markup("<tbody>{}</tbody>").format(_rows(rows[head:], "row")),
    ]
    return Markup("<table>{}</table>").format(Markup("\n").join(parts))


def _only_counts(rows: list[list[Tag]]) -> bool:
    """Whether the first column is pandas' own 0, 1, 2, ..., which says nothing."""
    first = [row[0].get_text() for row in rows if row]
    single = all(sum(cell.name == "th" for cell in row) == 1 for row in rows[1:])
    return single and first == ["", *map(str, range(len(rows) - 1))]


def _rows(rows: list[list[Tag]], scope: str) -> Markup:
    cells = (Markup("").join(_cell(cell, scope) for cell in row) for row in rows)
    return Markup("\n").join(Markup("<tr>{}</tr>").format(row) for row in cells)


def _cell(cell: Tag, scope: str) -> Markup:
    text = cell.get_text().strip()
    spans = "".join(
        f' {name}="{value}"'
        for name in ("colspan", "rowspan")
        if (value := str(cell.get(name, ""))).isdigit() and value != "1"
    )
    if cell.name == "td" or not text:  # an empty header heads nothing
        number = ' class="number"' if NUMBER.fullmatch(text) else ""
        return Markup("<td{}{}>{}</td>").format(Markup(spans), Markup(number), text)
    wide = "group" if ("colspan" if scope == "col" else "rowspan") in spans else ""
    return Markup("<th scope='{}{}'{}>{}</th>").format(scope, wide, Markup(spans), text)
