"""Settings compared: every seed, means, and differences to a reference with their intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.comparison import Comparison
from clipit_lib.names import label
from clipit_lib.figures.style import COLOURS, CYCLE, styled

LINE, HEAD = 0.24, 0.75  # inches of a setting's line, and of what surrounds a cell
FAR = 6.0  # ranges of the others between a setting and them, from which on it would hide them


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
            far = far_settings(cell.groupby("setting")["balanced_accuracy"].mean())
            accuracies(axes[row, 0], cell, settings, far)
            differences(axes[row, 1], gains, settings, comparison.reference, far)
            axes[row, 0].set_title(f"{dataset}, {backbone}", fontsize=9)
        axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
        axes[-1, 1].set_xlabel(f"points over {label(comparison.reference)} (95% interval)")
        figure.tight_layout()
    return figure


def far_settings(means: pd.Series) -> set[str]:
    """Settings so far from all others that, drawn to scale, no other could be told apart."""
    far = set()
    for setting, mean in means.items():
        others = means.drop(setting)
        distance = max(others.min() - mean, mean - others.max())
        if len(others) > 2 and distance > FAR * (others.max() - others.min()):
            far.add(str(setting))
    return far


def accuracies(
    axis: Axes, runs: pd.DataFrame, settings: Sequence[str], far: Collection[str]
) -> None:
    """Means as large, seeds as small marks, one line a setting; a far one as a number."""
    middle = runs["balanced_accuracy"].median()
    for line, setting in enumerate(settings):
        values = runs[runs["setting"] == setting]["balanced_accuracy"]
        colour = _colour(setting)
        if setting in far:
            _at_edge(axis, line, f"{values.mean():.1f}", bool(values.mean() > middle), colour)
            continue
        axis.plot(values, [line] * len(values), "o", ms=3, color=colour, alpha=0.5, mew=0)
        axis.plot([values.mean()], [line], "D", ms=5, color=colour)
    _lines(axis, [label(setting) for setting in settings])


def differences(
    axis: Axes, gains: pd.DataFrame, settings: Sequence[str], reference: str,
    far: Collection[str],
) -> None:  # fmt: skip
    """Estimates with intervals on the same lines; the reference is the line at zero."""
    for line, setting in enumerate(settings):
        for _, row in gains[gains["second"] == setting].iterrows():
            gain, low, high = row["gain"], row["low"], row["high"]
            if setting in far:
                words = f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"
                _at_edge(axis, line, words, bool(gain > 0), _colour(setting))
                continue
            axis.errorbar(
                [gain], [line], xerr=[[gain - low], [high - gain]], fmt="D", ms=4, mfc="white",
                capsize=2, lw=1.3, color=_colour(setting),
            )  # fmt: skip
        if setting == reference:
            axis.text(0, line, "reference ", ha="right", va="center", fontsize=7, color="0.35")
    axis.axvline(0, color="black", lw=0.8)
    _lines(axis, [""] * len(settings))


def _at_edge(axis: Axes, line: int, words: str, right: bool, colour: str) -> None:
    """What lies outside of the axis, on its side: an arrow and the number."""
    axis.text(
        0.99 if right else 0.01, line, f"{words} ▸" if right else f"◂ {words}",
        transform=axis.get_yaxis_transform(), ha="right" if right else "left", va="center",
        fontsize=7, color=colour,
    )  # fmt: skip


def _colour(setting: str) -> str:
    return COLOURS.get(setting, CYCLE[0] if setting.startswith("clip_it") else CYCLE[2])


def _lines(axis: Axes, names: Sequence[str]) -> None:
    axis.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    axis.set_yticklabels(names, fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
