"""Table 8 as a picture: concordance by fold, and survival of the predicted halves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion.figures import style
from companion.survival import NAMES, PAPER, folds_of
from companion.survival.model import logrank

LOW, HIGH = style.HUES[1:3]


@style.styled()
def survival_figure(
    table: pd.DataFrame,
    limits: pd.DataFrame,
    split: pd.DataFrame,
    planted: pd.DataFrame | None = None,
) -> Figure:
    """C-index by fold beside the Kaplan-Meier curves of CLIP-IT's predicted halves.

    Of `run_table`, `intervals`, `halves` and `planted_metrics` in `companion.survival`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.1), width_ratios=[1.2, 1])
    style.legend_below(figure, _concordance(left, table, limits, planted), 5)
    _curves(right, split)
    return figure


def _concordance(
    axis: Axes, table: pd.DataFrame, limits: pd.DataFrame, planted: pd.DataFrame | None
) -> list[Any]:
    """Draw each fold and the means; return what a legend names."""
    folds = sorted(table["fold"].unique())
    mean_at = len(folds) + 0.3
    means = limits.query("metric == 'c_index' and over == ''")
    means["paper"] = [PAPER.get(name, {}).get("c_index", np.nan) for name in means["setting"]]
    for setting, mean, off in style.dodged(means, "setting", 0.24):
        values = table[table["setting"] == setting].groupby("fold")["c_index"]
        for fold, own in values:
            style.seeds(axis, own, folds.index(fold) + off, setting, NAMES[setting], upright=True)
        style.forest(axis, mean, [mean_at + off], "value", setting=setting, upright=True)
    if planted is not None:
        ceilings = [*planted["c_index"], planted["c_index"].mean()]
        look: dict[str, Any] = {"color": "black", "marker": "_", "ls": "", "ms": 22, "mew": 1}
        axis.plot([*range(len(folds)), mean_at], ceilings, **look)
        axis.plot([], [], color="black", lw=1, label="planted risk")
    axis.axhline(0.5, color="black", lw=0.8, ls=":")
    axis.annotate("chance", (-0.45, 0.5), xytext=(0, 2), textcoords="offset points", fontsize=7)
    axis.axvline(len(folds) - 0.35, color="#BBBBBB", lw=0.8)
    defined, others = folds_of(table, "c_index")
    names = [f"{fold}" + "\nnot defined" * (fold in others) for fold in folds]
    axis.set(
        xticks=[*range(len(folds)), mean_at],
        xticklabels=[*names, f"mean of\n{', '.join(map(str, defined))}" if others else "mean"],
        xlim=(-0.5, len(folds) + 0.8), ylabel="C-index", xlabel="held-out fold",
    )  # fmt: skip
    axis.tick_params(axis="x", length=0)
    return [*style.named(axis), *style.meanings(means)]


def _curves(axis: Axes, split: pd.DataFrame) -> None:
    """Curves with ticks where a slide is censored, until a tenth of all slides is left."""
    from scipy import stats  # slow to import

    last = float(split["time"].quantile(0.9))
    ticks = np.asarray(MaxNLocator(5, steps=[1, 2, 3, 6, 10]).tick_values(0, last))
    ticks = ticks[(ticks >= 0) & (ticks <= last)]
    for row, (name, high, colour) in enumerate(
        [("low risk", False, LOW), ("high risk", True, HIGH)]
    ):
        half = split[split["high"] == high]
        time, event = half["time"].to_numpy(), half["event"].to_numpy()
        free = stats.ecdf(stats.CensoredData(time[event], right=time[~event])).sf
        steps = np.r_[0.0, free.quantiles[free.quantiles < last], last]
        axis.step(steps, free.evaluate(steps), where="post", color=colour, lw=1.5)
        axis.plot(time[~event], free.evaluate(time[~event]), "|", color=colour, ms=5, mew=0.8)
        axis.annotate(
            name, (last / 2, free.evaluate(last / 2)), xytext=(4, 5),
            textcoords="offset points", color=colour, fontsize=8,
        )  # fmt: skip
        below = -0.30 - 0.09 * row
        side: dict[str, Any] = {"color": colour, "fontsize": 7}
        for tick in ticks:
            count = str((time >= tick).sum())
            axis.text(tick, below, count, transform=axis.get_xaxis_transform(), ha="center", **side)
        axis.text(-0.09, below, name.split()[0], transform=axis.transAxes, ha="right", **side)
    axis.text(-0.09, -0.21, "at risk", transform=axis.transAxes, fontsize=7, ha="right")
    said = f"log-rank p = {logrank(split):.2g}"
    axis.text(0.98, 0.95, said, transform=axis.transAxes, ha="right", va="top", fontsize=8)
    axis.set(xticks=ticks, xlim=(0, last), ylim=(0, 1.02), xlabel="months",
             ylabel="free of the event", title="Predicted halves of CLIP-IT")  # fmt: skip
