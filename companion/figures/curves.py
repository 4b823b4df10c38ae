"""How a result moves along one knob, and where text helps: CLIP-IT's gain over its controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.runs import StoredRun
from companion import tables
from companion.figures import style
from companion.profile import Profile
from companion.specs import Setting, label

KNOBS = ("word_dropout", "report_rank", "lambda", "lora_rank")
AXES = ("labels", "label_noise", "retriever", "lambda")  # of the map
RANDOM = "clip_it/random_reports"
# What a control is not changed by: a run without text has no retriever and no lambda, and random
# reports need no retriever.
UNCHANGED = {"lora_only": ("retriever", "lambda"), RANDOM: ("retriever",)}
# What stands on an axis, with its points by the name that they have there, each a setting.
Curves = Mapping[str, Mapping[str, str]]


def _panels(curves: Curves, ylabel: str) -> tuple[Figure, list[Axes]]:
    """Two panels per row, one per curve, with its points as ticks."""
    rows = -(-len(curves) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(6.8, 2.1 * rows + 0.4), squeeze=False, sharey=True
    )
    for axis, (title, points) in zip(axes.flat, curves.items(), strict=False):
        names = [point.replace("_", "\n") for point in points]  # retrievers' are long
        axis.set(xlabel=title, xticks=range(len(names)), xticklabels=names)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    figure.supylabel(ylabel, fontsize=9)
    return figure, list(axes.flat[: len(curves)])


def _line(axis: Axes, values: pd.Series, setting: str, shift: float = 0.0) -> None:
    """A line through values by name where the names are numbers, which come first."""
    numbers = sum(_size((str(name), ""))[0] < float("inf") for name in values.index)
    places = [place + shift for place in range(numbers)]
    axis.plot(places, values[:numbers], color=style.look(setting)[0], lw=1.2)


@style.styled()
def curves_figure(runs: pd.DataFrame, curves: Curves, levels: Sequence[str]) -> Figure:
    """One panel per curve: every seed and their mean; means of `levels` as dashed lines."""
    figure, axes = _panels(curves, "balanced accuracy (%)")
    found = runs.groupby("setting")["balanced_accuracy"]
    means = found.mean()
    for axis, points in zip(axes, curves.values(), strict=True):
        _line(axis, means[[*points.values()]].set_axis([*points]), "clip_it")
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
            _line(axis, rows.set_index("point")["gain"], control, off)
        axis.axhline(0, color="black", lw=0.8)
    handles = [*style.named(axes[0]), *style.meanings(gains, by_filling=True)]
    style.legend_below(figure, handles, 5)
    return figure


def curves_along(names: Iterable[str], profile: Profile, changes: Iterable[str]) -> Curves:
    """CLIP-IT along each change, in ascending order, with the profile's own point.

    Curves without a further point are left out.
    """
    known = {  # what stands on the axis, and the profile's own point
        "word_dropout": ("words dropped (%)", "0"),
        "report_rank": ("rank of the paired report", "1"),
        "lambda": ("λ", f"{profile.distillation_weight:g}"),
        "lora_rank": ("LoRA rank", str(profile.lora.rank)),
        "labels": ("labels per class", "all"),
        "label_noise": ("wrong labels (%)", "0"),
        "retriever": ("retriever", profile.retriever),
    }
    settings = {name: Setting.of(name) for name in names}
    curves = {}
    for change in changes:
        title, own = known[change]
        points = {own: "clip_it"} | {
            setting.changes[change]: name
            for name, setting in settings.items()
            if setting.base == "clip_it" and list(setting.changes) == [change]
        }
        curves[title] = dict(sorted(points.items(), key=_size))
        if change == "report_rank" and RANDOM in settings:
            curves[title]["random"] = RANDOM
    return {title: points for title, points in curves.items() if len(points) > 1}


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
        axis.set(
            title=kind if dataset == datasets[0] else "", xticks=sorted(own["strength"].unique())
        )
    for axis, dataset in zip(axes[:, 0], datasets, strict=True):
        axis.set_ylabel(f"{dataset}\nbalanced accuracy (%)")
    for axis in axes[-1]:
        axis.set_xlabel("strength (0: none)")
    style.legend_below(figure, style.named(axes[0, 0]))
    return figure
