"""Cost of five ways to deploy, over the unimodal model: time and operations, ours and printed."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from companion import paper
from companion.cost.measure import ENCODED, UNIMODAL, UNMERGED
from companion.figures.style import HUES, MARKER_CYCLE, named_lines, styled

STEP = 0.21
PRINTED = {"unimodal": UNIMODAL, "clip_it": UNMERGED, "clip": ENCODED}


@styled()
def inference_cost_figure(costs: pd.DataFrame, latency: pd.DataFrame) -> Figure:
    """Left: ours, from `cost_table` and `latency_table`. Right: what the paper prints.

    One row per variant; filled: median time over unimodal with quartiles; hollow: operations.
    """
    names = list(dict.fromkeys(costs["variant"]))
    batches = list(dict.fromkeys(costs["batch"]))
    size = (7.2, 4.3)
    figure, (ours, papers) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[1.7, 1])
    named_lines(ours, [name.replace(", ", "\n") for name in names])
    places = iter(STEP * (np.arange(2 * len(batches)) - len(batches) + 0.5))
    for table, column, kind in ((latency, "ratio", "time"), (costs, "flops_ratio", "operations")):
        for batch, marker, colour in zip(batches, MARKER_CYCLE, HUES, strict=False):
            rows = table[table["batch"] == batch].set_index("variant").loc[names]
            lines = next(places) + np.arange(len(names))
            right = rows.get("ratio_high", rows[column])
            if kind == "time":
                ours.hlines(lines, rows["ratio_low"], right, color=colour, lw=1.3)
            look = {"color": colour, "marker": marker, "label": f"{kind}, batch {batch}"}
            _marks(ours, rows[column], right, lines, kind, **look)
    printed = paper.printed("compute")
    at = np.array([names.index(PRINTED[name]) for name in printed["variant"]])
    for column, said, marker, place in (
        ("latency_ms", "time on an RTX A6000, batch 1", "D", -STEP),
        ("gflops", "operations", "^", STEP),
    ):
        value = printed[column] / printed.set_index("variant")[column]["unimodal"]
        look = {"color": "black", "marker": marker, "label": said}
        _marks(papers, value, value, at + place, said, **look)
    for axis, title in ((ours, "measured and counted here"), (papers, "printed in the paper")):
        axis.set(xscale="log", xlabel="ratio over unimodal", title=title)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.axvline(1, color="black", lw=0.8, zorder=0)
        low, high = axis.get_xlim()
        axis.set_xlim(low, high * (high / low) ** 0.22)  # room for the labels
        columns = 2 if axis is ours else 1
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns)
    return figure


def _marks(
    axis: Axes, value: pd.Series, right: pd.Series, lines: np.ndarray, kind: str, **look: Any
) -> None:
    """One mark a line, hollow for operations, with its number right of it."""
    face = "white" if kind == "operations" else look["color"]
    axis.plot(value, lines, ls="", ms=4.5, mfc=face, **look)
    for number, x, y in zip(value, right, lines, strict=True):
        axis.annotate(
            f"{number:,.0f}" if number >= 100 else f"{number:.2f}", (x, y), (5, 0),
            textcoords="offset points", va="center", fontsize=6.5, color=look["color"],
        )  # fmt: skip
