"""How similar paired reports are, and how few of them serve how many patches."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from clipit_lib.figures.style import COLOURS, styled
from clipit_lib.pairing import Pairs, effective_number


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
