"""Cost of five ways to deploy, over the unimodal model: time and operations, ours and printed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from companion import paper
from companion.cost.measure import ENCODED, UNIMODAL, UNMERGED
from companion.figures import style

PRINTED = {"unimodal": UNIMODAL, "clip_it": UNMERGED, "clip": ENCODED}


@style.styled()
def inference_cost_figure(costs: pd.DataFrame, latency: pd.DataFrame) -> Figure:
    """Left: ours, from `cost_table` and `latency_table`. Right: what the paper prints.

    One row per variant; filled: median time over unimodal with quartiles; hollow: operations.
    """
    names = list(dict.fromkeys(costs["variant"]))
    timed = latency.assign(kind="time, batch " + latency["batch"].astype(str))
    counted = costs.assign(
        kind="operations, batch " + costs["batch"].astype(str), ratio=costs["flops_ratio"]
    )
    printed = paper.printed("compute").replace({"variant": PRINTED}).set_index("variant")
    over = (printed / printed.loc[UNIMODAL]).reset_index()
    both = [
        over.assign(kind="time on an RTX A6000, batch 1", ratio=over["latency_ms"]),
        over.assign(kind="operations", ratio=over["gflops"]),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 4.3), sharey=True, width_ratios=[1.7, 1])
    style.named_lines(axes[0], [name.replace(", ", "\n") for name in names])
    for axis, title, parts in (
        (axes[0], "measured and counted here", [timed, counted]),
        (axes[1], "printed in the paper", both),
    ):
        rows, each = pd.concat(parts), len(costs["batch"].unique()) if axis is axes[0] else 1
        for number, (kind, own, off) in enumerate(style.dodged(rows, "kind", 0.21)):
            colour, marker = style.HUES[number % each], style.MARKER_CYCLE[number % each]
            at = [names.index(variant) + off for variant in own["variant"]]
            right = own.get("ratio_high", own["ratio"]).fillna(own["ratio"])
            axis.hlines(at, own.get("ratio_low", right).fillna(right), right, color=colour, lw=1.3)
            face = "white" if kind.startswith("operations") else colour
            axis.plot(own["ratio"], at, marker, ms=4.5, mfc=face, color=colour, label=kind)
            for value, x, y in zip(own["ratio"], right, at, strict=True):
                axis.annotate(
                    f"{value:,.0f}" if value >= 100 else f"{value:.2f}", (x, y), (5, 0),
                    textcoords="offset points", va="center", fontsize=6.5, color=colour,
                )  # fmt: skip
        axis.set(xscale="log", xlabel="ratio over unimodal", title=title)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.axvline(1, color="black", lw=0.8, zorder=0)
        low, high = axis.get_xlim()
        axis.set_xlim(low, high * (high / low) ** 0.22)  # room for the labels
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=each)
    return figure
