"""Figure 4: what text gets right where vision is wrong, and the reverse."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.figures.style import CYCLE, MARKER_CYCLE, styled

MEASURES = {"omega": "text right, vision wrong (Ω)", "counterpart": "vision right, text wrong"}


def complementarity_figure(table: pd.DataFrame, intervals: pd.DataFrame) -> Figure:
    """One panel a data set, one row a backbone.

    Args:
        table: `complementarity.complementarity_table`.
        intervals: `complementarity.interval_table` of the same runs.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    backbones = list(dict.fromkeys(table["backbone"]))
    with styled():
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(7.0, 1.4 + 0.62 * len(backbones)), squeeze=False,
            sharex=True, sharey=True,
        )  # fmt: skip
        for axis, name in zip(axes[0], datasets, strict=True):
            of_table, of_intervals = (t[t["dataset"] == name] for t in (table, intervals))
            _panel(axis, of_table, of_intervals, backbones)
            axis.set_title(name)
        axes[0, 0].set(
            yticks=range(len(backbones)), yticklabels=backbones, ylim=(len(backbones) - 0.4, -0.65)
        )
        axes[0, 0].set_xlim(
            0, 1.05 * max(intervals["high"].max(), table["omega_independent"].max())
        )
        figure.supxlabel("test patches (%), mean over seeds with 95% interval", fontsize=9)
        handles, names = axes[0, 0].get_legend_handles_labels()  # lines come first
        figure.legend(
            [*handles[1:], handles[0]],
            [*names[1:], names[0]],
            loc="upper center",
            ncols=3,
            bbox_to_anchor=(0.5, 0.02),
            fontsize=8,
        )
        figure.tight_layout()
    return figure


def _panel(axis: Axes, table: pd.DataFrame, intervals: pd.DataFrame, backbones: list[str]) -> None:
    for place, (measure, name) in enumerate(MEASURES.items()):
        rows = intervals[intervals["measure"] == measure]
        heights = [backbones.index(b) + 0.36 * (place - 0.5) for b in rows["backbone"]]
        errors = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
        look: dict[str, Any] = {"color": CYCLE[place], "fmt": MARKER_CYCLE[place]}
        axis.errorbar(rows["share"], heights, xerr=errors, **look, ms=5, capsize=2, label=name)
        above = measure == "omega"  # the two labels on the outer sides
        for height, share in zip(heights, rows["share"], strict=True):
            axis.annotate(
                f"{share:.1f}", (share, height), (0, 6 if above else -6), fontsize=8,
                ha="center", va="bottom" if above else "top", color=CYCLE[place],
                textcoords="offset points",
            )  # fmt: skip
    expected = table.groupby("backbone", sort=False)["omega_independent"].mean()
    heights = [backbones.index(str(b)) - 0.18 for b in expected.index]
    axis.plot(expected, heights, "|", color="black", ms=9, mew=1.8, label="Ω if independent")
