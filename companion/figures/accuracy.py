"""Figures of accuracy and cost: Table 1, settings compared, Pareto, complementarity, courses."""

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
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

from clipit_lib.runs import StoredRun
from companion import paper
from companion.cost import ENCODED, UNIMODAL, UNMERGED
from companion.figures import style
from companion.measures import COSTS, FIXED, MOVING, pareto_front
from companion.own import ADDED, POOLED
from companion.specs import label
from companion.statistics import each_interval
from companion.tables import GAIN_CELL, STEPS, WHOLE, Comparison, judged


@style.styled()
def table1_figure(runs: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """One row of panels per data set: accuracies by backbone; gains of CLIP-IT on one scale."""
    gains = gains.assign(paper=paper.differences("table1", gains))
    cells = list(runs.groupby("dataset", sort=False))
    names = [list(dict.fromkeys(cell["backbone"])) for _, cell in cells]
    figure, axes = style.paired_panels(names, 0.42, 1.25)
    for (left, right), (dataset, cell), backbones in zip(axes, cells, names, strict=True):
        left.set_title(str(dataset))
        for setting, own, off in style.dodged(cell, "setting", 0.24):
            for backbone, values in own.groupby("backbone", sort=False)["balanced_accuracy"]:
                line = backbones.index(str(backbone)) + off
                style.seeds(left, values, line, setting, label(setting))
        own = gains[gains["dataset"] == dataset]
        for first, rows, off in style.dodged(own, "first", 0.3):
            at = [backbones.index(each) + off for each in rows["backbone"]]
            style.forest(right, rows, at, setting=first, label=f"over {label(first)}")
    axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
    axes[-1, 1].set_xlabel("gain of CLIP-IT (points, 95% interval)")
    handles = [*style.named(*axes[0]), *style.meanings(gains, by_filling=True)]
    style.legend_below(figure, handles)
    return figure


# -- Settings compared: every seed, means, and differences to a reference with their intervals.

FAR = 6.0  # ranges of the others between a setting and them, from which on it would hide them


@style.styled()
def comparison_figure(comparison: Comparison, printed: str = "") -> Figure:
    """A row of two panels per cell: accuracy of each setting, difference to the reference, which
    is a mark at zero. What is far from all others is a number at the edge.

    Args:
        printed: the table of the paper whose differences are beside ours, see `paper.differences`.
    """
    cells = list(comparison.runs.groupby(GAIN_CELL, sort=False))
    over, gains = label(comparison.reference), comparison.gains
    if printed:
        gains = gains.assign(paper=paper.differences(printed, gains))
    names = [[label(str(each)) for each in cell["setting"].unique()] for _, cell in cells]
    figure, axes = style.paired_panels(names, 0.24, 1.2)
    for (left, right), ((dataset, backbone), cell) in zip(axes, cells, strict=True):
        own = gains.query("dataset == @dataset and backbone == @backbone")
        left.set_title(f"{dataset}, {backbone}")
        for axis in (left, right):
            axis.grid(axis="y", color="0.92", lw=0.6)
        accuracies = cell.groupby("setting", sort=False)["balanced_accuracy"]
        middle, far = cell["balanced_accuracy"].median(), far_settings(accuracies.mean())
        for line, (name, values) in enumerate(accuracies):
            setting, rows = str(name), own[own["second"] == name]
            if setting not in far:
                style.seeds(left, values, line, setting)
                style.forest(right, rows, [line] * len(rows))
                if setting in {*own["first"]}:
                    style.seeds(right, 0 * values[:1], line, setting)
                continue
            texts = f"{values.mean():.1f}", *each_interval(rows)  # the second where it is compared
            for axis, said in zip((left, right), texts, strict=False):
                high = bool(values.mean() > middle)
                words, at, ha = (
                    (f"{said} ▸", 0.99, "right") if high else (f"◂ {said}", 0.01, "left")
                )
                style.on_line(
                    axis, line, words, at, ha=ha, fontsize=7, color=style.look(setting)[0]
                )
    axes[-1, 0].set_xlabel("balanced accuracy on test (%)")
    axes[-1, 1].set_xlabel(f"points over {over}\n(95% interval)")
    style.legend_below(figure, style.meanings(gains))
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


@style.styled()
def controls_figure(found: pd.DataFrame) -> Figure:
    """One panel per cell: bars that follow each other from 0 to the whole gain, 95% intervals."""
    cells = list(found.groupby(GAIN_CELL, sort=False))
    names, last = [step for step, *_ in (*STEPS, WHOLE)], len(STEPS)
    colours = [*(style.look(second)[0] for _, _, second in STEPS), "0.85"]
    height = len(cells) * (0.85 + 0.26 * len(names)) + 0.3
    figure, axes = plt.subplots(len(cells), 1, figsize=(6.4, height), squeeze=False, sharex=True)
    for axis, ((dataset, backbone), cell) in zip(axes.flat, cells, strict=True):
        steps = cell.assign(paper=paper.differences("figure5", cell)).set_index("step").loc[names]
        begin = steps["gain"].cumsum().shift(fill_value=0.0)
        begin.iloc[last] = 0.0
        axis.barh(range(len(names)), steps["gain"], 0.62, begin, color=colours, lw=0, alpha=0.6)
        moved = steps[["gain", "low", "high", "paper"]].add(begin, axis=0)
        said = judged(steps)
        style.forest(axis, moved.assign(word=steps["word"]), names=names, said=said)
        axis.set_title(f"{dataset}, {backbone}")
    axes[-1, 0].set_xlabel("points of balanced accuracy (95% interval)")
    return figure


# -- Accuracy against cost, one panel per data set, with the frontier (Figure 3).

# The cost of the same model with its prompts encoded for each image.
WITH_PROMPTS = {cost: encoded for cost, encoded, _ in COSTS}


@style.styled()
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
    datasets = list(dict.fromkeys(points["dataset"]))
    figure, axes = plt.subplots(
        len(costs), len(datasets), figsize=(7.2, 0.7 + 2.4 * len(costs)), squeeze=False,
        sharex="row", sharey="col",
    )  # fmt: skip
    for row, (cost, name) in zip(axes, costs.items(), strict=True):
        encoded = points[WITH_PROMPTS.get(cost, cost)]
        _cost_axis(row[0], float(points[cost].min()), float(encoded.max()))
        for axis, dataset in zip(row, datasets, strict=True):
            _pareto_panel(axis, points[points["dataset"] == dataset], cost)
            axis.set(xlabel=name, title=dataset if axis in axes[0] else "")
    figure.supylabel("balanced accuracy (%)", fontsize=9)
    handles = [Line2D([], [], color="black", lw=1, label="frontier, its models filled")]
    for base in dict.fromkeys(points["base"]):
        colour, marker = style.look(base)
        handles.append(Line2D([], [], color=colour, marker=marker, ls="", label=label(base)))
    if any(
        (points[WITH_PROMPTS[cost]] > points[cost]).any() for cost in costs if cost in WITH_PROMPTS
    ):
        said = "prompts encoded for each image"
        handles.append(Line2D([], [], color="0.4", ls=":", lw=1, label=said))
    style.legend_below(figure, handles)
    figure.draw_without_rendering()  # names are placed on the final scale
    for row, cost in zip(axes, costs, strict=True):
        for axis, dataset in zip(row, datasets, strict=True):
            _names(axis, points[points["dataset"] == dataset], cost)
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
        colour, marker = style.look(row["base"])
        own: dict[str, Any] = {"color": colour, "zorder": 2 + on_front}
        size, face = 5 if row["setting"] == row["base"] else 3, colour if on_front else "none"
        style.marks(axis, [row["low"], row["high"]], row[cost], True, ls="-", lw=0.8, **own)
        style.marks(axis, [row["mean"]], row[cost], True, marker=marker, ms=size, mfc=face, **own)
        far = row[WITH_PROMPTS.get(cost, cost)]
        if far > row[cost]:
            ends = [row[cost], far]
            style.marks(
                axis, ends, row["mean"], ls=":", lw=0.7, marker="|", ms=4, markevery=[1], **own
            )
    axis.margins(y=0.1)


def _names(axis: Axes, rows: pd.DataFrame, cost: str) -> None:
    """Backbones on the frontier, without a first word that all share; what would overlap is left
    out, the best first."""
    words = {str(name).split("_")[0] for name in rows["backbone"]}
    shared = words.pop() if len(words) == 1 else ""
    front = pareto_front(rows[cost].to_numpy(), rows["mean"].to_numpy())
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


# -- Cost of five ways to deploy, over the unimodal model: time and operations, ours and printed.

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


# -- Figure 4: what text gets right where vision is wrong, and the reverse.


@style.styled()
def complementarity_figure(table: pd.DataFrame, limits: pd.DataFrame) -> Figure:
    """One panel per data set, one row per backbone.

    Args:
        table: `measures.complementarity_table`.
        limits: `measures.interval_table` of the same runs.
    """
    right = {"omega": ("text", "text right, vision wrong (Ω)", 6, "bottom"),
             "counterpart": ("unimodal", "vision right, text wrong", -6, "top")}  # fmt: skip
    backbones = list(dict.fromkeys(table["backbone"]))
    cells = list(table.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(cells), figsize=(7.0, 1.4 + 0.62 * len(backbones)), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    for axis, (dataset, cell) in zip(axes[0], cells, strict=True):
        axis.set(title=str(dataset), xlabel="test patches (%)")
        expected = cell.groupby("backbone", sort=False)["omega_independent"].mean()
        own = limits[limits["dataset"] == dataset]
        for measure, rows, off in style.dodged(own, "measure", 0.36):
            setting, name, side, va = right[measure]
            at = [backbones.index(each) + off for each in rows["backbone"]]
            style.forest(axis, rows, at, "share", setting=setting, label=name)
            for place, share in zip(at, rows["share"], strict=True):
                axis.annotate(
                    f"{share:.1f}", (share, place), (0, side), fontsize=8, ha="center", va=va,
                    color=style.look(setting)[0], textcoords="offset points",
                )  # fmt: skip
            if measure == "omega":
                axis.plot(expected[rows["backbone"]], at, "|", color="black", ms=9, mew=1.8,
                          label="Ω if independent")  # fmt: skip
    style.named_lines(axes[0, 0], backbones)
    axes[0, 0].set_xlim(0, 1.05 * max(limits["high"].max(), table["omega_independent"].max()))
    style.legend_below(figure, style.named(axes[0, 0]))
    return figure


# -- Courses of training.


@style.styled(constrained=False)
def _courses(
    rows: pd.DataFrame, looks: dict[str, tuple[str, str]], sharey: bool = False, **axes: Any
) -> Figure:
    """A panel per value of `panel`, in it `value` by epoch, one thin line per seed and setting."""
    palette, markers = ({name: each[k] for name, each in looks.items()} for k in (0, 1))
    grid = sns.relplot(
        rows, kind="line", x="epoch", y="value", col="panel", hue="setting", style="setting",
        units="seed", estimator=None, palette=palette, markers=markers, dashes=False, lw=1.1, ms=4,
        mew=0, height=2.4, aspect=1.1, facet_kws={"sharey": sharey},
    )  # fmt: skip
    grid.set(**{"xlabel": "epoch", "ylabel": "", **axes}).set_titles("{col_name}")
    grid.legend.set_title("")
    plt.close(grid.figure)  # a notebook shows it once, as the value of its cell
    return grid.figure


def spread_figure(spreads: pd.DataFrame) -> Figure:
    """One panel per data set: total variance of unit-length targets by epoch."""
    named = {FIXED: "fixed target", MOVING: "moving target"}
    looks = {named[FIXED]: style.look(FIXED), named[MOVING]: style.OTHER}
    rows = spreads.rename(columns={"dataset": "panel", "target_spread": "value"})
    rows = rows.assign(setting=rows["setting"].map(named))
    return _courses(rows, looks, sharey=True, ylim=(0, None), ylabel="variance of the targets")


def history_figure(runs: Sequence[StoredRun]) -> Figure:
    """Validation cross-entropy and distillation loss by epoch."""
    panels = {"validation": "validation cross-entropy (nats)",
              "distillation": "λ (1 \N{MINUS SIGN} cos) on training batches"}  # fmt: skip
    trained = [run for run in runs if run.spec.training is not None]
    courses = pd.concat([
        run.history().assign(setting=label(run.spec.setting), seed=run.spec.seed)
        for run in trained
    ]).rename(columns=panels)  # fmt: skip
    shown = [name for name in panels.values() if name in courses]
    rows = courses.melt(["setting", "seed", "epoch"], shown, "panel").dropna(subset=["value"])
    return _courses(
        rows, {label(run.spec.setting): style.look(run.spec.setting) for run in trained}
    )


def loss_figure(losses: dict[str, list[float]]) -> Figure:
    """Mean training loss of each epoch, one line per encoder."""
    rows = pd.DataFrame(
        [(name, *each) for name, values in losses.items() for each in enumerate(values, 1)],
        columns=["setting", "epoch", "value"],
    )
    looks = dict(zip(losses, zip(style.HUES, style.MARKER_CYCLE, strict=False), strict=False))
    return _courses(rows.assign(panel="training loss (nats)", seed=0), looks)


@style.styled()
def own_figure(found: pd.DataFrame, title: str) -> Figure:
    """One line per control: pooled gain with its 95% interval; small dots are single cells.

    Args:
        found: of `own.summary`.
    """
    pooled, cells = found[found["dataset"] == POOLED], found[found["dataset"] != POOLED]
    figure, axis = plt.subplots(figsize=(6.4, 0.95 + 0.46 * len(pooled)))
    names = [f"{ADDED[name]}\nover {label(name)}" for name in pooled["first"]]
    said = each_interval(pooled).map(str) + "\n" + pooled["word"]
    style.forest(axis, pooled, names=names, said=said)
    for line, first in enumerate(pooled["first"] if len(cells) > len(pooled) else ()):
        dots = cells.loc[cells["first"] == first, "gain"].tolist()
        style.marks(axis, dots, line + 0.25, marker=".", ms=6, color="0.6", mew=0)
    axis.set(title=title, xlabel="points of balanced accuracy that CLIP-IT adds (95% interval)")
    return figure
