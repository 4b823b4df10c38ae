"""Accuracy against cost, one panel a data set, with the frontier (Figure 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from clipit_lib.figures.style import COLOURS, CYCLE, MARKERS, label, styled
from clipit_lib.pareto import pareto_front

LOOKS = {
    "unimodal": (COLOURS["unimodal"], MARKERS["unimodal"]),
    "lora_only": (COLOURS["lora_only"], MARKERS["lora_only"]),
    "clip_it": (COLOURS["clip_it"], MARKERS["clip_it"]),
    "zero_shot": (CYCLE[4], "^"),
    "contrastive": (CYCLE[5], "P"),
}
OTHER = ("black", "x")  # any further setting
DODGE = 2.5  # typographic points between settings of one cost
# The cost of the same model with its prompts encoded for each image.
ENCODED = {"parameters_deployed": "parameters_encoded", "flops": "flops_encoded"}


def pareto_figure(points: pd.DataFrame, costs: dict[str, str]) -> Figure:
    """One row of panels a cost and one column a data set.

    Settings of one backbone stand side by side. A variant `BASE/...` is drawn small, as its base.
    Hollow and joined: what a model costs whose prompts are encoded for each image.

    Args:
        points: of `pareto.cell_points`, or `paper.cost.pareto_points`.
        costs: column of a cost to its axis label.
    """
    # A probe on a frozen image tower is the same thing under both names.
    settings = points["setting"].replace("vision", "unimodal")
    points = points.assign(setting=settings, base=settings.str.split("/").str[0])
    datasets, bases = list(dict.fromkeys(points["dataset"])), list(dict.fromkeys(points["base"]))
    with styled():
        figure, axes = plt.subplots(
            len(costs), len(datasets), figsize=(7.2, 0.7 + 2.4 * len(costs)), squeeze=False,
            sharex="row", sharey="col",
        )  # fmt: skip
        for line, (cost, name) in enumerate(costs.items()):
            dearest = points[ENCODED.get(cost, cost)].max()
            _cost_axis(axes[line, 0], float(points[cost].min()), float(dearest))
            for axis, dataset in zip(axes[line], datasets, strict=True):
                _panel(axis, points[points["dataset"] == dataset], cost, bases)
                axis.set_xlabel(name)
            axes[line, 0].set_ylabel("balanced accuracy (%)")
        for axis, dataset in zip(axes[0], datasets, strict=True):
            axis.set_title(str(dataset))
        figure.legend(
            handles=_handles(points, bases, costs), loc="upper center", ncols=4, bbox_to_anchor=(0.5, 0.0), fontsize=8,
            columnspacing=1.2, handletextpad=0.3,
        )  # fmt: skip
        figure.tight_layout()
    return figure


def _handle(base: str) -> Line2D:
    colour, marker = LOOKS.get(base, OTHER)
    return Line2D([], [], color=colour, marker=marker, ls="", label=label(base))


def _handles(points: pd.DataFrame, bases: list[str], costs: Iterable[str]) -> list[Line2D]:
    handles = [_handle(base) for base in bases]
    pairs = [(cost, ENCODED[cost]) for cost in costs if cost in ENCODED]
    if any((points[encoded] > points[cost]).any() for cost, encoded in pairs):
        hollow = "prompts encoded for each image"
        handles.append(Line2D([], [], color=CYCLE[4], marker="^", mfc="white", ls="", label=hollow))
    return [*handles, Line2D([], [], color="black", lw=1, label="frontier")]


def _cost_axis(axis: Axes, low: float, high: float) -> None:
    """A logarithmic axis with room beside the points, and numbers such as 200k or 5M."""
    span = max(1.6, (high / low) ** 0.5)
    axis.set(xscale="log", xlim=(low / span, high * span**0.4))
    ticks = (1, 2, 5) if high / low < 5 else (1, 3) if high / low < 50 else (1,)
    axis.xaxis.set_major_locator(LogLocator(subs=ticks))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_locator(NullLocator())


def _panel(axis: Axes, rows: pd.DataFrame, cost: str, bases: list[str]) -> None:
    low, high = rows["low"].min(), rows["high"].max()
    room = 0.08 * (high - low) + 0.2
    axis.set_ylim(low - room, high + room)  # shifted points do not count for autoscaling
    front = pareto_front(rows[cost].to_numpy(), rows["mean"].to_numpy())
    _frontier(axis, rows[front], cost)
    for (_, row), on_front in zip(rows.iterrows(), front, strict=True):
        _point(axis, row, cost, bases.index(row["base"]) - (len(bases) - 1) / 2, bool(on_front))
    _names(axis, rows, front, cost)


def _point(axis: Axes, row: pd.Series, cost: str, place: float, on_front: bool) -> None:
    """A cell's mean, the range of its seeds, and its cost with prompts encoded."""
    colour, marker = LOOKS.get(row["base"], OTHER)
    size = 5 if row["setting"] == row["base"] else 3
    look: dict[str, Any] = {
        "color": colour, "transform": _beside(axis, DODGE * place), "zorder": 2 + on_front,
        "alpha": 1.0 if on_front else 0.6,
    }  # fmt: skip
    axis.plot(row[cost], row["mean"], marker, ms=size, **look)
    axis.plot([row[cost]] * 2, [row["low"], row["high"]], lw=1, **look)
    encoded = ENCODED.get(cost)
    if encoded is not None and row[encoded] > row[cost]:
        axis.plot([row[cost], row[encoded]], [row["mean"]] * 2, lw=0.5, ls=":", **look)
        axis.plot(row[encoded], row["mean"], marker, ms=size, mfc="white", **look)


def _beside(axis: Axes, points: float) -> Transform:
    """Data coordinates moved sideways, so that models of one cost do not hide each other."""
    return axis.transData + ScaledTranslation(points / 72, 0, axis.figure.dpi_scale_trans)


def _frontier(axis: Axes, front: pd.DataFrame, cost: str) -> None:
    """What the best model up to a cost reaches."""
    steps = front.drop_duplicates([cost, "mean"]).sort_values(cost)
    x = [*steps[cost], axis.get_xlim()[1]]
    y = [*steps["mean"], steps["mean"].iloc[-1]]
    axis.step(x, y, where="post", color="black", lw=0.8, zorder=1)


def _names(axis: Axes, rows: pd.DataFrame, front: np.ndarray, cost: str) -> None:
    """Backbones on the frontier, without a first word that all share; what would overlap is left
    out, the best first."""
    words = {str(name).split("_")[0] for name in rows["backbone"]}
    shared = words.pop() if len(words) == 1 else ""
    halo = [withStroke(linewidth=2, foreground="white")]
    to_axes, taken = axis.transData + axis.transAxes.inverted(), np.empty((0, 2))
    for _, row in rows[front].sort_values("mean", ascending=False).iterrows():
        place = to_axes.transform((row[cost], row["mean"]))
        if (np.abs(taken - place) < (0.25, 0.05)).all(axis=1).any():
            continue
        taken = np.vstack([taken, place])
        name = str(row["backbone"]).removeprefix(f"{shared}_")
        axis.annotate(
            name, (row[cost], row["mean"]), (-7, 2), textcoords="offset points", ha="right",
            va="bottom", fontsize=7, path_effects=halo, zorder=5,
        )  # fmt: skip
