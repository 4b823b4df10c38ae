"""What the instrument sees: worlds with a known answer, and gains that were planted."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion.figures import style

BARS = {str(word): colour for word, (colour, _, _) in style.WORDS.items()} | {"undecided": "0.85"}


@style.styled()
def known_figure(gains: pd.DataFrame, margin: float) -> Figure:
    """Gain over random reports: on the left by the share of pairs that are right, on the right of
    what else was put in their place, each with its word.

    Args:
        gains: of `power.over_random`.
    """
    curve, others = gains.dropna(subset=["right"]), gains[gains["right"].isna()]
    size = (7.2, 0.7 + 0.36 * max(len(others), 6))
    figure, (left, right) = plt.subplots(1, 2, figsize=size)
    left.axhspan(-margin, margin, color="0.93", lw=0, zorder=0)
    left.axhline(0, color="black", lw=0.8)
    left.plot([0, *curve["right"]], [0, *curve["gain"]], color=style.look("clip_it")[0], lw=1.2)
    colour, marker = style.look("clip_it/random_reports")
    style.marks(left, [0], 0, marker=marker, color=colour, ms=5.5)
    style.forest(left, curve, curve["right"].tolist(), setting="clip_it", upright=True)
    left.set(xlabel="patches paired with their own report (%)", xticks=[0, *curve["right"]],
             ylabel="gain over random reports\n(points, 95% interval)")  # fmt: skip
    right.axvspan(-margin, margin, color="0.93", lw=0, zorder=0)
    names = [fill(name, 24) for name in others["label"]]
    style.forest(right, others, names=names, said=others["word"])
    right.set_xlabel("gain over random reports (points)")
    style.legend_below(figure, style.meanings(gains))
    return figure


@style.styled()
def power_figure(judged: pd.DataFrame) -> Figure:
    """How often each word is given to a planted gain, one panel per design.

    Args:
        judged: of `power.judged`.
    """
    designs = list(judged.groupby(["seeds", "patients"]))
    figure, axes = plt.subplots(1, len(designs), figsize=(7.2, 2.4), sharey=True, squeeze=False)
    for axis, ((seeds, patients), rows) in zip(axes.flat, designs, strict=True):
        sns.histplot(
            rows.assign(planted=rows["planted"].map("{:g}".format)), x="planted", hue="word",
            hue_order=[*BARS][::-1], palette=BARS, multiple="fill", shrink=0.85, alpha=1, lw=0,
            legend=False, ax=axis,
        )  # fmt: skip
        axis.set(title=f"{seeds} seeds, {patients} patients", xlabel="planted gain (points)")
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
    axes[0, 0].set_ylabel("verdicts (%)")
    style.legend_below(figure, [Patch(color=each, label=word) for word, each in BARS.items()])
    return figure
