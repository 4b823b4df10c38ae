"""The paper's numbers beside ours, claim by claim, with the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from companion.claims.ledger import Judged
from companion.claims.rules import Equal, InPoints, NotWorse, Verdict
from companion.figures.style import CYCLE, styled

LOOKS = {
    Verdict.REPRODUCED: (CYCLE[0], "D"),
    Verdict.DIRECTION: (CYCLE[1], "s"),
    Verdict.NOT: (CYCLE[5], "X"),
    Verdict.UNTESTABLE: ("0.6", "o"),
}
LINE, HEAD = 0.23, 1.15  # inches of a claim's line, and of what surrounds them
CAPITALS = {"pcam": "PCAM", "bach": "BACH", "crc": "CRC", "lora": "LoRA"}
OFFSET = 0.17  # between the paper's mark and ours, in lines


def claims_figure(judged: Sequence[Judged], title: str) -> Figure:
    """One line a claim that is a difference in points; those not testable come last, in grey."""
    shown = [one for one in judged if _has_number(one)]
    shown.sort(key=lambda one: one.finding.verdict is Verdict.UNTESTABLE)
    with styled():
        figure, axis = plt.subplots(figsize=(5.4, HEAD + LINE * max(len(shown), 2)))
        for line, one in enumerate(shown):
            _margin(axis, line, one)
            _paper(axis, line, one)
            _ours(axis, line, one)
            _verdict(axis, line, one)
        axis.axvline(0, color="black", lw=0.8, zorder=1)
        axis.set(
            yticks=range(len(shown)), yticklabels=[_name(one) for one in shown],
            ylim=(len(shown) - 0.4, -0.6), xlabel="points of balanced accuracy (95% interval)",
        )  # fmt: skip
        for text, one in zip(axis.get_yticklabels(), shown, strict=True):
            text.set(fontsize=8, color="0.5" if _grey(one) else "black")
        axis.tick_params(axis="y", length=0)
        _title(figure, axis, title, len(judged) - len(shown))
        axis.legend(
            handles=_handles(shown), loc="upper center", ncols=4, fontsize=8,
            bbox_to_anchor=(0.35, -0.5 / (LINE * max(len(shown), 2))), handletextpad=0.3,
        )  # fmt: skip
    return figure


def _has_number(one: Judged) -> bool:
    if not isinstance(one.claim, InPoints):
        return False
    return one.claim.paper_gain is not None or one.finding.ours is not None


def _grey(one: Judged) -> bool:
    return one.finding.verdict is Verdict.UNTESTABLE


def _name(one: Judged) -> str:
    words = " ".join(CAPITALS.get(word, word) for word in one.claim.id.split("_"))
    return f"{words[0].upper()}{words[1:]} ({one.claim.where.split(',')[0]})"


def _margin(axis: Axes, line: int, one: Judged) -> None:
    """What the rule of `equal` tolerates either side of zero, and that of `not_worse` below it."""
    if isinstance(one.claim, Equal | NotWorse):
        margin = one.claim.margin
        width = 2 * margin if isinstance(one.claim, Equal) else margin
        axis.add_patch(Rectangle((-margin, line - 0.4), width, 0.8, fc="0.92", lw=0, zorder=0))


def _paper(axis: Axes, line: int, one: Judged) -> None:
    if one.claim.paper_gain is not None:
        colour = "0.6" if _grey(one) else "0.25"
        axis.plot(one.claim.paper_gain, line - OFFSET, "o", ms=4.5, mfc="white", mec=colour)


def _ours(axis: Axes, line: int, one: Judged) -> None:
    found = one.finding
    if found.ours is None or found.low is None or found.high is None:
        return
    colour, marker = LOOKS[found.verdict]
    axis.plot([found.low, found.high], [line + OFFSET] * 2, color=colour, lw=1.4)
    axis.plot(found.ours, line + OFFSET, marker, ms=5, color=colour)


def _verdict(axis: Axes, line: int, one: Judged) -> None:
    colour = "0.5" if _grey(one) else LOOKS[one.finding.verdict][0]
    axis.text(
        1.01, line, str(one.finding.verdict), transform=axis.get_yaxis_transform(), va="center",
        fontsize=8, color=colour,
    )  # fmt: skip


def _title(figure: Figure, axis: Axes, title: str, left_out: int) -> None:
    more = f"{left_out} further claims have no such number: see the table"
    axis.set_title(f"{title}\n", fontsize=10)
    axis.text(0, 1.01, more, transform=axis.transAxes, fontsize=8, color="0.4", va="bottom")


def _handles(shown: Sequence[Judged]) -> list[Line2D]:
    paper = Line2D([], [], marker="o", ls="", ms=4.5, mfc="white", mec="0.25", label="paper")
    met = {one.finding.verdict for one in shown if not _grey(one)}
    return [paper] + [
        Line2D([], [], marker=marker, color=colour, ms=5, lw=1.4, label=f"ours, {verdict}")
        for verdict, (colour, marker) in LOOKS.items()
        if verdict in met
    ]
