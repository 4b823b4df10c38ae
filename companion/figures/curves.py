"""Curves and maps of settings that differ in one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.runs import StoredRun
from companion import tables
from companion.figures.style import COLOURS, MARKERS, styled
from companion.profile import Profile
from companion.specs import label

# -- How a result moves along one knob: words dropped, rank of the report, lambda, labels ...


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


# -- The curves of the ablations, from the settings that were run.


def knobs(runs: pd.DataFrame, profile: Profile) -> list[Curve]:
    """Words dropped, rank of the report, lambda and LoRA rank, each with the profile's own point.

    Curves without a further point are left out.
    """
    names = set(runs["setting"])
    curves = [
        curve(names, "words dropped (%)", "word_dropout", "0"),
        curve(names, "rank of the paired report", "report_rank", "1"),
        curve(names, "λ", "lambda", f"{profile.distillation_weight:g}"),
        curve(names, "LoRA rank", "lora_rank", str(profile.lora.rank)),
    ]
    if "clip_it/random_reports" in names:
        ranks = curves[1]
        points = {**ranks.points, "random": "clip_it/random_reports"}
        curves[1] = Curve(ranks.title, points)
    return [each for each in curves if len(each.points) > 1]


def curve(names: set[str], title: str, change: str, own: str) -> Curve:
    """CLIP-IT along one change, in ascending order; `own` is the profile's value of it."""
    whole = f"clip_it/{change}_"
    points = {name.removeprefix(whole): name for name in names if name.startswith(whole)}
    points[own] = "clip_it"
    return Curve(title, dict(sorted(points.items(), key=_size)))


def _size(item: tuple[str, str]) -> tuple[float, str]:
    """Numbers by size, then everything else by name."""
    try:
        return float(item[0]), ""
    except ValueError:
        return float("inf"), item[0]


# -- Where text helps: the gain of CLIP-IT over its controls along four axes.


CONTROLS = ("lora_only", "clip_it/random_reports")
# What a control is not changed by: a run without text has no retriever and no lambda, and random
# reports need no retriever.
UNCHANGED = {"lora_only": ("retriever", "lambda"), "clip_it/random_reports": ("retriever",)}


def axes_of(stored: Sequence[StoredRun], profile: Profile) -> list[Curve]:
    """The axes with the points that were run, the profile's own point among them."""
    names = {run.spec.setting for run in stored}
    axes = [
        curve(names, "labels a class", "labels", "all"),
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
            for control in CONTROLS:
                first = _changed(control, setting)
                two = [run for run in stored if run.spec.setting in (first, setting)]
                gains = tables.gain_table(two, [(first, setting)], draws)
                frames.append(gains.assign(axis=axis.title, point=point, control=control))
    columns = ["axis", "point", "control"]
    frame = pd.concat(frames, ignore_index=True)
    return frame[columns + [name for name in frame.columns if name not in columns]]


def _changed(control: str, setting: str) -> str:
    """The control with the same change as `setting`, unless that changes nothing for it."""
    part = setting.removeprefix("clip_it").removeprefix("/")
    unchanged = any(part.startswith(f"{name}_") for name in UNCHANGED[control])
    return control if not part or unchanged else f"{control}/{part}"
