"""The course of training."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from clipit_lib.figures.style import COLOURS, label, styled
from clipit_lib.runs import StoredRun


def history_figure(runs: Sequence[StoredRun]) -> Figure:
    """Validation cross-entropy and distillation loss by epoch, one thin line a seed."""
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.4))
        named: set[str] = set()
        for run in (run for run in runs if run.spec.training is not None):
            setting, course = run.spec.setting, run.history()
            name = label(setting) if setting not in named else None
            named.add(setting)
            look = {"color": COLOURS[setting], "lw": 1.2, "marker": ".", "label": name}
            left.plot(course["epoch"], course["validation"], **look)
            if "distillation" in course:
                right.plot(course["epoch"], course["distillation"], **look)
        left.set(xlabel="epoch", ylabel="validation cross-entropy (nats)")
        right.set(xlabel="epoch", ylabel="λ (1 − cos) on training batches", ylim=(0, None))
        left.legend()
        figure.tight_layout()
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure


def loss_figure(losses: dict[str, list[float]]) -> Figure:
    """Mean training loss of each epoch, one line an encoder, named at its end."""
    with styled():
        figure, axis = plt.subplots(figsize=(4.8, 2.4))
        for name, values in losses.items():
            (line,) = axis.plot(range(1, len(values) + 1), values, marker=".")
            axis.annotate(f" {name}", (len(values), values[-1]), color=line.get_color(), fontsize=8)
        axis.set(xlabel="epoch", ylabel="training loss (nats)")
        axis.margins(x=0.25)
        figure.tight_layout()
    plt.close(figure)  # a notebook shows it once, as the value of its cell
    return figure
