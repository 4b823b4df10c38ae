"""CLIP-IT's gains: along a knob, over its controls, claim by claim, and where they are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from clipit_lib.runs import StoredRun
from companion import tables
from companion.claims import Judged, Verdict, ledger_table
from companion.figures import style
from companion.profile import Profile
from companion.specs import Setting, label
from companion.statistics import Word

KNOBS = ("word_dropout", "report_rank", "lambda", "lora_rank")
AXES = ("labels", "passes", "label_noise", "pair_noise", "retriever", "lambda", "class_prompts")
RANDOM = "clip_it/random_reports"
# What a control is not changed by: without text there is no retriever, lambda, prompt or stage one,
# and random reports need no retriever and no prompts.
PAIRS = ("retriever", "class_prompts")
UNCHANGED = {"lora_only": ("lambda", "text_passes", *PAIRS), RANDOM: PAIRS}
# What stands on an axis, with its points by the name that they have there, each a setting.
Curves = Mapping[str, Mapping[str, str]]


def _panels(curves: Curves, ylabel: str) -> tuple[Figure, list[Axes]]:
    """Two panels per row, one per curve, with its points as ticks; one alone fills its row."""
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    size = 3.4 * max(columns, 1.4), 2.1 * rows + 0.4
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
    for axis, (title, points) in zip(axes.flat, curves.items(), strict=False):
        names = [point.replace("_", "\n") for point in points]  # retrievers' are long
        axis.set(xlabel=title, xticks=range(len(names)), xticklabels=names)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    figure.supylabel(ylabel, fontsize=9)
    return figure, list(axes.flat[: len(curves)])


def _line(axis: Axes, places: Sequence[float] | range, values: pd.Series, setting: str) -> None:
    """A line through values by name, at their places, where the names are numbers."""
    on = [_size((str(name), ""))[0] < float("inf") for name in values.index]
    axis.plot(np.array(places)[on], values[on], color=style.look(setting)[0], lw=1.2)


@style.styled()
def curves_figure(runs: pd.DataFrame, curves: Curves, levels: Sequence[str]) -> Figure:
    """One panel per curve: every seed and their mean; means of `levels` as dashed lines."""
    figure, axes = _panels(curves, "balanced accuracy (%)")
    found = runs.groupby("setting")["balanced_accuracy"]
    means = found.mean()
    for axis, points in zip(axes, curves.values(), strict=True):
        _line(axis, range(len(points)), means[[*points.values()]].set_axis([*points]), "clip_it")
        for place, setting in enumerate(points.values()):
            style.seeds(axis, found.get_group(setting), place, setting, upright=True)
        for level in levels:
            line = {"unimodal": ":", "lora_only": "--"}.get(level, "-.")
            own: dict[str, Any] = {"color": style.look(level)[0], "lw": 1.2, "ls": line}
            axis.axhline(means[level], **own, label=label(level))
    style.legend_below(figure, style.named(axes[0]))
    return figure


@style.styled()
def gain_curves_figure(gains: pd.DataFrame, curves: Curves) -> Figure:
    """The map: gain of CLIP-IT (95% interval) along each axis over each control.

    Args:
        gains: of `map_table`.
    """
    figure, axes = _panels(curves, "gain of CLIP-IT (points)")
    for axis, (title, points) in zip(axes, curves.items(), strict=True):
        for control, rows, off in style.dodged(gains[gains["axis"] == title], "control", 0.2):
            places = [[*points].index(point) + off for point in rows["point"]]
            said = f"over {label(control)}"
            style.forest(axis, rows, places, setting=control, label=said, upright=True)
            _line(axis, places, rows.set_index("point")["gain"], control)
        axis.axhline(0, color="black", lw=0.8)
    handles = [*style.named(axes[0]), *style.meanings(gains, by_filling=True)]
    style.legend_below(figure, handles, 5)
    return figure


def curves_along(names: Iterable[str], profile: Profile, changes: Iterable[str]) -> Curves:
    """CLIP-IT along each change that has points, ascending; the profile's own joins if asked."""
    known = {  # what stands on the axis, and the profile's own point
        "word_dropout": ("words dropped (%)", "0"),
        "report_rank": ("rank of the paired report", "1"),
        "lambda": ("λ", f"{profile.distillation_weight:g}"),
        "lora_rank": ("LoRA rank", str(profile.lora.rank)),
        "labels": ("labels per class", "all"),
        "passes": ("labels per class, in as many steps", "all"),
        "label_noise": ("wrong labels (%)", "0"),
        "pair_noise": ("labels of the next class (%)", "0"),
        "retriever": ("retriever", profile.retriever),
        "class_prompts": ("prompts of the right class (%)", ""),  # CLIP-IT's reports are none
    }
    settings = {name: Setting.of(name) for name in names}
    curves = {}
    for change in changes:
        title, own = known[change]
        point, alone = change, [{change}]
        if change == "passes":  # over few labels, so that training makes as many steps
            point, alone = "labels", [{"labels", "passes"}, {"labels", "passes", "text_passes"}]
        points = ({own: "clip_it"} if own and "clip_it" in settings else {}) | {
            setting.changes[point]: name
            for name, setting in settings.items()
            if setting.base == "clip_it" and {*setting.changes} in alone
        }
        curves[title] = dict(sorted(points.items(), key=_size))
        if change == "report_rank" and RANDOM in settings:
            curves[title]["random"] = RANDOM
    return {title: points for title, points in curves.items() if set(points.values()) - {"clip_it"}}


def _size(item: tuple[str, str]) -> tuple[float, str]:
    """Numbers by size, then everything else by name."""
    try:
        return float(item[0]), ""
    except ValueError:
        return float("inf"), item[0]


def map_table(stored: Sequence[StoredRun], axes: Curves) -> pd.DataFrame:
    """Gains at every point: axis, point, control, then the columns of `tables.gain_table`."""
    frames = []
    for axis, points in axes.items():
        for point, setting in points.items():
            changes = Setting.of(setting).changes
            for control, unchanged in UNCHANGED.items():
                kept = {name: value for name, value in changes.items() if name not in unchanged}
                first = str(Setting(control, kept))
                two = [run for run in stored if run.spec.setting in (first, setting)]
                gains = tables.gain_table(two, [(first, setting)])
                place = {"axis": axis, "point": point, "control": control}
                frames.append(pd.DataFrame(place, gains.index).join(gains))
    return pd.concat(frames, ignore_index=True)


@style.styled()
def shift_figure(accuracies: pd.DataFrame) -> Figure:
    """Balanced accuracy by the strength of each shift: means over seeds, one row per data set.

    Args:
        accuracies: of `shift.accuracy_table`.
    """
    kinds, datasets = (list(accuracies[name].unique()) for name in ("shift", "dataset"))
    size = (7.2, 0.6 + 1.9 * len(datasets))
    figure, axes = plt.subplots(
        len(datasets), len(kinds), figsize=size, sharex=True, sharey="row", squeeze=False
    )
    for (dataset, kind), rows in accuracies.groupby(["dataset", "shift"]):
        axis = axes[datasets.index(dataset), kinds.index(kind)]
        for setting, own in rows.groupby("setting", sort=False):
            colour, marker = style.look(str(setting))
            means = own.groupby("strength")["balanced_accuracy"].mean()
            axis.plot(means, color=colour, marker=marker, ms=4, lw=1.2, label=label(str(setting)))
        title = kind if dataset == datasets[0] else ""
        axis.set(title=title, xticks=sorted(own["strength"].unique()))
    for axis, dataset in zip(axes[:, 0], datasets, strict=True):
        axis.set_ylabel(f"{dataset}\nbalanced accuracy (%)")
    for axis in axes[-1]:
        axis.set_xlabel("strength (0: none)")
    style.legend_below(figure, style.named(axes[0, 0]))
    return figure


# -- The paper's numbers beside ours, claim by claim.

LOOKS = {
    Verdict.REPRODUCED: style.WORDS[Word.HELPS],
    Verdict.UNDECIDED: style.WORDS[Word.UNDECIDED],
    Verdict.NOT: style.WORDS[Word.HURTS],
    Verdict.UNTESTABLE: ("0.7", "", "none"),
}
CAPITALS = {"pcam": "PCAM", "bach": "BACH", "crc": "CRC", "lora": "LoRA"}


@style.styled()
def claims_figure(judged: Sequence[Judged], title: str) -> Figure:
    """One line per claim that is a difference in points; those not testable come last, in grey."""
    rows = ledger_table(judged).rename(columns={"ours": "gain", "verdict": "word", "paper": "said"})
    rows["paper"] = pd.Series([one.claim.paper_gain for one in judged], dtype=float)
    rows["one"] = pd.Series([*judged], dtype=object)
    rows = rows[[one.claim.in_points for one in judged]]
    rows = rows.dropna(subset=["gain", "paper"], how="all")
    rows = rows.sort_values("word", key=lambda word: word == Verdict.UNTESTABLE, kind="stable")
    figure, axis = plt.subplots(figsize=(6.4, 1.15 + 0.2 * max(len(rows), 2)))
    for line, one in enumerate(rows["one"]):
        claim = one.claim
        if claim.margin:  # what the rule tolerates: either side of zero, or below it
            width = 2 * claim.margin if claim.kind == "equal" else claim.margin
            place = (-claim.margin, line - 0.4)
            axis.add_patch(Rectangle(place, width, 0.8, fc="0.92", lw=0, zorder=0))
    style.forest(axis, rows, names=[*map(_name, rows["one"])], said=rows["word"], looks=LOOKS)
    axis.set_xlabel("points of balanced accuracy (95% interval)")
    more = f"{len(judged) - len(rows)} further claims have no such number: see the table"
    axis.set_title(f"{title}\n{more}")
    style.legend_below(figure, style.meanings(rows[rows["word"] != Verdict.UNTESTABLE], LOOKS))
    return figure


def _name(one: Judged) -> str:
    words = " ".join(CAPITALS.get(word, word) for word in one.claim.id.split("_"))
    return f"{words[0].upper()}{words[1:]} ({one.claim.where.split(',')[0]})"


# -- What the instrument sees: worlds with a known answer, and gains that were planted.

BARS = {str(word): colour for word, (colour, _, _) in style.WORDS.items()} | {"undecided": "0.85"}


@style.styled()
def known_figure(gains: pd.DataFrame, margin: float) -> Figure:
    """Gain over random reports: on the left by the share of pairs that are right, on the right of
    what else was put in their place, each with its word.

    Args:
        gains: of `power.over_random`.
    """
    curve, others = gains.dropna(subset=["right"]), gains[gains["right"].isna()]
    size = (7.2, 0.7 + 0.36 * max(len(others), 6))
    figure, (left, right) = plt.subplots(1, 2, figsize=size)
    left.axhspan(-margin, margin, color="0.93", lw=0, zorder=0)
    left.axhline(0, color="black", lw=0.8)
    left.plot([0, *curve["right"]], [0, *curve["gain"]], color=style.look("clip_it")[0], lw=1.2)
    colour, marker = style.look("clip_it/random_reports")
    style.marks(left, [0], 0, marker=marker, color=colour, ms=5.5)
    style.forest(left, curve, curve["right"].tolist(), setting="clip_it", upright=True)
    left.set(xlabel="patches paired with their own report (%)", xticks=[0, *curve["right"]],
             ylabel="gain over random reports\n(points, 95% interval)")  # fmt: skip
    right.axvspan(-margin, margin, color="0.93", lw=0, zorder=0)
    names = [fill(name, 24) for name in others["label"]]
    style.forest(right, others, names=names, said=others["word"])
    right.set_xlabel("gain over random reports (points)")
    style.legend_below(figure, style.meanings(gains))
    return figure


@style.styled()
def power_figure(judged: pd.DataFrame) -> Figure:
    """How often each word is given to a planted gain, one panel per design.

    Args:
        judged: of `power.judged`.
    """
    designs = list(judged.groupby(["seeds", "patients"]))
    figure, axes = plt.subplots(1, len(designs), figsize=(7.2, 2.4), sharey=True, squeeze=False)
    for axis, ((seeds, patients), rows) in zip(axes.flat, designs, strict=True):
        sns.histplot(
            rows.assign(planted=rows["planted"].map("{:g}".format)), x="planted", hue="word",
            hue_order=[*BARS][::-1], palette=BARS, multiple="fill", shrink=0.85, alpha=1, lw=0,
            legend=False, ax=axis,
        )  # fmt: skip
        axis.set(title=f"{seeds} seeds, {patients} patients", xlabel="planted gain (points)")
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
    axes[0, 0].set_ylabel("verdicts (%)")
    style.legend_below(figure, [Patch(color=each, label=word) for word, each in BARS.items()])
    return figure
