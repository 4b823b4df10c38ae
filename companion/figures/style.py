"""One look for every figure: readable at column width, safe for colour-blind readers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.files import written_beside
from companion import paths
from companion.tables import doubtful, write_runs

# Okabe and Ito; markers differ too, so that nothing rests on colour alone.
LOOKS = {
    "unimodal": ("#6E6E6E", "o"),
    "lora_only": ("#E69F00", "s"),
    "clip_it": ("#0072B2", "D"),
    "clip_it/architecture_only": ("#009E73", "^"),
    "clip_it/random_reports": ("#CC79A7", "v"),
}
COLOURS = {setting: colour for setting, (colour, _) in LOOKS.items()}
MARKERS = {setting: marker for setting, (_, marker) in LOOKS.items()}
# For what is no setting: colours and markers of up to seven things, in this order.
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6E6E6E")
MARKER_CYCLE = ("o", "s", "D", "^", "v", "P", "X")
USUAL = "DejaVu Sans"  # which comes with matplotlib
STYLE: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper"),
    "font.size": 9,
    "font.sans-serif": mpl.rcParamsDefault["font.sans-serif"],  # metrics are those of its first
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handletextpad": 0.3,
    "legend.columnspacing": 1.2,
    "errorbar.capsize": 2,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "svg.hashsalt": "clip-it",
    "svg.fonttype": "none",
}


@contextmanager
def styled() -> Iterator[None]:
    """The look, within a block or, as a decorator, within a function."""
    with plt.rc_context(STYLE):
        yield


def plain(text: str) -> str:
    """Text from data: a dollar sign starts no formula, what no font has is shown by its number."""
    shown = "".join(c if _family(c) else ascii(c)[1:-1] for c in text)
    return shown.replace("$", r"\$")


def have_fonts_for(texts: Iterable[str]) -> None:
    """Within `styled`: fonts for what the usual one lacks of texts from data, if there are any."""
    families = {_family(character) for text in texts for character in text}
    if "" in families:
        said = "no installed font has all characters of the names: install, say, Noto Sans CJK"
        logging.getLogger(__name__).warning(said)
    mpl.rcParams["font.family"] = [*mpl.rcParams["font.family"], *sorted(families - {"", USUAL})]


@cache
def _family(character: str) -> str:
    """A family of fonts that has a character, the usual one before all others, or ""."""
    fonts = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if (font.style, font.weight) == ("normal", 400) and "Last Resort" not in font.name
    }
    for name in sorted(fonts, key=lambda name: (name != USUAL, "Sans" not in name, name)):
        face = font_manager.get_font(fonts[name])
        if not character.isprintable() or face.get_char_index(ord(character)):
            return name
    return ""


# -- What several figures draw.


Place = int | float  # on an axis; the run-time check takes no int for a float
Panels = tuple[Figure, np.ndarray]  # a figure and its axes, row by row


def named_lines(axis: Axes, names: Sequence[str]) -> None:
    """One line of the axis a name, from the top."""
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axis.tick_params(axis="y", length=0)


def paired_panels(heights: Sequence[float], ratio: float, more: float = 0.0) -> Panels:
    """Rows of two panels, of these heights and `more` in all, in inches.

    Args:
        ratio: width of the left panel over that of the right one.
    """
    return plt.subplots(
        len(heights), 2, figsize=(7.2, sum(heights) + more), squeeze=False,
        height_ratios=heights, width_ratios=[ratio, 1],
    )  # fmt: skip


def beside(count: int, step: float) -> list[float]:
    """Where things of one place stand beside each other, around it."""
    return [step * (number - (count - 1) / 2) for number in range(count)]


def seeds(
    axis: Axes, values: pd.Series, at: Place, colour: str, marker: str = "D", label: str = ""
) -> None:
    """The mean as a large mark on a line, each seed as a small one."""
    look: dict[str, Any] = {"color": colour, "marker": marker, "ls": ""}
    axis.plot(values, [at] * len(values), **look, ms=3, alpha=0.5, mew=0)
    axis.plot([values.mean()], [at], **look, ms=5.5, label=label)


def intervals(
    axis: Axes, rows: pd.DataFrame, at: Sequence[Place], value: str = "gain", upright: bool = False,
    **look: Any,
) -> None:  # fmt: skip
    """The estimates in `rows`, each with the ends low and high, at places of the other axis."""
    middle = rows[value].to_numpy(dtype=float)
    error = np.abs(rows[["low", "high"]].to_numpy(dtype=float).T - middle)
    drawn: dict[str, Any] = {"ls": "", "lw": 1.3, "ms": 5, **look}
    if upright:
        axis.errorbar(at, middle, yerr=error, **drawn)
    else:
        axis.errorbar(middle, at, xerr=error, **drawn)


def zero(axis: Axes) -> None:
    axis.axvline(0, color="black", lw=0.8, zorder=1)


def on_line(axis: Axes, line: Place, words: str, at: float = 1.02, **look: Any) -> None:
    """Words on a line, by default right of the axis, which spans 0 to 1."""
    look = {"va": "center", "fontsize": 8, "color": "black", **look}
    axis.text(at, line, words, transform=axis.get_yaxis_transform(), **look)


def named(axes: Iterable[Axes]) -> list[Any]:
    """What has a name on some axes, each name once: of an axis artists, then error bars."""
    found = (each for axis in axes for each in axis.get_legend_handles_labels()[0])
    return list({each.get_label(): each for each in found}.values())


def legend_below(figure: Figure, handles: list[Any], columns: int, **look: Any) -> None:
    """A legend of artists and error bars under all axes."""
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    figure.legend(handles=handles, ncols=columns, **place, **look)


def save(figure: Figure, profile: str, name: str, runs: Sequence[str] = ()) -> Path:
    """Write NAME.png, NAME.svg and the run keys behind them; return the png's path.

    Below the figure stands how many of the runs have a doubtful course.
    """
    folder = paths.figures(profile)
    if said := doubtful(profile, runs, listed=False):
        bottom = figure.get_tightbbox().y0 / figure.get_figheight()  # of a legend, if there is one
        figure.text(0, bottom - 0.02, said, fontsize=7, color="#D55E00", va="top")
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        with written_beside(folder / f"{name}{suffix}") as temporary, styled():
            figure.savefig(temporary, format=suffix[1:], bbox_inches="tight", metadata=metadata)
    write_runs(folder, name, runs)
    plt.close(figure)
    return folder / f"{name}.png"
