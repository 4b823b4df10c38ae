"""What the instrument sees: worlds with a known answer, and gains that were planted."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion.figures.style import CYCLE, intervals, legend_below, named_lines, on_line, styled
from companion.statistics import Word

LOOKS = {
    Word.HELPS: (CYCLE[0], "D"),
    Word.EQUIVALENT: (CYCLE[2], "s"),
    Word.UNDECIDED: ("0.72", "o"),
    Word.HURTS: (CYCLE[5], "X"),
}


@styled()
def known_figure(gains: pd.DataFrame, margin: float) -> Figure:
    """Gain over random reports: on the left by the share of pairs that are right, on the right of
    what else was put in their place, each with its word.

    Args:
        gains: of `power.over_random`.
    """
    curve, others = gains.dropna(subset=["right"]), gains[gains["right"].isna()]
    figure, (left, lines) = plt.subplots(
        1, 2, figsize=(7.2, 0.7 + 0.36 * max(len(others), 6)), gridspec_kw={"width_ratios": [1, 1]}
    )
    left.axhspan(-margin, margin, color="0.93", lw=0, zorder=0)
    left.axhline(0, color="black", lw=0.8)
    left.plot([0, *curve["right"]], [0, *curve["gain"]], color=CYCLE[0], lw=1.2)
    left.plot([0], [0], "o", ms=5, mfc="white", mec=CYCLE[0])
    places = curve["right"].tolist()
    intervals(left, curve, places, upright=True, color=CYCLE[0], marker="D")
    left.set(xlabel="patches paired with their own report (%)", xticks=[0, *curve["right"]],
             ylabel="gain over random reports\n(points, 95% interval)")  # fmt: skip
    lines.axvspan(-margin, margin, color="0.93", lw=0, zorder=0)
    lines.axvline(0, color="black", lw=0.8)
    named_lines(lines, [fill(name, 24) for name in others["label"]])
    for line, (_, row) in enumerate(others.iterrows()):
        colour, marker = LOOKS[Word(row["word"])]
        shade = "0.45" if row["word"] == Word.UNDECIDED else colour
        intervals(lines, others.iloc[[line]], [line], color=shade, marker=marker)
        on_line(lines, line, str(row["word"]), color=shade)
    lines.set_xlabel("gain over random reports (points)")
    figure.tight_layout()
    return figure


@styled()
def power_figure(judged: pd.DataFrame) -> Figure:
    """How often each word is given to a planted gain, one panel per design.

    Args:
        judged: of `power.judged`.
    """
    designs = list(judged.groupby(["seeds", "patients"]))
    figure, axes = plt.subplots(
        1, len(designs), figsize=(7.2, 2.4), sharey=True, squeeze=False
    )  # fmt: skip
    for axis, ((seeds, patients), rows) in zip(axes.flat, designs, strict=True):
        shares = 100 * pd.crosstab(rows["planted"], rows["word"], normalize="index")
        below = pd.Series(0.0, shares.index)
        for word, (colour, _) in LOOKS.items():
            if word in shares:
                places = range(len(shares))
                axis.bar(places, shares[word], bottom=below, color=colour, width=0.85, lw=0)
                below += shares[word]
        ticks = [f"{gain:g}" for gain in shares.index]
        axis.set(xticks=range(len(ticks)), xticklabels=ticks, xlabel="planted gain (points)")
        axis.set_title(f"{seeds} seeds, {patients} patients")
    axes[0, 0].set_ylabel("verdicts (%)")
    legend_below(figure, [Patch(color=c, label=str(word)) for word, (c, _) in LOOKS.items()], 4)
    figure.tight_layout()
    return figure
