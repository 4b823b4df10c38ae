"""How a result moves along one knob: words dropped, rank of the report, lambda, labels ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.names import label
from clipit_lib.figures.style import COLOURS, MARKERS, styled


@dataclass(frozen=True)
class Curve:
    """Settings along one axis: `points` maps what stands on the axis to a setting."""

    title: str
    points: Mapping[str, str]


def curves_figure(runs: pd.DataFrame, curves: Sequence[Curve], levels: Sequence[str]) -> Figure:
    """One panel a curve: every seed, the mean as a line; means of `levels` as dashed lines."""
    columns = 2
    rows = -(-len(curves) // columns)
    with styled():
        figure, axes = plt.subplots(
            rows, columns, figsize=(6.8, 2.1 * rows + 0.4), squeeze=False, sharey=True
        )
        for axis, curve in zip(axes.flat, curves, strict=False):
            _curve(axis, runs, curve)
            _levels(axis, runs, levels, named=axis is axes.flat[0])
        for axis in axes.flat[len(curves) :]:
            axis.axis("off")
        for axis in axes[:, 0]:
            axis.set_ylabel("balanced accuracy (%)")
        figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(levels), fontsize=8)
        figure.tight_layout()
    return figure


def _curve(axis: Axes, runs: pd.DataFrame, curve: Curve) -> None:
    values = [
        runs[runs["setting"] == setting]["balanced_accuracy"] for setting in curve.points.values()
    ]
    colour = COLOURS["clip_it"]
    for place, each in enumerate(values):
        axis.plot([place] * len(each), each, "o", ms=3, color=colour, alpha=0.5, mew=0)
    axis.plot(range(len(values)), [each.mean() for each in values], "D-", ms=4, color=colour)
    axis.set(xlabel=curve.title, xticks=range(len(values)))
    axis.set_xticklabels(list(curve.points))


def _levels(axis: Axes, runs: pd.DataFrame, levels: Sequence[str], named: bool) -> None:
    for level in levels:
        mean = runs[runs["setting"] == level]["balanced_accuracy"].mean()
        style = {"unimodal": ":", "lora_only": "--"}.get(level, "-.")
        axis.axhline(
            mean, color=COLOURS[level], lw=1.2, ls=style, label=label(level) if named else None
        )


def gain_curves_figure(gains: pd.DataFrame, panels: Sequence[Curve], knobs: str = "") -> Figure:
    """The map: gain of CLIP-IT (95% interval) along each axis, one line a control.

    Args:
        gains: dataset, backbone, first, second, gain, low, high, point (its place on the axis).
    """
    with styled():
        figure, axes = plt.subplots(
            -(-len(panels) // 2), 2, figsize=(6.8, 2.1 * -(-len(panels) // 2) + 0.4),
            squeeze=False, sharey=True,
        )  # fmt: skip
        for axis, panel in zip(axes.flat, panels, strict=False):
            _gains(axis, gains[gains["axis"] == panel.title], panel)
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis in axes[:, 0]:
            axis.set_ylabel("gain of CLIP-IT (points)")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=8
        )
        figure.tight_layout()
    return figure


def _gains(axis: Axes, gains: pd.DataFrame, panel: Curve) -> None:
    places = {point: place for place, point in enumerate(panel.points)}
    controls = list(dict.fromkeys(gains["control"]))
    for number, control in enumerate(controls):
        rows = gains[gains["control"] == control]
        shift = 0.16 * (number - (len(controls) - 1) / 2)
        at = [places[point] + shift for point in rows["point"]]
        error = [rows["gain"] - rows["low"], rows["high"] - rows["gain"]]
        axis.errorbar(
            at, rows["gain"], yerr=error, fmt=MARKERS[control], ls="-", lw=1.2, ms=4, capsize=2,
            mfc="white", color=COLOURS[control], label=f"over {label(control)}",
        )  # fmt: skip
    axis.axhline(0, color="black", lw=0.8)
    axis.set(xlabel=panel.title, xticks=range(len(places)))
    axis.set_xticklabels([str(point).replace("_", "\n") for point in places])  # names are long
