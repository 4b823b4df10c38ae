"""Figures of patches, pairs, embedding spaces and reports."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clipit_lib.data.patches import PatchDataset
from clipit_lib.pairing import Pairs, effective_number
from companion.figures.style import COLOURS, CYCLE, plain, styled
from companion.measures import Distillation

# -- Figures 6 and 7: feature spaces without and with LoRA, each beside its numbers.


# Nine things told apart (the largest data set has nine classes); markers differ too.
CLASS_COLOURS = (
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
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _marker(label: int) -> str:
    return MARKERS[label % len(MARKERS)]


# -- Patches to look at.


def contact_sheet(dataset: PatchDataset, columns: int = 8, seed: int = 0) -> Figure:
    """Random training patches, one row a class."""
    rng = np.random.default_rng(seed)
    train = dataset.indices("train")
    with styled():
        rows = len(dataset.classes)
        figure, axes = plt.subplots(rows, columns, figsize=(columns * 0.85, rows * 0.9))
        for number, name in enumerate(dataset.classes):
            own = train[dataset.labels[train] == number]
            chosen = rng.choice(own, size=min(columns, len(own)), replace=False)
            for axis, row in zip(axes[number], chosen, strict=False):
                axis.imshow(dataset.pixels[row])
            axes[number, 0].set_ylabel(plain(name), rotation=0, ha="right", va="center")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        figure.subplots_adjust(wspace=0.04, hspace=0.04)
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


def pair_sheet(
    dataset: PatchDataset, rows: np.ndarray, texts: list[str], notes: list[str]
) -> Figure:
    """Patches beside the beginning of their paired reports."""
    with styled():
        figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 1.15 * len(rows)))
        for axis, row, text, note in zip(np.atleast_1d(axes), rows, texts, notes, strict=True):
            axis.imshow(dataset.pixels[row], extent=(0, 1, 0, 1))
            axis.set(xlim=(0, 6.4), ylim=(0, 1), aspect="equal")
            axis.axis("off")
            opening = plain(textwrap.shorten(text, 300, placeholder=" …"))
            axis.text(1.12, 0.98, plain(note), va="top", fontweight="bold", fontsize=8)
            axis.text(1.12, 0.8, textwrap.fill(opening, 88), va="top", fontsize=7)
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


# -- How similar paired reports are, and how few of them serve how many patches.


def pairing_figure(pairs: Pairs, reports: int, title: str) -> Figure:
    """Left: similarity of each patch's best report. Right: patches served by the top reports."""
    best, chosen = pairs.similarities[:, 0], pairs.reports[:, 0]
    counts = np.sort(np.bincount(chosen, minlength=reports))[::-1]
    effective = effective_number(chosen)
    blue, grey = COLOURS["clip_it"], COLOURS["unimodal"]
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.5))
        left.hist(best, bins=30, color=blue)
        left.axvline(best.mean(), color="black", lw=1)
        left.text(best.mean(), left.get_ylim()[1], f" mean {best.mean():.2f}", va="bottom")
        left.set(xlabel="cosine similarity of the best report", ylabel="patches")
        right.plot(np.arange(1, reports + 1), 100 * counts.cumsum() / counts.sum(), color=blue)
        right.axvline(effective, color=grey, lw=1, ls="--")
        right.text(effective * 1.1, 5, f"effective number {effective:.0f}", color=grey)
        right.set(xscale="log", ylim=(0, 105), xlabel="reports, most used first")
        right.set_ylabel("patches served (%)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        figure.tight_layout()
    return figure


# -- Figures 8 and 9: reports' similarity to patches, distilled features beside a constant; hubs.


def text_statistics_figure(
    similarities: Mapping[str, np.ndarray], distilled: Mapping[str, Sequence[Distillation]]
) -> Figure:
    """One row a data set. Left: similarity of the best report. Right: distilled cosines.

    Args:
        similarities: [n] best-report similarity of each training patch, by data set.
        distilled: every run's test cosines, by data set.
    """
    with styled():
        size = (7.0, 1.55 * len(similarities) + 0.6)
        figure, axes = plt.subplots(len(similarities), 2, figsize=size, squeeze=False, sharex="col")
        for (left, right), name in zip(axes, similarities, strict=True):
            _similarity(left, similarities[name])
            left.set_title(name)
            _cosines(right, distilled[name])
        axes[-1, 0].set_xlabel("cosine of patch and best report")
        axes[-1, 1].set_xlabel("cosine with the true text features (test)")
        figure.tight_layout()
    return figure


def _similarity(axis: Axes, values: np.ndarray) -> None:
    mean, spread = values.mean(), values.std()
    axis.hist(values, bins=30, color=CYCLE[4])
    axis.axvline(mean, color="black", lw=1)
    said = f"mean {mean:.2f}, sd {spread:.2f}"
    axis.text(1, 1.05, said, transform=axis.transAxes, ha="right", fontsize=8)
    axis.set(ylabel="patches", yticks=[])


def _cosines(axis: Axes, runs: Sequence[Distillation]) -> None:
    """Cumulative shares: two distributions that crowd near 1 stay apart."""
    for colour, name, values in (
        (CYCLE[0], "distilled", np.concatenate([each.cosines for each in runs])),
        (CYCLE[5], "constant", np.concatenate([each.constant for each in runs])),
    ):
        style = "-" if name == "distilled" else "--"
        ordered = np.sort(values)
        axis.plot(ordered, np.linspace(0, 100, len(ordered)), style, color=colour, lw=1.6)
        right, where = (0, "left") if name == "distilled" else (1, "right")
        said = f"{'—' if style == '-' else '- -'} {name}, mean {values.mean():.2f}"
        axis.text(
            right, 1.05, said, transform=axis.transAxes, color=colour, fontsize=8, ha=where,
        )  # fmt: skip
    share = np.mean([each.explained for each in runs])
    axis.annotate(
        f"share of variance\nexplained: {share:.2f}", (0.03, 0.93), xycoords="axes fraction",
        va="top", fontsize=8, bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip
    axis.set(ylim=(0, 103), ylabel="patches below (%)")


def hubs_figure(
    dataset: PatchDataset,
    texts: Sequence[str],
    hubs: Sequence[tuple[int, np.ndarray]],
    patches: int = 6,
    seed: int = 0,
) -> Figure:
    """The most used reports, each beside some training patches that chose it, drawn at random.

    It shows patches and report texts: keep it only where both may be redistributed.

    Args:
        texts: of the whole corpus.
        hubs: (report, positions within the train split), see `text_statistics.hubs`.
    """
    rng = np.random.default_rng(seed)
    train = dataset.indices("train")
    with styled():
        figure, axes = plt.subplots(
            len(hubs), patches + 1, figsize=(7.2, 0.95 * len(hubs)), squeeze=False,
            gridspec_kw={"width_ratios": [*[1] * patches, 6]},
        )  # fmt: skip
        for row, (report, chosen) in zip(axes, hubs, strict=True):
            drawn = rng.permutation(chosen)[:patches]
            for axis, position in zip(row, drawn, strict=False):
                axis.imshow(dataset.pixels[train[position]])
            opening = plain(textwrap.shorten(texts[report], 250, placeholder=" …"))
            note = f"{len(chosen) / len(train):.0%} of patches: {_most(dataset, train[chosen])}"
            row[-1].text(
                0.02, 1, plain(textwrap.shorten(note, 60)), va="top", fontsize=7, weight="bold"
            )
            row[-1].text(0.02, 0.82, textwrap.fill(opening, 68), va="top", fontsize=6.5)
        for axis in axes.flat:
            axis.axis("off")
        figure.subplots_adjust(wspace=0.06, hspace=0.12, left=0.01, right=0.99)
        figure.suptitle(dataset.name, x=0.01, y=1.0, ha="left", fontsize=10)
    return figure


def _most(dataset: PatchDataset, rows: np.ndarray) -> str:
    """The most frequent class of some patches, and how many of them it is."""
    counts = np.bincount(dataset.labels[rows])
    return f"{counts.max() / len(rows):.0%} {dataset.class_texts[counts.argmax()]}"
