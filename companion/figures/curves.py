"""Curves and maps of settings that differ in one value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.runs import StoredRun
from companion import tables
from companion.figures.style import COLOURS, MARKERS, beside, intervals, legend_below, styled
from companion.profile import Profile
from companion.specs import Setting, label

# -- How a result moves along one knob: words dropped, rank of the report, lambda, labels ...


@dataclass(frozen=True)
class Curve:
    """Settings along one axis: `points` maps what stands on the axis to a setting."""

    title: str
    points: Mapping[str, str]


def _panels(curves: Sequence[Curve], ylabel: str) -> tuple[Figure, list[Axes]]:
    """Two panels per row, one per curve, with its points as ticks."""
    rows = -(-len(curves) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(6.8, 2.1 * rows + 0.4), squeeze=False, sharey=True
    )
    for axis, curve in zip(axes.flat, curves, strict=False):
        names = [point.replace("_", "\n") for point in curve.points]  # retrievers' are long
        axis.set(xlabel=curve.title, xticks=range(len(names)), xticklabels=names)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    return figure, list(axes.flat[: len(curves)])


@styled()
def curves_figure(runs: pd.DataFrame, curves: Sequence[Curve], levels: Sequence[str]) -> Figure:
    """One panel per curve: every seed, the mean as a line; means of `levels` as dashed lines."""
    figure, axes = _panels(curves, "balanced accuracy (%)")
    found, colour = runs.groupby("setting")["balanced_accuracy"], COLOURS["clip_it"]
    for axis, curve in zip(axes, curves, strict=True):
        means = [found.get_group(setting).mean() for setting in curve.points.values()]
        axis.plot(means, "D-", ms=4, color=colour)
        for place, setting in enumerate(curve.points.values()):
            values = found.get_group(setting)
            axis.plot([place] * len(values), values, "o", ms=3, color=colour, alpha=0.5, mew=0)
        for level in levels:
            style = {"unimodal": ":", "lora_only": "--"}.get(level, "-.")
            look: dict[str, Any] = {"color": COLOURS[level], "lw": 1.2, "ls": style}
            axis.axhline(found.get_group(level).mean(), **look, label=label(level))
    legend_below(figure, axes[0].get_legend_handles_labels()[0], max(len(levels), 1))
    figure.tight_layout()
    return figure


@styled()
def gain_curves_figure(gains: pd.DataFrame, panels: Sequence[Curve]) -> Figure:
    """The map: gain of CLIP-IT (95% interval) along each axis, one line per control.

    Args:
        gains: of `map_table`.
    """
    figure, axes = _panels(panels, "gain of CLIP-IT (points)")
    for axis, panel in zip(axes, panels, strict=True):
        places = list(panel.points)
        controls = list(gains[gains["axis"] == panel.title].groupby("control", sort=False))
        for (control, rows), shift in zip(controls, beside(len(controls), 0.16), strict=True):
            intervals(
                axis, rows, [places.index(point) + shift for point in rows["point"]],
                upright=True, ls="-", lw=1.2, ms=4, mfc="white", color=COLOURS[str(control)],
                marker=MARKERS[str(control)], label=f"over {label(str(control))}",
            )  # fmt: skip
        axis.axhline(0, color="black", lw=0.8)
    legend_below(figure, axes[0].get_legend_handles_labels()[0], 2)
    figure.tight_layout()
    return figure


def knobs(runs: pd.DataFrame, profile: Profile) -> list[Curve]:
    """Words dropped, rank of the report, lambda and LoRA rank, each with the profile's own point.

    Curves without a further point are left out.
    """
    names = set(runs["setting"])
    further = {"random": RANDOM} if RANDOM in names else {}
    curves = [
        curve(names, "words dropped (%)", "word_dropout", "0"),
        curve(names, "rank of the paired report", "report_rank", "1", further),
        curve(names, "λ", "lambda", f"{profile.distillation_weight:g}"),
        curve(names, "LoRA rank", "lora_rank", str(profile.lora.rank)),
    ]
    return [each for each in curves if len(each.points) > 1]


def curve(
    names: Iterable[str], title: str, change: str, own: str, further: Mapping[str, str] = {}
) -> Curve:
    """CLIP-IT along one change, in ascending order; `own` is the profile's value of it."""
    points = {own: "clip_it"}
    for name in names:
        setting = Setting.of(name)
        if setting.base == "clip_it" and list(setting.changes) == [change]:
            points[setting.changes[change]] = name
    return Curve(title, dict(sorted(points.items(), key=_size)) | dict(further))


def _size(item: tuple[str, str]) -> tuple[float, str]:
    """Numbers by size, then everything else by name."""
    try:
        return float(item[0]), ""
    except ValueError:
        return float("inf"), item[0]


# -- Where text helps: the gain of CLIP-IT over its controls along four axes.


RANDOM = "clip_it/random_reports"
# What a control is not changed by: a run without text has no retriever and no lambda, and random
# reports need no retriever.
UNCHANGED = {"lora_only": ("retriever", "lambda"), RANDOM: ("retriever",)}


def axes_of(stored: Sequence[StoredRun], profile: Profile) -> list[Curve]:
    """The axes with the points that were run, the profile's own point among them."""
    names = {run.spec.setting for run in stored}
    axes = [
        curve(names, "labels per class", "labels", "all"),
        curve(names, "wrong labels (%)", "label_noise", "0"),
        curve(names, "retriever", "retriever", profile.retriever),
        curve(names, "λ", "lambda", f"{profile.distillation_weight:g}"),
    ]
    return [axis for axis in axes if len(axis.points) > 1]


def map_table(stored: Sequence[StoredRun], axes: Sequence[Curve], draws: int) -> pd.DataFrame:
    """Gains at every point: axis, point, control, then the columns of `tables.gain_table`."""
    frames = []
    for axis in axes:
        for point, setting in axis.points.items():
            changes = Setting.of(setting).changes
            for control, unchanged in UNCHANGED.items():
                kept = {name: value for name, value in changes.items() if name not in unchanged}
                first = str(Setting(control, kept))
                two = [run for run in stored if run.spec.setting in (first, setting)]
                gains = tables.gain_table(two, [(first, setting)], draws)
                place = {"axis": axis.title, "point": point, "control": control}
                frames.append(pd.DataFrame(place, gains.index).join(gains))
    return pd.concat(frames, ignore_index=True)
