"""Patches to look at."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from clipit_lib.data.contract import PatchDataset
from clipit_lib.figures.style import plain, styled


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
