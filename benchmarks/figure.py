"""Every benchmark against its goal, in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.table import goal as goal_of
from benchmarks.table import number
from clipit_lib.files import written_beside
from companion import paths
from companion.figures.style import CYCLE, STYLE, styled

MET, MISSED = CYCLE[0], CYCLE[5]
REACH = 30.0  # further off the goal than this is drawn as an arrow at the edge


def benchmarks_figure(table: pd.DataFrame) -> Figure:
    """One row a benchmark with a goal: how many times better than its goal it is.

    Right of the line the goal is met (filled circle), left of it missed (open square).
    """
    rows = table[table["goal"].notna()].to_dict("records")
    with styled():
        figure, axis = plt.subplots(figsize=(7.2, 0.9 + 0.25 * len(rows)))
        axis.axvline(1, color="black", lw=0.8, zorder=0)
        for height, row in enumerate(rows):
            met, colour = row["met"] == "yes", MET if row["met"] == "yes" else MISSED
            low, value, high = (margin(row, row[name]) for name in ("low", "ratio", "high"))
            axis.hlines(
                height, *np.clip(sorted((low, high)), 1 / REACH, REACH), color=colour, lw=1.3
            )
            inside = 1 / REACH < value < REACH
            marker = ("o" if met else "s") if inside else (">" if value > 1 else "<")
            axis.plot(
                np.clip(value, 1 / REACH, REACH), height, marker, color=colour, ms=5,
                mfc=colour if met else "white", clip_on=False, zorder=3,
            )  # fmt: skip
            axis.text(
                1.02, height, f"{number(row['ratio'])}  ({goal_of(row)})", va="center", fontsize=8,
                transform=axis.get_yaxis_transform(),
            )  # fmt: skip
        axis.set(xscale="log", xlim=(1 / REACH, REACH), ylim=(len(rows) - 0.4, -0.6),
                 xlabel="times better than the goal (log)")  # fmt: skip
        axis.set_xticks([0.1, 0.3, 1, 3, 10])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_yticks(range(len(rows)), [row["name"].replace("_", " ") for row in rows])
        axis.tick_params(axis="y", length=0, labelsize=8)
        axis.text(1.02, -0.9, "ratio  (goal)", fontsize=8, transform=axis.get_yaxis_transform())
        handles = [
            Line2D([], [], ls="", marker="o", color=MET, label="goal met"),
            Line2D([], [], ls="", marker="s", color=MISSED, mfc="white", label="goal missed"),
        ]
        axis.legend(
            handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=8,
            handletextpad=0.1,
        )  # fmt: skip
    return figure


def margin(row: Mapping[Any, Any], value: float) -> float:
    """`value` over the goal, or the goal over it where less is better: above 1 is better."""
    value, goal = max(value, 1e-30), float(row["goal"])  # a difference may be zero
    return value / goal if row["sense"] == "at_least" else goal / value


def save(figure: Figure, name: str) -> Path:
    """Write NAME.png and NAME.svg; return the png's path."""
    place = paths.output() / "figures"
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        with written_beside(place / f"{name}{suffix}") as temporary, plt.rc_context(STYLE):
            figure.savefig(temporary, format=suffix[1:], bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return place / f"{name}.png"
