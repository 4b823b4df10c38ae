"""The paper's numbers beside ours, claim by claim, with the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from companion.claims.ledger import Judged
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
    rows = pd.DataFrame(
        [
            (_name(one), one.claim, value.ours, value.low, value.high, one.claim.paper_gain,
             value.verdict)
            for one in judged
            for value in [one.finding]
            if one.claim.in_points
        ],
        columns=["name", "claim", "gain", "low", "high", "paper", "word"],
    ).dropna(subset=["gain", "paper"], how="all")  # fmt: skip
    numbers = ["gain", "low", "high", "paper"]
    rows[numbers] = rows[numbers].astype(float)
    rows = rows.sort_values("word", key=lambda word: word == Verdict.UNTESTABLE, kind="stable")
    figure, axis = plt.subplots(figsize=(6.4, 1.15 + 0.2 * max(len(rows), 2)))
    style.named_lines(axis, rows["name"].tolist())
    style.zero(axis)
    for line, claim in enumerate(rows["claim"]):
        if claim.margin:  # what the rule tolerates: either side of zero, or below it
            width = 2 * claim.margin if claim.kind == "equal" else claim.margin
            place = (-claim.margin, line - 0.4)
            axis.add_patch(Rectangle(place, width, 0.8, fc="0.92", lw=0, zorder=0))
    style.forest(axis, rows, said=rows["word"].map(str), looks=LOOKS)
    axis.set_xlabel("points of balanced accuracy (95% interval)")
    more = f"{len(judged) - len(rows)} further claims have no such number: see the table"
    axis.set_title(f"{title}\n{more}")
    style.legend_below(figure, style.meanings(rows[rows["word"] != Verdict.UNTESTABLE], LOOKS))
    return figure


def _name(one: Judged) -> str:
    words = " ".join(CAPITALS.get(word, word) for word in one.claim.id.split("_"))
    return f"{words[0].upper()}{words[1:]} ({one.claim.where.split(',')[0]})"
