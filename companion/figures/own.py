"""The gain of CLIP-IT over each control, on data of the user."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion.figures.style import intervals, named_lines, right_of, styled, zero
from companion.own.summary import ADDED, POOLED, VERDICTS
from companion.specs import label
from companion.statistics import Interval, Side

LINE, HEAD = 0.46, 0.95  # inches of a control, and of what surrounds them
LOOKS = {
    Side.ABOVE: ("#0072B2", "D"), Side.INCLUDES: ("#6E6E6E", "o"), Side.BELOW: ("#D55E00", "s"),
}  # fmt: skip


@styled()
def own_figure(found: pd.DataFrame, title: str) -> Figure:
    """One line a control: pooled gain with its 95% interval; small dots are single cells.

    Args:
        found: of `own.summary.summary`.
    """
    pooled, cells = found[found["dataset"] == POOLED], found[found["dataset"] != POOLED]
    figure, axis = plt.subplots(figsize=(6.4, HEAD + LINE * len(pooled)))
    named_lines(axis, [f"{ADDED[name]}\nover {label(name)}" for name in pooled["first"]])
    zero(axis)
    for line, first in enumerate(pooled["first"]):
        value = Interval.of(pooled.iloc[line])
        colour, marker = LOOKS[value.side]
        intervals(axis, pooled.iloc[[line]], [line], color=colour, marker=marker, ms=6, lw=1.6)
        right_of(axis, line, f"{value}\n{VERDICTS[value.side]}", colour)
        if len(cells) > len(pooled):
            dots = cells[cells["first"] == first]["gain"]
            axis.plot(dots, [line + 0.25] * len(dots), ".", ms=6, color="0.6", mew=0)
    axis.set(title=title, xlabel="points of balanced accuracy that CLIP-IT adds (95% interval)")
    figure.tight_layout()
    return figure
