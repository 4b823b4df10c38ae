"""Figures of accuracy: Table 1, settings compared, Pareto, complementarity, courses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from clipit_lib.runs import StoredRun
from companion.figures.style import (
    COLOURS,
    CYCLE,
    LOOKS,
    MARKER_CYCLE,
    MARKERS,
    beside,
    intervals,
    legend_below,
    named,
    named_lines,
    on_line,
    paired_panels,
    seeds,
    styled,
    zero,
)
from companion.measures import COSTS, FIXED, MOVING, pareto_front
from companion.own.summary import ADDED, POOLED
from companion.specs import label
from companion.statistics import Interval, Word
from companion.tables import GAIN_CELL, STEPS, WHOLE, Comparison


@styled()
def table1_figure(runs: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """One row of panels per data set: accuracies by backbone; gains of CLIP-IT on one scale."""
    cells = list(runs.groupby("dataset", sort=False))
    heights = [0.7 + 0.42 * cell["backbone"].nunique() for _, cell in cells]
    figure, axes = paired_panels(heights, 1.25, 0.7)
    for right in axes[1:, 1]:
        right.sharex(axes[0, 1])
    for (left, right), (name, cell) in zip(axes, cells, strict=True):
        backbones = list(dict.fromkeys(cell["backbone"]))
        left.set_title(str(name))
        named_lines(left, backbones)
        settings = [setting for setting in COLOURS if setting in set(cell["setting"])]
        for setting, off in zip(settings, beside(len(settings), 0.24), strict=True):
            look = (*LOOKS[setting], label(setting))
            own = cell[cell["setting"] == setting].groupby("backbone", sort=False)
            for backbone, values in own["balanced_accuracy"]:
                seeds(left, values, backbones.index(str(backbone)) + off, *look)
        named_lines(right, [""] * len(backbones))
        zero(right)
        by_first = list(gains[gains["dataset"] == name].groupby("first", sort=False))
        for (first, rows), off in zip(by_first, beside(len(by_first), 0.24), strict=True):
            intervals(
                right, rows, [backbones.index(each) + off for each in rows["backbone"]],
                color=COLOURS[str(first)], marker=MARKERS[str(first)], mfc="white",
                label=f"over {label(str(first))}",
            )  # fmt: skip
    axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
    axes[-1, 1].set_xlabel("gain of CLIP-IT (points, 95% interval)")
    legend_below(figure, named(axes[0]), 5)
    figure.tight_layout()
    return figure


# -- Settings compared: every seed, means, and differences to a reference with their intervals.


FAR = 6.0  # ranges of the others between a setting and them, from which on it would hide them


@styled()
def comparison_figure(comparison: Comparison) -> Figure:
    """A row of two panels per cell: accuracy of each setting, difference to the reference."""
    cells = list(comparison.runs.groupby(GAIN_CELL, sort=False))
    heights = [0.75 + 0.24 * cell["setting"].nunique() for _, cell in cells]
    figure, axes = paired_panels(heights, 1.2, 0.2)
    for (left, right), ((dataset, backbone), cell) in zip(axes, cells, strict=True):
        gains = comparison.gains.query("dataset == @dataset and backbone == @backbone")
        _compared(left, right, cell, gains, comparison.reference)
        left.set_title(f"{dataset}, {backbone}")
    axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
    axes[-1, 1].set_xlabel(f"points over {label(comparison.reference)}\n(95% interval)")
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


def _compared(
    left: Axes, right: Axes, runs: pd.DataFrame, gains: pd.DataFrame, reference: str
) -> None:
    """One line per setting: its seeds with their mean, and the difference to the reference.

    The reference is a filled mark at zero; what is far from all others a number at the edge.
    """
    accuracies = runs.groupby("setting", sort=False)["balanced_accuracy"]
    middle, far = runs["balanced_accuracy"].median(), far_settings(accuracies.mean())
    named_lines(left, [label(str(setting)) for setting, _ in accuracies])
    named_lines(right, [""] * len(accuracies))
    for axis in (left, right):
        axis.grid(axis="y", color="0.92", lw=0.6)
    zero(right)
    for line, (name, values) in enumerate(accuracies):
        setting, colour = str(name), _colour(str(name))
        rows = gains[gains["second"] == setting]
        if setting in far:
            high = bool(values.mean() > middle)
            _at_edge(left, line, f"{values.mean():.1f}", high, colour)
        else:
            seeds(left, values, line, colour)
        if setting == reference:
            right.plot(0, line, "D", ms=4, color=colour)
        elif setting in far:
            gain = Interval.of(rows.iloc[0])
            _at_edge(right, line, str(gain), gain.estimate > 0, colour)
        else:
            intervals(right, rows, [line], marker="D", ms=4, mfc="white", color=colour)


def _at_edge(axis: Axes, line: int, words: str, right: bool, colour: str) -> None:
    """What lies outside of the axis, on its side: an arrow and the number."""
    said, at, side = (f"{words} ▸", 0.99, "right") if right else (f"◂ {words}", 0.01, "left")
    on_line(axis, line, said, at, ha=side, fontsize=7, color=colour)


def _colour(setting: str) -> str:
    return COLOURS.get(setting, CYCLE[0] if setting.startswith("clip_it") else CYCLE[2])


@styled()
def controls_figure(found: pd.DataFrame) -> Figure:
    """One panel per cell: bars that follow each other from 0 to the whole gain, 95% intervals."""
    cells = list(found.groupby(GAIN_CELL, sort=False))
    names = [step for step, *_ in (*STEPS, WHOLE)]
    colours = [*CYCLE[: len(STEPS)], "0.55"]
    height = len(cells) * (0.85 + 0.26 * len(names))
    figure, axes = plt.subplots(len(cells), 1, figsize=(6.0, height), squeeze=False, sharex=True)
    for axis, ((dataset, backbone), cell) in zip(axes.flat, cells, strict=True):
        steps = cell.set_index("step").loc[names]
        begin = steps["gain"].cumsum().shift(fill_value=0.0)
        begin[WHOLE[0]] = 0.0
        named_lines(axis, names)
        zero(axis)
        axis.barh(range(len(names)), steps["gain"], 0.62, begin, color=colours, alpha=0.9, lw=0)
        moved = steps[["gain", "low", "high"]].add(begin, axis=0)
        intervals(axis, moved, range(len(names)), color="black", lw=1)
        for line, (_, step) in enumerate(steps.iterrows()):
            on_line(axis, line, str(Interval.of(step)))
        axis.set_title(f"{dataset}, {backbone}")
    axes[-1, 0].set_xlabel("points of balanced accuracy (95% interval)")
    figure.tight_layout()
    return figure


# -- Accuracy against cost, one panel per data set, with the frontier (Figure 3).


PARETO_LOOKS = LOOKS | {"zero_shot": (CYCLE[4], "^"), "contrastive": (CYCLE[5], "P")}
OTHER = ("black", "x")  # any further setting
# The cost of the same model with its prompts encoded for each image.
ENCODED = {cost: encoded for cost, encoded, _ in COSTS}


@styled()
def pareto_figure(points: pd.DataFrame, costs: dict[str, str]) -> Figure:
    """One row of panels per cost and one column per data set.

    Filled: on the frontier; the others are hollow, so that models of one cost do not hide each
    other. A variant `BASE/...` is drawn small, as its base. A dotted line leads to what a model
    costs whose prompts are encoded for each image.

    Args:
        points: of `measures.cell_points`, or `paper.pareto_points`.
        costs: column of a cost to its axis label.
    """
    # A probe on a frozen image tower is the same thing under both names.
    settings = points["setting"].replace("vision", "unimodal")
    points = points.assign(setting=settings, base=settings.str.split("/").str[0])
    datasets, bases = list(dict.fromkeys(points["dataset"])), list(dict.fromkeys(points["base"]))
    figure, axes = plt.subplots(
        len(costs), len(datasets), figsize=(7.2, 0.7 + 2.4 * len(costs)), squeeze=False,
        sharex="row", sharey="col",
    )  # fmt: skip
    for row, (cost, name) in zip(axes, costs.items(), strict=True):
        encoded = points[ENCODED.get(cost, cost)]
        _cost_axis(row[0], float(points[cost].min()), float(encoded.max()))
        for axis, dataset in zip(row, datasets, strict=True):
            _pareto_panel(axis, points[points["dataset"] == dataset], cost)
            axis.set_xlabel(name)
        row[0].set_ylabel("balanced accuracy (%)")
    for axis, dataset in zip(axes[0], datasets, strict=True):
        axis.set_title(str(dataset))
    handles = [Line2D([], [], color="black", lw=1, label="frontier, its models filled")]
    for base in bases:
        colour, marker = PARETO_LOOKS.get(base, OTHER)
        handles.append(Line2D([], [], color=colour, marker=marker, ls="", label=label(base)))
    if any((points[ENCODED[cost]] > points[cost]).any() for cost in costs if cost in ENCODED):
        said = "prompts encoded for each image"
        handles.append(Line2D([], [], color="0.4", ls=":", lw=1, label=said))
    legend_below(figure, handles, 4)
    figure.tight_layout()
    return figure


def _cost_axis(axis: Axes, low: float, high: float) -> None:
    """A logarithmic axis with room beside the points, and numbers such as 200k or 5M."""
    span = max(1.6, (high / low) ** 0.5)
    axis.set(xscale="log", xlim=(low / span, high * span**0.4))
    ticks = (1, 2, 5) if high / low < 5 else (1, 3) if high / low < 50 else (1,)
    axis.xaxis.set_major_locator(LogLocator(subs=ticks))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_locator(NullLocator())


def _pareto_panel(axis: Axes, rows: pd.DataFrame, cost: str) -> None:
    front = pareto_front(rows[cost].to_numpy(), rows["mean"].to_numpy())
    steps = rows[front].drop_duplicates([cost, "mean"]).sort_values(cost)  # the best up to a cost
    steps = pd.concat([steps, steps.tail(1).assign(**{cost: axis.get_xlim()[1]})])
    axis.step(steps[cost], steps["mean"], where="post", color="black", lw=0.8, zorder=1)
    for (_, row), on_front in zip(rows.iterrows(), front, strict=True):
        _point(axis, row, cost, bool(on_front))
    axis.margins(y=0.1)
    axis.autoscale_view()  # names are placed on the final scale
    _names(axis, rows, front, cost)


def _point(axis: Axes, row: pd.Series, cost: str, on_front: bool) -> None:
    """A cell's mean, the range of its seeds, and its cost with prompts encoded."""
    colour, marker = PARETO_LOOKS.get(row["base"], OTHER)
    look: dict[str, Any] = {"color": colour, "zorder": 2 + on_front}
    intervals(
        axis, row.to_frame().T, [row[cost]], "mean", upright=True, marker=marker, capsize=0, lw=0.8,
        ms=5 if row["setting"] == row["base"] else 3, mfc=colour if on_front else "none", **look,
    )  # fmt: skip
    far = row[ENCODED.get(cost, cost)]
    if far > row[cost]:
        ends = [row[cost], far], [row["mean"]] * 2
        axis.plot(*ends, lw=0.7, ls=":", marker="|", ms=4, markevery=[1], **look)


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


# -- Figure 4: what text gets right where vision is wrong, and the reverse.


@styled()
def complementarity_figure(table: pd.DataFrame, limits: pd.DataFrame) -> Figure:
    """One panel per data set, one row per backbone.

    Args:
        table: `measures.complementarity_table`.
        limits: `measures.interval_table` of the same runs.
    """
    measures = {"omega": "text right, vision wrong (Ω)", "counterpart": "vision right, text wrong"}
    backbones = list(dict.fromkeys(table["backbone"]))
    cells = list(table.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(cells), figsize=(7.0, 1.4 + 0.62 * len(backbones)), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    for axis, (dataset, cell) in zip(axes[0], cells, strict=True):
        axis.set_title(str(dataset))
        for place, (measure, name) in enumerate(measures.items()):
            rows = limits.query("dataset == @dataset and measure == @measure")
            heights = [backbones.index(each) + 0.36 * (place - 0.5) for each in rows["backbone"]]
            look: dict[str, Any] = {"color": CYCLE[place], "marker": MARKER_CYCLE[place]}
            intervals(axis, rows, heights, "share", **look, label=name)
            side, va = (6, "bottom") if measure == "omega" else (-6, "top")  # the outer sides
            for height, share in zip(heights, rows["share"], strict=True):
                axis.annotate(
                    f"{share:.1f}", (share, height), (0, side), fontsize=8, ha="center", va=va,
                    color=CYCLE[place], textcoords="offset points",
                )  # fmt: skip
        expected = cell.groupby("backbone", sort=False)["omega_independent"].mean()
        heights = [backbones.index(str(each)) - 0.18 for each in expected.index]
        look = {"color": "black", "ms": 9, "mew": 1.8, "label": "Ω if independent"}
        axis.plot(expected, heights, "|", **look)
    named_lines(axes[0, 0], backbones)
    axes[0, 0].set_xlim(0, 1.05 * max(limits["high"].max(), table["omega_independent"].max()))
    figure.supxlabel("test patches (%), mean over seeds with 95% interval", fontsize=9)
    independent, *others = named(axes[0, :1])  # lines come first
    legend_below(figure, [*others, independent], 3)
    figure.tight_layout()
    return figure


@styled()
def spread_figure(spreads: pd.DataFrame) -> Figure:
    """One panel per data set: total variance of unit-length targets by epoch, one line per seed."""
    names = {FIXED: "fixed target", MOVING: "moving target"}
    grid = sns.relplot(
        spreads.assign(target=spreads["setting"].map(names)), kind="line", x="epoch",
        y="target_spread", col="dataset", hue="target", style="target", units="seed",
        estimator=None, palette=[CYCLE[0], CYCLE[5]], hue_order=names.values(),
        style_order=names.values(), markers=["o", "s"], lw=1.1, ms=4, height=2.4, aspect=1.05,
    )  # fmt: skip
    grid.set(ylim=(0, None), xlabel="epoch").set_titles("{col_name}")
    grid.axes[0, 0].set_ylabel("variance of the targets")
    grid.legend.set_title("")
    return grid.figure


@styled()
def history_figure(runs: Sequence[StoredRun]) -> Figure:
    """Validation cross-entropy and distillation loss by epoch, one thin line per seed."""
    trained = [run for run in runs if run.spec.training is not None]
    courses = pd.concat([
        run.history().assign(setting=label(run.spec.setting), seed=run.spec.seed)
        for run in trained
    ], ignore_index=True)  # fmt: skip
    colours = {label(run.spec.setting): COLOURS[run.spec.setting] for run in trained}
    markers = {label(run.spec.setting): MARKERS[run.spec.setting] for run in trained}
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.4))
    for axis, name in ((left, "validation"), (right, "distillation")):
        if name in courses:
            sns.lineplot(
                courses.dropna(subset=[name]), x="epoch", y=name, hue="setting", style="setting",
                units="seed", estimator=None, palette=colours, markers=markers, dashes=False,
                lw=1.2, ms=4, mew=0, legend=axis is left, ax=axis,
            )  # fmt: skip
    left.set_ylabel("validation cross-entropy (nats)")
    left.legend(title=None)
    right.set(ylabel="λ (1 \N{MINUS SIGN} cos) on training batches", ylim=(0, None))
    figure.tight_layout()
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


@styled()
def loss_figure(losses: dict[str, list[float]]) -> Figure:
    """Mean training loss of each epoch, one line per encoder, named at its end."""
    figure, axis = plt.subplots(figsize=(4.8, 2.4))
    for name, values in losses.items():
        (line,) = axis.plot(range(1, len(values) + 1), values, marker=".")
        axis.annotate(f" {name}", (len(values), values[-1]), color=line.get_color(), fontsize=8)
    axis.set(xlabel="epoch", ylabel="training loss (nats)")
    axis.margins(x=0.25)
    figure.tight_layout()
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


WORDS = {
    Word.HELPS: (CYCLE[0], "D"), Word.HURTS: (CYCLE[5], "s"), Word.EQUIVALENT: (CYCLE[2], "|"),
    Word.UNDECIDED: (CYCLE[6], "o"),
}  # fmt: skip


@styled()
def own_figure(found: pd.DataFrame, title: str) -> Figure:
    """One line a control: pooled gain with its 95% interval; small dots are single cells.

    Args:
        found: of `own.summary.summary`.
    """
    pooled, cells = found[found["dataset"] == POOLED], found[found["dataset"] != POOLED]
    figure, axis = plt.subplots(figsize=(6.4, 0.95 + 0.46 * len(pooled)))
    named_lines(axis, [f"{ADDED[name]}\nover {label(name)}" for name in pooled["first"]])
    zero(axis)
    for line, first in enumerate(pooled["first"]):
        word = Word(pooled["word"].iloc[line])
        value, (colour, marker) = Interval.of(pooled.iloc[line]), WORDS[word]
        intervals(axis, pooled.iloc[[line]], [line], color=colour, marker=marker, ms=6, lw=1.6)
        on_line(axis, line, f"{value}\n{word}", color=colour)
        if len(cells) > len(pooled):
            dots = cells[cells["first"] == first]["gain"]
            axis.plot(dots, [line + 0.25] * len(dots), ".", ms=6, color="0.6", mew=0)
    axis.set(title=title, xlabel="points of balanced accuracy that CLIP-IT adds (95% interval)")
    figure.tight_layout()
    return figure
