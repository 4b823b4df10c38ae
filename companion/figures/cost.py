"""Cost of five ways to deploy, over the unimodal model: time and operations, ours and printed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from companion.cost.measure import ENCODED, UNIMODAL, UNMERGED
from companion.figures.style import CYCLE, MARKER_CYCLE, styled

TIME = "time"
OPERATIONS = "operations"
STEP = 0.21
PRINTED = {"unimodal": UNIMODAL, "clip_it": UNMERGED, "clip": ENCODED}


def inference_cost_figure(
    costs: pd.DataFrame, latency: pd.DataFrame, printed: pd.DataFrame
) -> Figure:
    """Left: ours, from `cost_table` and `latency_table`. Right: `paper.cost.compute`.

    One row a variant; filled: median time over unimodal with quartiles; hollow: operations.
    """
    names = list(dict.fromkeys(costs["variant"]))
    with styled():
        figure, (ours, papers) = plt.subplots(
            1, 2, figsize=(7.2, 4.3), sharey=True, gridspec_kw={"width_ratios": [1.7, 1]}
        )
        _ours(ours, names, costs, latency)
        _printed(papers, names, printed)
        ours.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
        ours.set_yticklabels([name.replace(", ", "\n") for name in names])
        for axis, title in ((ours, "measured and counted here"), (papers, "printed in the paper")):
            axis.set(xscale="log", xlabel="ratio over unimodal", title=title)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.axvline(1, color="black", lw=0.8, zorder=0)
            axis.tick_params(axis="y", length=0)
            low, high = axis.get_xlim()
            axis.set_xlim(low, high * (high / low) ** 0.22)  # room for the labels
        ours.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8,
            handletextpad=0.2, columnspacing=1.0,
        )  # fmt: skip
        papers.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=8, handletextpad=0.2
        )
        figure.tight_layout()
    return figure


def _ours(axis: Axes, names: list[str], costs: pd.DataFrame, latency: pd.DataFrame) -> None:
    batches = list(dict.fromkeys(costs["batch"]))
    for place, batch in enumerate(batches):
        for hollow, table in enumerate((latency, costs)):
            rows = table[table["batch"] == batch].set_index("variant").loc[names]
            line = place + hollow * len(batches) - (2 * len(batches) - 1) / 2
            heights = [index + STEP * line for index in range(len(names))]
            value = rows["flops_ratio" if hollow else "ratio"]
            kind = OPERATIONS if hollow else TIME
            axis.plot(
                value, heights, MARKER_CYCLE[place], color=CYCLE[place], ms=4.5,
                mfc="white" if hollow else CYCLE[place], label=f"{kind}, batch {batch}",
            )  # fmt: skip
            right = value if hollow else rows["ratio_high"]
            if not hollow:
                axis.hlines(heights, rows["ratio_low"], right, color=CYCLE[place], lw=1.3)
            _numbers(axis, value, right, heights, CYCLE[place])


def _printed(axis: Axes, names: list[str], printed: pd.DataFrame) -> None:
    rows = [names.index(PRINTED[name]) for name in printed["variant"]]
    first = list(printed["variant"]).index("unimodal")
    for line, (column, label, marker) in enumerate(
        (("latency_ms", "time on an RTX A6000, batch 1", "D"), ("gflops", OPERATIONS, "^"))
    ):
        value = printed[column] / printed[column].iloc[first]
        heights = [row + STEP * (2 * line - 1) for row in rows]
        axis.plot(
            value, heights, marker, color="black", ms=4.5, mfc="white" if line else "black",
            label=label,
        )  # fmt: skip
        _numbers(axis, value, value, heights, "black")


def _numbers(
    axis: Axes, value: pd.Series, right: pd.Series, heights: list[float], colour: str
) -> None:
    for number, x, y in zip(value, right, heights, strict=True):
        axis.annotate(
            f"{number:,.0f}" if number >= 100 else f"{number:.2f}", (x, y), (5, 0),
            textcoords="offset points", va="center", fontsize=6.5, color=colour,
        )  # fmt: skip
