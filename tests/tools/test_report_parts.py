"""The parts of the report: formulas, headings, tables, colours."""

import itertools
import re

import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from companion.report import HERE, Outline, data_tables, formula, prose

EVIL = "<script>alert('name')</script>"


def read(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def test_formulas_are_mathml_or_code() -> None:
    half = read(formula(r"\frac{1}{2}", "block"))
    assert half.math["display"] == "block"
    assert [e.text for e in half.mfrac.find_all("mn")] == ["1", "2"]
    assert "arg" in read(formula(r"\arg\max_j x")).math.text
    for tex in (r"\frac{1}{", r"\nonsense{a}", rf"\text{{{EVIL}}}", r"\href{javascript:x}{y}"):
        assert str(formula(tex)) == f"<code>{Markup.escape(tex)}</code>"
    told = read(prose("A $a<b$ and $$c^2$$", Outline(), 3))
    assert [e["display"] for e in told.find_all("math")] == ["inline", "block"]


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["a", "a 2", "B!", "…", "made"]))))
def test_outlines_skip_no_level_and_repeat_no_anchor(headings: list[tuple[int, str]]) -> None:
    outline = Outline(["made"])
    html = read("".join(outline.heading(Markup(text), level) for level, text in headings))
    found = html.find_all(re.compile("^h"))
    levels = [1, *(int(each.name[1]) for each in found)]
    assert all(1 < b <= a + 1 for a, b in itertools.pairwise(levels))
    anchors = [each["id"] for each in found]
    assert len(anchors) == len(headings) and len(set(anchors)) == len(anchors)
    assert "made" not in anchors


def test_tables_keep_their_cells_and_know_their_headers() -> None:
    frame = pd.DataFrame(
        {("p", "x"): [1.5, -2.0], ("p", "y"): ["a<b", ""]},
        index=pd.MultiIndex.from_tuples([("k", 0), ("k", 1)], names=["one", "two"]),
    )
    table = read(data_tables(frame.to_html())).table
    group = table.find("th", string="p")
    assert (group["scope"], group["colspan"]) == ("colgroup", "2")
    assert (table.find("th", string="k")["scope"], table.find("th", string="k")["rowspan"]) == (
        "rowgroup", "2"
    )  # fmt: skip
    assert [cell.text for cell in table.tbody.find_all("td")] == ["1.5", "a<b", "-2.0", ""]
    counted = read(data_tables(pd.DataFrame({"a": [5, 6]}).to_html())).table
    assert [row.text.split() for row in counted.find_all("tr")] == [["a"], ["5"], ["6"]]
    assert data_tables("<p>no table</p>") == ""


def test_colours_have_enough_contrast() -> None:
    """By day and in the dark."""
    light, dark = re.findall(r":root {(.*?)}", (HERE / "style.css").read_text("utf-8"), re.DOTALL)
    for text in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text))
        pairs = [*itertools.product(("ink", "soft", "link", "not"), ("paper", "shade"))]
        for front, back in [*pairs, ("ink", "cared")]:
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, contrast ratio."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    shares = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
