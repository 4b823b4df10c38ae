"""The paper's numbers beside ours, claim by claim, with the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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
