"""One look for every figure: readable at column width, safe for colour-blind readers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.text import Text

from clipit_lib.files import written_beside
from clipit_lib.settings import Strict
from companion import paths, rehearsal
from companion.reading import read_strict
from companion.specs import Setting
from companion.statistics import Word
from companion.tables import doubtful, write_runs


class _Looks(Strict):
    """Colours, markers and fillings, as style.yaml explains."""

    settings: dict[str, tuple[str, str]]
    other: tuple[str, str]
    words: dict[Word, tuple[str, str, str]]
    hues: tuple[str, ...]
    cycle: tuple[str, ...]
    markers: tuple[str, ...]
    cited: tuple[str, ...]


_READ: _Looks = read_strict(Path(__file__).with_suffix(".yaml"), _Looks)
LOOKS, OTHER, WORDS = _READ.settings, _READ.other, _READ.words
HUES, CYCLE, MARKER_CYCLE = _READ.hues, _READ.cycle, _READ.markers
PAPER: dict[str, Any] = {"marker": "*", "ms": 8, "mew": 0.9, "mfc": "none", "color": "black"}
USUAL = "DejaVu Sans"  # which comes with matplotlib
STYLE: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper"),
    **mpl.rc_params_from_file(Path(__file__).with_suffix(".mplstyle"), use_default_template=False),
    "font.sans-serif": mpl.rcParamsDefault["font.sans-serif"],  # metrics are those of its first
    "axes.prop_cycle": cycler(color=HUES),
}


@contextmanager
def styled(constrained: bool = True) -> Iterator[None]:
    """The look, within a block or, as a decorator, within a function.

    Args:
        constrained: leave the layout to matplotlib.
    """
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": constrained}):
        yield


def look(setting: str) -> tuple[str, str]:
    """Colour and marker of a setting: those of CLIP-IT whatever its λ, a CLIP's by any prompts."""
    base = Setting.of(setting).base
    return LOOKS.get(base if base.startswith("clip_it") else base.split("/")[0], OTHER)


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

Place = float | int | np.number  # on an axis; the run-time check takes none for another
Panels = tuple[Figure, np.ndarray]  # a figure and its axes, row by row


def named_lines(axis: Axes, names: Sequence[str]) -> None:
    """One line of the axis per name, from the top."""
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axis.tick_params(axis="y", length=0)


def paired_panels(names: Sequence[Sequence[str]], line: float, ratio: float) -> Panels:
    """Rows of two panels, both with these named lines; those on the right share one scale.

    Args:
        line: height of a line, in inches.
        ratio: width of the left panel over that of the right one.
    """
    heights = [0.75 + line * len(each) for each in names]
    figure, axes = plt.subplots(
        len(names), 2, figsize=(7.2, sum(heights) + 0.5), squeeze=False,
        height_ratios=heights, width_ratios=[ratio, 1],
    )  # fmt: skip
    for (left, right), each in zip(axes, names, strict=True):
        named_lines(left, each)
        named_lines(right, each)
        right.tick_params(labelleft=False)
        zero(right)
        if right is not axes[0, 1]:
            right.sharex(axes[0, 1])
    return figure, axes


def dodged(rows: pd.DataFrame, column: str, step: float) -> list[tuple[str, pd.DataFrame, float]]:
    """Each value of a column with its rows, and where it stands beside the others."""
    groups = list(rows.groupby(column, sort=False))
    first = step * (1 - len(groups)) / 2
    return [(str(name), own, first + step * n) for n, (name, own) in enumerate(groups)]


def marks(
    axis: Axes, values: Sequence[Place], at: Place, upright: bool = False, **own: Any
) -> None:
    """Values at one place of the other axis, which is the upper one unless `upright`."""
    line = (values, [at] * len(values))
    axis.plot(*(line[::-1] if upright else line), **{"ls": "", **own})


def seeds(
    axis: Axes, values: pd.Series, at: Place, setting: str, label: str = "", upright: bool = False
) -> None:
    """The mean as a large mark, each seed as a small one, in the colour of a setting."""
    colour, marker = look(setting)
    own: dict[str, Any] = {"upright": upright, "color": colour, "marker": marker}
    marks(axis, values.tolist(), at, **own, ms=3, alpha=0.5, mew=0)
    marks(axis, [values.mean()], at, **own, ms=5.5, label=label)


Looks = Mapping[Any, tuple[str, str, str]]


def forest(
    axis: Axes, rows: pd.DataFrame, at: Sequence[Place] = (), value: str = "gain", *,
    setting: str = "", label: str = "", names: Sequence[str] = (), said: Iterable[str] = (),
    looks: Looks = WORDS, upright: bool = False,
) -> None:  # fmt: skip
    """Estimates with their ends low and high at places of the other axis (by default one per line),
    each marked by its column `word`, or filled; a hollow star is what the paper prints (`paper`).

    Args:
        setting: whose colour and marker all have; they are filled as their words say.
        names, said: left and right of each line; with names comes a line at zero.
    """
    if names:
        named_lines(axis, names)
        zero(axis)
    places, texts = at or range(len(rows)), [*said] or [""] * len(rows)
    for place, text, (_, row) in zip(places, texts, rows.iterrows(), strict=True):
        colour, marker, filled = looks[row.get("word", Word.HELPS)]
        if setting:
            colour, marker = look(setting)
        own: dict[str, Any] = {"color": colour, "marker": marker, "fillstyle": filled, "ms": 5}
        marks(axis, [row["low"], row["high"]], place, upright, color=colour, ls="-", lw=1.3)
        marks(axis, [row[value]], place, upright, **own)
        marks(axis, [row.get("paper", np.nan)], place, upright, zorder=4, **PAPER)
        if text:
            on_line(axis, place, text, color=colour)
    if label:  # filled in the legend, whatever the words are
        colour, marker = look(setting)
        marks(axis, [], 0, color=colour, marker=marker, ms=5, label=label)


def meanings(rows: pd.DataFrame, looks: Looks = WORDS, by_filling: bool = False) -> list[Line2D]:
    """For a legend: the words that some rows have, and the paper's mark if it is there.

    Args:
        by_filling: colours and markers say something else.
    """
    shown: dict[Any, str] = {}
    for word in (each for each in looks if each in set(rows.get("word", ()))):
        key = ("black", "D", looks[word][2]) if by_filling else looks[word]
        shown[key] = f"{shown[key]} or {word}" if key in shown else str(word)
    handles = [
        Line2D([], [], color=colour, marker=marker, fillstyle=filled, ms=5, ls="", label=said)
        for (colour, marker, filled), said in shown.items()
    ]
    if rows.get("paper", pd.Series(dtype=float)).notna().any():
        handles.append(Line2D([], [], ls="", label="paper", **PAPER))
    return handles


def zero(axis: Axes) -> None:
    axis.axvline(0, color="black", lw=0.8, zorder=1)


def on_line(axis: Axes, line: Place, words: str, at: float = 1.02, **own: Any) -> None:
    """Words on a line, by default right of the axis, which spans 0 to 1."""
    own = {"va": "center", "fontsize": 8, "color": "black", **own}
    axis.text(at, float(line), words, transform=axis.get_yaxis_transform(), **own)


def named(*axes: Axes) -> list[Any]:
    """What has a name on some axes, each name once."""
    found = (each for axis in axes for each in axis.get_legend_handles_labels()[0])
    return list({each.get_label(): each for each in found}.values())


def legend_below(figure: Figure, handles: list[Any], columns: int = 4, **own: Any) -> None:
    """A legend under all axes."""
    figure.legend(handles=handles, ncols=columns, loc="outside lower center", **own)


# -- Keeping a figure.

COLUMN = 85 / 25.4  # inches: the width of a journal's column
SMALLEST = 7  # points of text that is to be read there
LETTERS = 22  # of a name on its axis, before it goes on in another line


def save(figure: Figure, profile: str, name: str, runs: Sequence[str] = ()) -> Path:
    """Write NAME.png, NAME.svg and the run keys behind them; return the png's path.

    What is cited is written as NAME_85mm.pdf too. Above the figure stands how many of the runs
    have a doubtful course.
    """
    path = paths.figures(profile) / f"{name}.png"
    said = doubtful(profile, runs, listed=False)
    if rehearsal.named(profile):
        said = f"A rehearsal, no result. {said}"
    if said:
        # Above: what is below would meet a legend, which moves with the figure's lower edge.
        figure.text(0, 1.01, said, fontsize=SMALLEST, color=HUES[2], va="bottom")
    write(figure, path.with_suffix(".svg"))
    write(figure, path)
    if name in _READ.cited:
        in_a_column(figure)
        write(figure, path.with_name(f"{name}_85mm.pdf"))
    write_runs(path.parent, name, runs)
    plt.close(figure)
    return path


def write(figure: Figure, path: Path) -> None:
    """Write a figure as its file's ending says, without what changes from one time to the next."""
    kind = path.suffix[1:].lower()
    changing = {"svg": "Date", "png": "Software", "pdf": "CreationDate"}.get(kind)
    options: dict[str, Any] = {"metadata": {changing: None}} if changing else {}
    with written_beside(path) as temporary, styled():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it would be laid out anew each time it is drawn
        figure.savefig(temporary, format=kind, bbox_inches="tight", **options)
        if kind == "svg":  # the last bit of the layout names clips and signs zeros
            text = re.sub(r"(?<=[ \"])-0(?=[ \"\n])", "0", temporary.read_text(encoding="utf-8"))
            for number, name in enumerate(re.findall(r'<clipPath id="(\w+)"', text)):
                text = text.replace(name, f"clip{number}")
            temporary.write_text(text, encoding="utf-8")


@styled()
def in_a_column(figure: Figure) -> None:
    """Make it as wide as a column: its panels below each other, all text of one size."""
    place = figure.axes[0].get_subplotspec()
    assert place is not None
    shape = place.get_gridspec().get_geometry()
    grid = np.array(figure.axes, object).reshape(shape)
    if shape[1] == 2:  # what was beside a panel stands below all panels of its kind
        for left, right in grid:
            right.set_title(right.get_title(loc="left") or left.get_title(loc="left"), loc="left")
        grid = np.array([[axis] for axis in grid.T.flat if axis.axison], object)
    elif shape[1] > 2:
        grid = grid.T
    tall = []
    for axis in grid[:, 0]:
        axis.tick_params(labelleft=True)
        names = [fill(text.get_text(), LETTERS) for text in axis.get_yticklabels()]
        tall.append(0.35 + min(1.9, axis.bbox.height / figure.dpi))
        if max(map(len, names), default=0) > 6:  # no numbers: each has a line of the axis
            axis.set_yticklabels(names)
            lines = max(name.count("\n") + 1 for name in names)
            tall[-1] = max(tall[-1], 0.6 + 0.12 * lines * len(names))
    places = GridSpec(len(grid), grid.shape[1], figure, height_ratios=tall)
    for number, axis in enumerate(grid.flat):
        axis.set_subplotspec(places[number])
        axis.tick_params(labelsize=SMALLEST)
    for legend in [*figure.legends]:
        legend.remove()
        legend_below(figure, legend.legend_handles, 2)
        tall.append(0.17 * -(-len(legend.legend_handles) // 2))
    for text in figure.findobj(Text):
        text.set_fontsize(SMALLEST)
    figure.set_size_inches(COLUMN, sum(tall))
    figure.set_layout_engine("constrained")
