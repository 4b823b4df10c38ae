"""Settings compared within each cell: accuracies, differences to a reference, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from clipit_lib import tables
from clipit_lib.names import label
from clipit_lib.runs import StoredRun
from clipit_lib.statistics import Interval

MANY = (
    "Each interval stands for itself: of twenty comparisons without any effect, one is expected to "
    "leave out zero."
)


@dataclass(frozen=True)
class Comparison:
    """What one study found.

    Attributes:
        reference: the setting that all others are compared with.
        runs: one row a run, as `tables.run_table`.
        gains: one row a cell and setting, as `tables.gain_table`, over the reference.
    """

    reference: str
    runs: pd.DataFrame
    gains: pd.DataFrame

    @property
    def keys(self) -> list[str]:
        """The runs behind it."""
        return [str(key) for key in self.runs["run"]]

    def only(self, settings: Sequence[str]) -> Comparison:
        """The part of it that concerns some settings and the reference."""
        runs = self.runs[self.runs["setting"].isin([*settings, self.reference])]
        return Comparison(self.reference, runs, self.gains[self.gains["second"].isin(settings)])


def compare(stored: Sequence[StoredRun], reference: str, draws: int) -> Comparison:
    """Compare every setting of a cell with `reference`, cell by cell (95% paired bootstrap)."""
    cells: dict[tuple[str, str], list[StoredRun]] = {}
    for run in stored:
        cells.setdefault((run.spec.dataset, run.spec.backbone), []).append(run)
    gains = []
    for cell in cells.values():
        others = dict.fromkeys(run.spec.setting for run in cell if run.spec.setting != reference)
        gains.append(tables.gain_table(cell, [(reference, other) for other in others], draws))
    return Comparison(reference, tables.run_table(stored), pd.concat(gains, ignore_index=True))


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """To read: one row a cell and setting, mean ± sd and each seed, difference and interval."""
    columns = [*tables.CELL, "second"]
    gains = {tuple(row[columns]): _interval(row) for _, row in comparison.gains.iterrows()}
    rows = []
    cells = comparison.runs.groupby([*tables.CELL, "setting"], sort=False)
    for (dataset, backbone, setting), cell in cells:
        found = gains.get((dataset, backbone, setting), "")
        row = {
            "data set": dataset,
            "backbone": backbone,
            "setting": label(str(setting)),
            "balanced accuracy (%)": tables.describe(cell["balanced_accuracy"].to_numpy()),
            f"over {label(comparison.reference)}": str(found),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def comparison_words(comparison: Comparison) -> str:
    """One item a cell: which settings lie above, below, and not clearly off the reference.

    Ends with what many intervals beside each other mean.
    """
    lines = []
    for (dataset, backbone), rows in comparison.gains.groupby(tables.CELL, sort=False):
        above, below = rows[rows["low"] > 0], rows[rows["high"] < 0]
        open_ = rows[(rows["low"] <= 0) & (rows["high"] >= 0)]
        parts = [
            f"{what}: {_listed(part)}"
            for what, part in (
                ("interval above zero", above), ("below zero", below), ("includes zero", open_)
            )
            if len(part)
        ]  # fmt: skip
        reference = label(comparison.reference)
        lines.append(f"- {dataset}, {backbone}, against {reference}: {'; '.join(parts)}.")
    return "\n".join(lines) + "\n\n" + MANY


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(f"{label(row['second'])} {_interval(row)}" for _, row in rows.iterrows())


def _interval(row: pd.Series) -> Interval:
    return Interval(row["gain"], row["low"], row["high"])
