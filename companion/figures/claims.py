"""The paper's numbers beside ours, claim by claim, with the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from companion.claims.ledger import Judged
from companion.claims.rules import Verdict
from companion.figures.style import CYCLE, legend_below, named_lines, on_line, styled, zero

LOOKS = {
    Verdict.REPRODUCED: (CYCLE[0], "D"),
    Verdict.UNDECIDED: (CYCLE[1], "s"),
    Verdict.NOT: (CYCLE[5], "X"),
    Verdict.UNTESTABLE: ("0.6", "o"),
}
CAPITALS = {"pcam": "PCAM", "bach": "BACH", "crc": "CRC", "lora": "LoRA"}
OFFSET = 0.17  # between the paper's mark and ours, in lines


@styled()
def claims_figure(judged: Sequence[Judged], title: str) -> Figure:
    """One line per claim that is a difference in points; those not testable come last, in grey."""
    shown = [
        one
        for one in judged
        if one.claim.in_points
        and (one.claim.paper_gain is not None or one.finding.ours is not None)
    ]
    shown.sort(key=lambda one: one.finding.verdict is Verdict.UNTESTABLE)
    figure, axis = plt.subplots(figsize=(5.4, 1.15 + 0.23 * max(len(shown), 2)))
    named_lines(axis, [_name(one) for one in shown])
    zero(axis)
    for line, (one, name) in enumerate(zip(shown, axis.get_yticklabels(), strict=True)):
        claim, verdict = one.claim, one.finding.verdict
        colour, marker = LOOKS[verdict]
        grey = verdict is Verdict.UNTESTABLE
        name.set_color("0.5" if grey else "black")
        if claim.margin:  # what the rule tolerates: either side of zero, or below it
            width = 2 * claim.margin if claim.kind == "equal" else claim.margin
            place = (-claim.margin, line - 0.4)
            axis.add_patch(Rectangle(place, width, 0.8, fc="0.92", lw=0, zorder=0))
        if claim.paper_gain is not None:
            edge = "0.6" if grey else "0.25"
            axis.plot(claim.paper_gain, line - OFFSET, "o", ms=4.5, mfc="white", mec=edge)
        if (value := one.finding.interval) is not None:
            axis.plot([value.low, value.high], [line + OFFSET] * 2, color=colour, lw=1.4)
            axis.plot(value.estimate, line + OFFSET, marker, ms=5, color=colour)
        on_line(axis, line, str(verdict), color="0.5" if grey else colour)
    axis.set_xlabel("points of balanced accuracy (95% interval)")
    axis.set_title(f"{title}\n", fontsize=10)
    more = f"{len(judged) - len(shown)} further claims have no such number: see the table"
    axis.text(0, 1.01, more, transform=axis.transAxes, fontsize=8, color="0.4", va="bottom")
    met = {one.finding.verdict for one in shown} - {Verdict.UNTESTABLE}
    paper = Line2D([], [], marker="o", ls="", ms=4.5, mfc="white", mec="0.25", label="paper")
    handles = [paper] + [
        Line2D([], [], marker=marker, color=colour, ms=5, lw=1.4, label=f"ours, {verdict}")
        for verdict, (colour, marker) in LOOKS.items()
        if verdict in met
    ]
    legend_below(figure, handles, 4)
    return figure


def _name(one: Judged) -> str:
    words = " ".join(CAPITALS.get(word, word) for word in one.claim.id.split("_"))
    return f"{words[0].upper()}{words[1:]} ({one.claim.where.split(',')[0]})"
