"""`benchmarks.csv` and `benchmarks.md`: rows are kept from run to run until they are run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measure import Row
from clipit_lib.files import write_text, written_beside
from companion import paths

COLUMNS = ["name", "ratio", "goal", "sense", "note", "low", "high", "repeats", "met", "benchmark",
           "machine"]  # fmt: skip
WORDS = {True: "yes", False: "no", None: ""}
SIGNS = {"at_least": "≥", "at_most": "≤"}
HEAD = """# Benchmarks

Ratios of medians over interleaved repeats in one process (A B A B ...), one thread unless stated,
with 95% intervals of a bootstrap over repeats. `python -m benchmarks` takes them again.

"""


def folder() -> Path:
    return paths.output() / "results"


def table(rows: list[Row], benchmark: str, machine: str) -> pd.DataFrame:
    """The rows of one benchmark with COLUMNS; `met` is yes, no, or empty without a goal."""
    values = [
        [r.name, r.ratio, r.goal, r.sense, r.note, r.low, r.high, r.repeats, WORDS[r.met],
         benchmark, machine]
        for r in rows
    ]  # fmt: skip
    frame = pd.DataFrame(values, columns=COLUMNS)
    return frame.astype({"goal": float, "ratio": float})


def merged(earlier: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    """Earlier rows, without those of the benchmarks in `new`, then the new ones."""
    if earlier is None:
        return new
    kept = earlier[~earlier["benchmark"].isin(new["benchmark"])]
    return new if kept.empty else pd.concat([kept, new], ignore_index=True)


def read(name: str) -> pd.DataFrame | None:
    """A table written before, or None."""
    path = folder() / f"{name}.csv"
    return (
        pd.read_csv(path, keep_default_na=False, na_values={"goal": [""]})
        if path.exists()
        else None
    )


def save(frame: pd.DataFrame, name: str) -> Path:
    """Write csv and Markdown; return the csv's path."""
    path = folder() / f"{name}.csv"
    with written_beside(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
    write_text(path.with_suffix(".md"), markdown(frame))
    return path


def markdown(frame: pd.DataFrame) -> str:
    """The table to read, machine by machine."""
    parts = [HEAD]
    for machine, rows in frame.groupby("machine", sort=False):
        parts.append(
            f"On {machine}:\n\n| what | ratio | goal | met | repeats |\n|---|---|---|---|---|\n"
        )
        for row in rows.to_dict("records"):
            words, value = f"`{row['name']}`: {row['note']}", number(row["ratio"])
            if row["low"] < row["high"]:
                value += f" [{number(row['low'])}, {number(row['high'])}]"
            parts.append(f"| {words} | {value} | {goal(row)} | {row['met']} | {row['repeats']} |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def goal(row: Mapping[Any, Any]) -> str:
    """A row's goal with its sense, empty if it has none."""
    return "" if pd.isna(row["goal"]) else f"{SIGNS[row['sense']]} {number(row['goal'])}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
