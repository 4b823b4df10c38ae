"""Figures of patches, pairs, embedding spaces, reports and large images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from clipit_lib.data.patches import PatchDataset
from clipit_lib.pairing import Pairs, effective_number
from companion.figures import style
from companion.measures import Distillation

# -- Figures 6 and 7: feature spaces without and with LoRA, each beside its numbers.

# By setting and space: t-SNE coordinates [m, 2], and numbers measured in the original space.
Planes = Mapping[tuple[str, str], tuple[np.ndarray, str]]


@style.styled()
def space_figure(
    planes: Planes, labels: np.ndarray, classes: Sequence[str], caption: str
) -> Figure:
    """One row per setting, one column per space; `labels` [m] number the classes."""
    style.have_fonts_for(classes)
    settings, spaces = (list(dict.fromkeys(names)) for names in zip(*planes, strict=True))
    shape = (len(settings), len(spaces))
    figure, axes = plt.subplots(*shape, figsize=(7.2, 2.25 * shape[0] + 0.4), squeeze=False)
    looks: list[dict[str, Any]] = [
        {"color": style.CYCLE[k % 9], "mfc": "none", "ls": "", "mew": 0.7,
         "marker": style.MARKER_CYCLE[k % 9]}
        for k in range(len(classes))
    ]  # fmt: skip
    for (setting, space), (plane, note) in planes.items():
        axis = axes[settings.index(setting), spaces.index(space)]
        for label in np.unique(labels):  # hollow, so that another class at the place is seen
            axis.plot(*plane[labels == label].T, **looks[label], ms=3)
        axis.set_xlabel(note, fontsize=8, loc="left")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.8)
    for axis, space in zip(axes[0], spaces, strict=True):
        axis.set_title(space)
    for axis, setting in zip(axes[:, 0], settings, strict=True):
        axis.set_ylabel(setting)
    handles = [
        Line2D([], [], **look, ms=5, label=style.plain(name))
        for look, name in zip(looks, classes, strict=True)
    ]
    style.legend_below(figure, handles, min(len(classes), 4), title=caption, title_fontsize=8)
    return figure


@style.styled(constrained=False)
def contact_sheet(dataset: PatchDataset, columns: int = 8) -> Figure:
    """Random training patches, one row per class."""
    style.have_fonts_for(dataset.classes)
    rng, train, rows = np.random.default_rng(0), dataset.indices("train"), len(dataset.classes)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 0.85, rows * 0.9))
    for number, name in enumerate(dataset.classes):
        own = train[dataset.labels[train] == number]
        chosen = rng.choice(own, size=min(columns, len(own)), replace=False)
        for axis, row in zip(axes[number], chosen, strict=False):
            axis.imshow(dataset.pixels[row])
        axes[number, 0].set_ylabel(style.plain(name), rotation=0, ha="right", va="center")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.subplots_adjust(wspace=0.04, hspace=0.04)
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


@style.styled(constrained=False)
def pair_sheet(
    dataset: PatchDataset, rows: np.ndarray, texts: list[str], notes: list[str]
) -> Figure:
    """Patches beside the beginning of their paired reports."""
    style.have_fonts_for([*texts, *notes])
    figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 1.15 * len(rows)), squeeze=False)
    for axis, row, text, note in zip(axes[:, 0], rows, texts, notes, strict=True):
        axis.imshow(dataset.pixels[row], extent=(0, 1, 0, 1))
        axis.set(xlim=(0, 6.4), ylim=(0, 1), aspect="equal")
        axis.axis("off")
        axis.text(1.12, 0.98, style.plain(note), va="top", fontweight="bold", fontsize=8)
        axis.text(1.12, 0.8, _opening(text, 300, 88), va="top", fontsize=7)
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


def _opening(text: str, most: int, width: int) -> str:
    """The beginning of a report, in lines."""
    return textwrap.fill(style.plain(textwrap.shorten(text, most, placeholder=" …")), width)


@style.styled()
def pairing_figure(pairs: Pairs, reports: int, title: str) -> Figure:
    """Patches served by the reports that are chosen most. Similarity: `text_statistics_figure`."""
    chosen = pairs.reports[:, 0]
    counts = np.sort(np.bincount(chosen, minlength=reports))[::-1]
    effective = effective_number(chosen)
    figure, axis = plt.subplots(figsize=(3.6, 2.5))
    served = 100 * counts.cumsum() / counts.sum()
    axis.plot(np.arange(1, reports + 1), served)
    axis.axvline(effective, color="0.45", lw=1, ls="--")
    axis.text(effective * 1.1, 5, f"effective number {effective:.0f}", color="0.45")
    axis.set(xscale="log", ylim=(0, 105), xlabel="reports, most used first", title=title)
    axis.set_ylabel("patches served (%)")
    return figure


# -- Figures 8 and 9: reports' similarity to patches, distilled features beside a constant; hubs.


@style.styled()
def text_statistics_figure(
    similarities: Mapping[str, np.ndarray], distilled: Sequence[tuple[str, Distillation]]
) -> Figure:
    """One row per data set. Left: similarity of the best report. Right: distilled cosines.

    Args:
        similarities: [n] best-report similarity of each training patch, by data set.
        distilled: every run's test cosines, with its data set.
    """
    size = (7.0, 1.55 * len(similarities) + 0.6)
    figure, axes = plt.subplots(len(similarities), 2, figsize=size, squeeze=False, sharex="col")
    kinds = (("cosines", "— distilled", "-", style.look("clip_it")[0], "left"),
             ("constant", "- - constant", "--", "black", "right"))  # fmt: skip
    for (left, right), (name, values) in zip(axes, similarities.items(), strict=True):
        sns.histplot(values, bins=30, color="0.75", alpha=1, ax=left)
        left.axvline(values.mean(), color="black", lw=1)
        left.set(title=name, ylabel="patches", yticks=[])
        said = f"mean {values.mean():.2f}, sd {values.std():.2f}"
        left.set_title(said, loc="right", fontsize=8)
        own = [each for dataset, each in distilled if dataset == name]
        for kind, said, line, colour, side in kinds:  # cumulative: what crowds near 1 stays apart
            cosines = np.concatenate([getattr(each, kind) for each in own])
            sns.ecdfplot(cosines, stat="percent", color=colour, ls=line, lw=1.6, ax=right)
            said = f"{said}, mean {cosines.mean():.2f}"
            right.set_title(said, loc=side, fontsize=8, color=colour)
        right.annotate(
            f"share of variance\nexplained: {np.mean([each.explained for each in own]):.2f}",
            (0.03, 0.93), xycoords="axes fraction", va="top", fontsize=8,
            bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
        right.set(ylim=(0, 103), ylabel="patches below (%)")
    axes[-1, 0].set_xlabel("cosine of patch and best report")
    axes[-1, 1].set_xlabel("cosine with the true text features (test)")
    return figure


@style.styled(constrained=False)
def hubs_figure(
    dataset: PatchDataset, texts: Sequence[str], hubs: Sequence[tuple[int, np.ndarray]]
) -> Figure:
    """The most used reports, each beside six training patches that chose it, drawn at random.

    It shows patches and report texts: keep it only where both may be redistributed.

    Args:
        texts: of the whole corpus.
        hubs: (report, positions within the train split), see `measures.hubs`.
    """
    style.have_fonts_for([*dataset.class_texts, *(texts[report] for report, _ in hubs)])
    rng, train = np.random.default_rng(0), dataset.indices("train")
    figure, axes = plt.subplots(
        len(hubs), 7, figsize=(7.2, 0.95 * len(hubs)), squeeze=False, width_ratios=[*[1] * 6, 6]
    )
    for row, (report, chosen) in zip(axes, hubs, strict=True):
        for axis, position in zip(row, rng.permutation(chosen)[:6], strict=False):
            axis.imshow(dataset.pixels[train[position]])
        counts = np.bincount(dataset.labels[train[chosen]])
        most = f"{counts.max() / len(chosen):.0%} {dataset.class_texts[counts.argmax()]}"
        note = textwrap.shorten(f"{len(chosen) / len(train):.0%} of patches: {most}", 60)
        row[-1].text(0.02, 1, style.plain(note), va="top", fontsize=7, weight="bold")
        row[-1].text(0.02, 0.82, _opening(texts[report], 250, 68), va="top", fontsize=6.5)
    for axis in axes.flat:
        axis.axis("off")
    figure.subplots_adjust(wspace=0.06, hspace=0.12, left=0.01, right=0.99)
    figure.suptitle(dataset.name, x=0.01, y=1.0, ha="left", fontsize=10)
    return figure


# -- Where in a large image the classifier sees each class.

COLOURS = "cividis"  # sequential, and the same to colour-blind readers
LEFT_OUT = "#D9D9D9"
WIDTH = 7.2  # inches


@style.styled()
def heat_map(
    image: UInt8[np.ndarray, "h w 3"],
    maps: dict[str, Float[np.ndarray, "rows columns"]],
    size: tuple[int, int],
    side: int,
    note: str = "",
) -> Figure:
    """The image beside one probability map per class, all in pixels of the full image.

    Args:
        image: the image or a smaller copy of it.
        maps: by class; NaN, where nothing was classified, is grey.
        size: width and height of the full image.
        side: of a tile, drawn in the image's upper left corner.
        note: what the grey areas are.
    """
    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    width, height = size
    share = 0.45 if len(maps) > 1 else 0.5  # of the figure's width, for the image
    # Axes take what labels (left) and the colour bar (right) leave; titles take 0.28 inches each.
    panels_tall = rows * (WIDTH * (1 - share) * 0.8 / columns * height / width + 0.28)
    image_tall = WIDTH * share * 0.88 * height / width + 0.75
    extent = (0, width, height, 0)
    style.have_fonts_for(maps)
    figure = plt.figure(figsize=(WIDTH, max(panels_tall, image_tall) + 0.3))
    parts: Any = figure.subfigures(1, 2, width_ratios=(share, 1 - share))
    left, right = parts
    axis = left.subplots()
    axis.imshow(image, extent=extent)
    axis.add_patch(Rectangle((0, 0), side, side, fill=False, edgecolor="black", linewidth=1.2))
    axis.set(title="image", xlabel=f"pixels (box: one tile, {side})")
    axis.tick_params(labelsize=8)
    panels = right.subplots(rows, columns, squeeze=False)
    colours: Any = mpl.colormaps[COLOURS].with_extremes(bad=LEFT_OUT)
    for panel in panels.flat:
        panel.axis("off")
    for panel, (name, values) in zip(panels.flat, maps.items(), strict=False):
        drawn = panel.imshow(values, extent=extent, vmin=0, vmax=1, cmap=colours)
        panel.set_title(style.plain(name), fontsize=9)
    right.colorbar(drawn, ax=panels, label="probability", fraction=0.05, aspect=30)
    if note:
        figure.supxlabel(f"grey: {note}", fontsize=8, x=0.01, ha="left")
    plt.close(figure)
    return figure
