"""Table 1 as a picture: every seed, means, and gains with their intervals."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.figures.style import COLOURS, MARKERS, label, styled


def table1_figure(runs: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """One row of panels a data set: accuracies by backbone, and gains of CLIP-IT."""
    datasets = list(dict.fromkeys(runs["dataset"]))
    backbones = runs.groupby("dataset")["backbone"].nunique()
    heights = [0.7 + 0.42 * backbones[name] for name in datasets]
    with styled():
        figure, axes = plt.subplots(
            len(datasets), 2, figsize=(7.2, sum(heights) + 0.7), squeeze=False,
            gridspec_kw={"height_ratios": heights, "width_ratios": [1.25, 1]},
        )  # fmt: skip
        for row, name in enumerate(datasets):
            _accuracies(axes[row, 0], runs[runs["dataset"] == name])
            _gains(axes[row, 1], gains[gains["dataset"] == name])
            axes[row, 0].set_title(str(name))
        axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
        axes[-1, 1].set_xlabel("gain of CLIP-IT (points, 95% interval)")
        handles, names = axes[0, 0].get_legend_handles_labels()
        more_handles, more_names = axes[0, 1].get_legend_handles_labels()
        figure.legend(
            handles + more_handles, names + more_names, loc="upper center", ncols=5,
            bbox_to_anchor=(0.5, 0.0), fontsize=8,
        )  # fmt: skip
        figure.tight_layout()
    return figure


def _accuracies(axis: Axes, runs: pd.DataFrame) -> None:
    backbones = list(dict.fromkeys(runs["backbone"]))
    settings = [s for s in COLOURS if s in set(runs["setting"])]
    for place, setting in enumerate(settings):
        offset = 0.24 * (place - (len(settings) - 1) / 2)
        cells = runs[runs["setting"] == setting].groupby("backbone")["balanced_accuracy"]
        heights = [backbones.index(b) + offset for b in cells.groups]
        look: dict[str, Any] = {"color": COLOURS[setting], "marker": MARKERS[setting], "ls": ""}
        axis.plot(cells.mean(), heights, **look, ms=6, label=label(setting))
        for height, (_, values) in zip(heights, cells, strict=True):
            axis.plot(values, [height] * len(values), **look, ms=3, alpha=0.55)
    axis.set(yticks=range(len(backbones)), yticklabels=backbones, ylim=(len(backbones) - 0.5, -0.5))


def _gains(axis: Axes, gains: pd.DataFrame) -> None:
    backbones = list(dict.fromkeys(gains["backbone"]))
    firsts = list(dict.fromkeys(gains["first"]))
    for place, first in enumerate(firsts):
        rows = gains[gains["first"] == first]
        offset = 0.24 * (place - (len(firsts) - 1) / 2)
        heights = [backbones.index(b) + offset for b in rows["backbone"]]
        errors = [rows["gain"] - rows["low"], rows["high"] - rows["gain"]]
        axis.errorbar(
            rows["gain"], heights, xerr=errors, fmt=MARKERS[first], color=COLOURS[first],
            mfc="white", capsize=2, ms=5, lw=1.3, label=f"over {label(first)}",
        )  # fmt: skip
    axis.axvline(0, color="black", lw=0.8)
    axis.set(yticks=range(len(backbones)), yticklabels=[], ylim=(len(backbones) - 0.5, -0.5))
