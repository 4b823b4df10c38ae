"""Figures 6 and 7: feature spaces without and with LoRA, each beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clipit_lib.figures.style import plain, styled

# Nine things told apart (the largest data set has nine classes); markers differ too.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6E6E6E", "#000000",
    "#B8A800",
)  # fmt: skip
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<")


@dataclass(frozen=True)
class Panel:
    """One space of one setting.

    Attributes:
        plane: [m, 2], t-SNE coordinates.
        note: its numbers, measured in the original space.
    """

    setting: str
    space: str
    plane: np.ndarray
    note: str


def space_figure(
    panels: Sequence[Panel], labels: np.ndarray, classes: Sequence[str], caption: str
) -> Figure:
    """One row a setting, one column a space; `labels` [m] number the classes."""
    settings = list(dict.fromkeys(panel.setting for panel in panels))
    spaces = list(dict.fromkeys(panel.space for panel in panels))
    with styled():
        shape = (len(settings), len(spaces))
        figure, axes = plt.subplots(*shape, figsize=(7.2, 2.25 * shape[0] + 0.4), squeeze=False)
        for panel in panels:
            axis = axes[settings.index(panel.setting), spaces.index(panel.space)]
            _scatter(axis, panel.plane, labels)
            axis.set_xlabel(panel.note, fontsize=8, loc="left")
        for axis, space in zip(axes[0], spaces, strict=True):
            axis.set_title(space, fontsize=9)
        for axis, setting in zip(axes[:, 0], settings, strict=True):
            axis.set_ylabel(setting, fontsize=9)
        handles = [
            Line2D([], [], ls="", ms=5, mfc="none", color=_colour(c), marker=_marker(c), label=name)
            for c, name in enumerate(map(plain, classes))
        ]
        columns = min(len(classes), 4)
        figure.legend(
            handles=handles, loc="upper center", ncols=columns, bbox_to_anchor=(0.5, 0.0),
            fontsize=8, columnspacing=1.2, handletextpad=0.2, title=caption, title_fontsize=8,
        )  # fmt: skip
        figure.tight_layout()
    return figure


def _scatter(axis: Axes, plane: np.ndarray, labels: np.ndarray) -> None:
    for label in np.unique(labels):
        own = plane[labels == label]
        # Hollow, so that a patch of another class at the same place is seen.
        look: dict[str, Any] = {
            "facecolors": "none",
            "edgecolors": _colour(label),
            "marker": _marker(label),
        }
        axis.scatter(own[:, 0], own[:, 1], **look, s=10, lw=0.7)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.8)


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def _marker(label: int) -> str:
    return MARKERS[label % len(MARKERS)]
