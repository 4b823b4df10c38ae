"""Figures 8 and 9: reports' similarity to patches, distilled features beside a constant; hubs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipit_lib.data.contract import PatchDataset
from clipit_lib.figures.style import CYCLE, plain, styled
from clipit_lib.text_statistics import Distillation


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
