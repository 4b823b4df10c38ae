"""Figures of accuracy: Table 1, settings compared, Pareto, complementarity, courses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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

from clipit_lib.runs import StoredRun
from companion.figures.style import COLOURS, CYCLE, MARKER_CYCLE, MARKERS, styled
from companion.measures import FIXED, MOVING, pareto_front
from companion.specs import label
from companion.statistics import Interval
from companion.tables import STEPS, WHOLE, Comparison

# -- Table 1 as a picture: every seed, means, and gains with their intervals.


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


# -- Settings compared: every seed, means, and differences to a reference with their intervals.


COMPARISON_LINE, COMPARISON_HEAD = (
    0.24,
    0.75,
)  # inches of a setting's line, and of what surrounds a cell
FAR = 6.0  # ranges of the others between a setting and them, from which on it would hide them


def comparison_figure(comparison: Comparison) -> Figure:
    """A row of two panels a cell: accuracy of each setting, difference to the reference."""
    cells = list(comparison.runs.groupby(["dataset", "backbone"], sort=False))
    heights = [COMPARISON_HEAD + COMPARISON_LINE * cell["setting"].nunique() for _, cell in cells]
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


# -- What each step from the probe to CLIP-IT adds.


STEPS_LINE, STEPS_HEAD = 0.26, 0.85  # inches


def controls_figure(found: pd.DataFrame) -> Figure:
    """One panel a cell: bars that follow each other from 0 to the whole gain, 95% intervals."""
    cells = list(found.groupby(["dataset", "backbone"], sort=False))
    height = len(cells) * (STEPS_HEAD + STEPS_LINE * (len(STEPS) + 1))
    with styled():
        figure, axes = plt.subplots(
            len(cells), 1, figsize=(6.0, height), squeeze=False, sharex=True
        )
        for axis, ((dataset, backbone), cell) in zip(axes.flat, cells, strict=True):
            _steps(axis, cell.set_index("step"))
            axis.set_title(f"{dataset}, {backbone}", fontsize=9)
        axes[-1, 0].set_xlabel("points of balanced accuracy (95% interval)")
        figure.tight_layout()
    return figure


def _steps(axis: Axes, cell: pd.DataFrame) -> None:
    names = [step for step, *_ in (*STEPS, WHOLE)]
    begin = 0.0
    for line, name in enumerate(names):
        gain, low, high = cell.loc[[name], ["gain", "low", "high"]].to_numpy(float)[0].tolist()
        whole = name == WHOLE[0]
        start = 0.0 if whole else begin
        colour = "0.55" if whole else CYCLE[line]
        axis.barh(line, gain, left=start, height=0.62, color=colour, alpha=0.9)
        at, error = [start + gain], [[gain - low], [high - gain]]
        axis.errorbar(at, [line], xerr=error, fmt="none", ecolor="black", capsize=2, lw=1)
        place, said = axis.get_yaxis_transform(), str(Interval(gain, low, high))
        axis.text(1.02, line, said, transform=place, va="center", fontsize=8)
        if not whole:
            begin += gain
    axis.axvline(0, color="black", lw=0.8)
    axis.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    axis.set_yticklabels(names, fontsize=8)
    axis.tick_params(axis="y", length=0)


# -- Accuracy against cost, one panel a data set, with the frontier (Figure 3).


PARETO_LOOKS = {
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
                _pareto_panel(axis, points[points["dataset"] == dataset], cost, bases)
                axis.set_xlabel(name)
            axes[line, 0].set_ylabel("balanced accuracy (%)")
        for axis, dataset in zip(axes[0], datasets, strict=True):
            axis.set_title(str(dataset))
        figure.legend(
            handles=_handles(points, bases, costs), loc="upper center", ncols=4,
            bbox_to_anchor=(0.5, 0.0), fontsize=8, columnspacing=1.2, handletextpad=0.3,
        )  # fmt: skip
        figure.tight_layout()
    return figure


def _handle(base: str) -> Line2D:
    colour, marker = PARETO_LOOKS.get(base, OTHER)
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


def _pareto_panel(axis: Axes, rows: pd.DataFrame, cost: str, bases: list[str]) -> None:
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
    colour, marker = PARETO_LOOKS.get(row["base"], OTHER)
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


# -- Figure 4: what text gets right where vision is wrong, and the reverse.


MEASURES = {"omega": "text right, vision wrong (Ω)", "counterpart": "vision right, text wrong"}


def complementarity_figure(table: pd.DataFrame, intervals: pd.DataFrame) -> Figure:
    """One panel a data set, one row a backbone.

    Args:
        table: `complementarity.complementarity_table`.
        intervals: `complementarity.interval_table` of the same runs.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    backbones = list(dict.fromkeys(table["backbone"]))
    with styled():
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(7.0, 1.4 + 0.62 * len(backbones)), squeeze=False,
            sharex=True, sharey=True,
        )  # fmt: skip
        for axis, name in zip(axes[0], datasets, strict=True):
            of_table, of_intervals = (t[t["dataset"] == name] for t in (table, intervals))
            _complementarity_panel(axis, of_table, of_intervals, backbones)
            axis.set_title(name)
        axes[0, 0].set(
            yticks=range(len(backbones)), yticklabels=backbones, ylim=(len(backbones) - 0.4, -0.65)
        )
        axes[0, 0].set_xlim(
            0, 1.05 * max(intervals["high"].max(), table["omega_independent"].max())
        )
        figure.supxlabel("test patches (%), mean over seeds with 95% interval", fontsize=9)
        handles, names = axes[0, 0].get_legend_handles_labels()  # lines come first
        figure.legend(
            [*handles[1:], handles[0]],
            [*names[1:], names[0]],
            loc="upper center",
            ncols=3,
            bbox_to_anchor=(0.5, 0.02),
            fontsize=8,
        )
        figure.tight_layout()
    return figure


def _complementarity_panel(
    axis: Axes, table: pd.DataFrame, intervals: pd.DataFrame, backbones: list[str]
) -> None:
    for place, (measure, name) in enumerate(MEASURES.items()):
        rows = intervals[intervals["measure"] == measure]
        heights = [backbones.index(b) + 0.36 * (place - 0.5) for b in rows["backbone"]]
        errors = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
        look: dict[str, Any] = {"color": CYCLE[place], "fmt": MARKER_CYCLE[place]}
        axis.errorbar(rows["share"], heights, xerr=errors, **look, ms=5, capsize=2, label=name)
        above = measure == "omega"  # the two labels on the outer sides
        for height, share in zip(heights, rows["share"], strict=True):
            axis.annotate(
                f"{share:.1f}", (share, height), (0, 6 if above else -6), fontsize=8,
                ha="center", va="bottom" if above else "top", color=CYCLE[place],
                textcoords="offset points",
            )  # fmt: skip
    expected = table.groupby("backbone", sort=False)["omega_independent"].mean()
    heights = [backbones.index(str(b)) - 0.18 for b in expected.index]
    axis.plot(expected, heights, "|", color="black", ms=9, mew=1.8, label="Ω if independent")


# -- Do distillation targets stay apart?


SPREAD_LOOKS = {
    FIXED: ("fixed target", CYCLE[0], "-", "o"),
    MOVING: ("moving target", CYCLE[5], "--", "s"),
}


def spread_figure(spreads: pd.DataFrame) -> Figure:
    """One panel a data set: total variance of unit-length targets by epoch, one line a seed."""
    datasets = list(dict.fromkeys(spreads["dataset"]))
    with styled():
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(2.5 * len(datasets) + 0.9, 2.4), squeeze=False, sharey=True
        )
        for axis, dataset in zip(axes.flat, datasets, strict=True):
            for setting, (name, colour, line, marker) in SPREAD_LOOKS.items():
                rows = spreads[(spreads["dataset"] == dataset) & (spreads["setting"] == setting)]
                for number, (_, course) in enumerate(rows.groupby("seed")):
                    axis.plot(
                        course["epoch"], course["target_spread"], color=colour, ls=line, lw=1.1,
                        marker=marker, ms=3, label=name if number == 0 else None,
                    )  # fmt: skip
            axis.set(xlabel="epoch", title=dataset, ylim=(0, None))
        axes[0, 0].set_ylabel("variance of the targets")
        axes[0, 0].legend(fontsize=8)
        figure.tight_layout()
    return figure


# -- The course of training.


def history_figure(runs: Sequence[StoredRun]) -> Figure:
    """Validation cross-entropy and distillation loss by epoch, one thin line a seed."""
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.4))
        named: set[str] = set()
        for run in (run for run in runs if run.spec.training is not None):
            setting, course = run.spec.setting, run.history()
            name = label(setting) if setting not in named else None
            named.add(setting)
            look = {"color": COLOURS[setting], "lw": 1.2, "marker": ".", "label": name}
            left.plot(course["epoch"], course["validation"], **look)
            if "distillation" in course:
                right.plot(course["epoch"], course["distillation"], **look)
        left.set(xlabel="epoch", ylabel="validation cross-entropy (nats)")
        ylabel = "λ (1 \N{MINUS SIGN} cos) on training batches"
        right.set(xlabel="epoch", ylabel=ylabel, ylim=(0, None))
        left.legend()
        figure.tight_layout()
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


def loss_figure(losses: dict[str, list[float]]) -> Figure:
    """Mean training loss of each epoch, one line an encoder, named at its end."""
    with styled():
        figure, axis = plt.subplots(figsize=(4.8, 2.4))
        for name, values in losses.items():
            (line,) = axis.plot(range(1, len(values) + 1), values, marker=".")
            axis.annotate(f" {name}", (len(values), values[-1]), color=line.get_color(), fontsize=8)
        axis.set(xlabel="epoch", ylabel="training loss (nats)")
        axis.margins(x=0.25)
        figure.tight_layout()
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure
