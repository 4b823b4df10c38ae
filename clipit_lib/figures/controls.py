"""What each step from the probe to CLIP-IT adds."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.decomposition import STEPS, WHOLE
from clipit_lib.figures.style import CYCLE, styled
from clipit_lib.statistics import Interval

LINE, HEAD = 0.26, 0.85  # inches


def controls_figure(found: pd.DataFrame) -> Figure:
    """One panel a cell: bars that follow each other from 0 to the whole gain, 95% intervals."""
    cells = list(found.groupby(["dataset", "backbone"], sort=False))
    height = len(cells) * (HEAD + LINE * (len(STEPS) + 1))
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
