"""Settings compared: every seed, means, and differences to a reference with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.comparison import Comparison
from clipit_lib.names import label
from clipit_lib.figures.style import COLOURS, CYCLE, styled

LINE, HEAD = 0.24, 0.75  # inches of a setting's line, and of what surrounds a cell


def comparison_figure(comparison: Comparison) -> Figure:
    """A row of two panels a cell: accuracy of each setting, difference to the reference."""
    cells = list(comparison.runs.groupby(["dataset", "backbone"], sort=False))
    heights = [HEAD + LINE * cell["setting"].nunique() for _, cell in cells]
    with styled():
        figure, axes = plt.subplots(
            len(cells), 2, figsize=(7.2, sum(heights)), squeeze=False,
            gridspec_kw={"height_ratios": heights, "width_ratios": [1.2, 1]},
        )  # fmt: skip
        for row, ((dataset, backbone), cell) in enumerate(cells):
            settings = list(dict.fromkeys(cell["setting"]))
            gains = comparison.gains.query("dataset == @dataset and backbone == @backbone")
            accuracies(axes[row, 0], cell, settings)
            differences(axes[row, 1], gains, settings, comparison.reference)
            axes[row, 0].set_title(f"{dataset}, {backbone}", fontsize=9)
        axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
        axes[-1, 1].set_xlabel(f"points over {label(comparison.reference)} (95% interval)")
        figure.tight_layout()
    return figure


def accuracies(axis: Axes, runs: pd.DataFrame, settings: Sequence[str]) -> None:
    """Means as large, seeds as small marks, one line a setting."""
    for line, setting in enumerate(settings):
        values = runs[runs["setting"] == setting]["balanced_accuracy"]
        colour = _colour(setting)
        axis.plot(values, [line] * len(values), "o", ms=3, color=colour, alpha=0.5, mew=0)
        axis.plot([values.mean()], [line], "D", ms=5, color=colour)
    _lines(axis, [label(setting) for setting in settings])


def differences(axis: Axes, gains: pd.DataFrame, settings: Sequence[str], reference: str) -> None:
    """Estimates with intervals on the same lines; the reference is the line at zero."""
    for line, setting in enumerate(settings):
        for _, row in gains[gains["second"] == setting].iterrows():
            error = [[row["gain"] - row["low"]], [row["high"] - row["gain"]]]
            axis.errorbar(
                [row["gain"]], [line], xerr=error, fmt="D", ms=4, mfc="white", capsize=2, lw=1.3,
                color=_colour(setting),
            )  # fmt: skip
        if setting == reference:
            axis.text(0, line, "reference ", ha="right", va="center", fontsize=7, color="0.35")
    axis.axvline(0, color="black", lw=0.8)
    _lines(axis, [""] * len(settings))


def _colour(setting: str) -> str:
    return COLOURS.get(setting, CYCLE[0] if setting.startswith("clip_it") else CYCLE[2])


def _lines(axis: Axes, names: Sequence[str]) -> None:
    axis.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    axis.set_yticklabels(names, fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
