"""The gain of CLIP-IT over each control, on data of the user."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.figures.style import styled
from companion.own.summary import ADDED, POOLED, Verdict, verdict
from companion.specs import label
from companion.statistics import Interval

LINE, HEAD = 0.46, 0.95  # inches of a control, and of what surrounds them
LOOK = {
    Verdict.HELPS: ("#0072B2", "D"),
    Verdict.NOT_SHOWN: ("#6E6E6E", "o"),
    Verdict.HURTS: ("#D55E00", "s"),
}


def own_figure(found: pd.DataFrame, title: str) -> Figure:
    """One line a control: pooled gain with its 95% interval; small dots are single cells.

    Args:
        found: of `own.summary.summary`.
    """
    pooled = found[found["dataset"] == POOLED]
    cells = found[found["dataset"] != POOLED]
    several = len(cells) > len(pooled)
    with styled():
        figure, axis = plt.subplots(figsize=(6.4, HEAD + LINE * len(pooled)))
        for line, (_, row) in enumerate(pooled.iterrows()):
            _gain(axis, line, Interval(row["gain"], row["low"], row["high"]))
            if several:
                dots = cells[cells["first"] == row["first"]]["gain"]
                axis.plot(dots, [line + 0.25] * len(dots), ".", ms=6, color="0.6", mew=0)
        axis.axvline(0, color="black", lw=0.8)
        names = [f"{ADDED[name]}\nover {label(name)}" for name in pooled["first"]]
        axis.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6), title=title)
        axis.set_yticklabels(names, fontsize=8)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("points of balanced accuracy that CLIP-IT adds (95% interval)")
        figure.tight_layout()
    return figure


def _gain(axis: Axes, line: int, value: Interval) -> None:
    colour, marker = LOOK[verdict(value)]
    error = [[value.estimate - value.low], [value.high - value.estimate]]
    axis.errorbar(
        [value.estimate], [line], xerr=error, fmt=marker, ms=6, color=colour, capsize=3, lw=1.6
    )
    place, said = axis.get_yaxis_transform(), f"{value}\n{verdict(value)}"
    axis.text(1.02, line, said, transform=place, va="center", fontsize=8, color=colour)
