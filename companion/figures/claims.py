"""The paper's numbers beside ours, claim by claim; how often such words are given, and when."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from companion.claims.ledger import Judged, ledger_table
from companion.claims.rules import Verdict
from companion.figures import style
from companion.statistics import Word

LOOKS = {
    Verdict.REPRODUCED: style.WORDS[Word.HELPS],
    Verdict.UNDECIDED: style.WORDS[Word.UNDECIDED],
    Verdict.NOT: style.WORDS[Word.HURTS],
    Verdict.UNTESTABLE: ("0.7", "", "none"),
}
CAPITALS = {"pcam": "PCAM", "bach": "BACH", "crc": "CRC", "lora": "LoRA"}


@style.styled()
def claims_figure(judged: Sequence[Judged], title: str) -> Figure:
    """One line per claim that is a difference in points; those not testable come last, in grey."""
    rows = ledger_table(judged).rename(columns={"ours": "gain", "verdict": "word", "paper": "said"})
    rows["paper"] = pd.Series([one.claim.paper_gain for one in judged], dtype=float)
    rows["one"] = pd.Series([*judged], dtype=object)
    rows = rows[[one.claim.in_points for one in judged]]
    rows = rows.dropna(subset=["gain", "paper"], how="all")
    rows = rows.sort_values("word", key=lambda word: word == Verdict.UNTESTABLE, kind="stable")
    figure, axis = plt.subplots(figsize=(6.4, 1.15 + 0.2 * max(len(rows), 2)))
    for line, one in enumerate(rows["one"]):
        claim = one.claim
        if claim.margin:  # what the rule tolerates: either side of zero, or below it
            width = 2 * claim.margin if claim.kind == "equal" else claim.margin
            place = (-claim.margin, line - 0.4)
            axis.add_patch(Rectangle(place, width, 0.8, fc="0.92", lw=0, zorder=0))
    style.forest(axis, rows, names=[*map(_name, rows["one"])], said=rows["word"], looks=LOOKS)
    axis.set_xlabel("points of balanced accuracy (95% interval)")
    more = f"{len(judged) - len(rows)} further claims have no such number: see the table"
    axis.set_title(f"{title}\n{more}")
    style.legend_below(figure, style.meanings(rows[rows["word"] != Verdict.UNTESTABLE], LOOKS))
    return figure


def _name(one: Judged) -> str:
    words = " ".join(CAPITALS.get(word, word) for word in one.claim.id.split("_"))
    return f"{words[0].upper()}{words[1:]} ({one.claim.where.split(',')[0]})"


# -- What the instrument sees: worlds with a known answer, and gains that were planted.

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
