"""Do distillation targets stay apart?"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from clipit_lib.audit import FIXED, MOVING
from clipit_lib.figures.style import CYCLE, styled

LOOKS = {
    FIXED: ("fixed target", CYCLE[0], "-", "o"),
    MOVING: ("moving target", CYCLE[5], "--", "s"),
}


def spread_figure(spreads: pd.DataFrame) -> Figure:
    """One panel a data set: total variance of unit-length targets by epoch, one line a seed."""
    datasets = list(dict.fromkeys(spreads["dataset"]))
    with styled():
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(2.5 * len(datasets) + 0.9, 2.4), squeeze=False, sharey=True
        )
        for axis, dataset in zip(axes.flat, datasets, strict=True):
            for setting, (name, colour, line, marker) in LOOKS.items():
                rows = spreads[(spreads["dataset"] == dataset) & (spreads["setting"] == setting)]
                for number, (_, course) in enumerate(rows.groupby("seed")):
                    axis.plot(
                        course["epoch"], course["target_spread"], color=colour, ls=line, lw=1.1,
                        marker=marker, ms=3, label=name if number == 0 else None,
                    )  # fmt: skip
            axis.set(xlabel="epoch", title=dataset, ylim=(0, None))
        axes[0, 0].set_ylabel("variance of the targets")
        axes[0, 0].legend(fontsize=8)
        figure.tight_layout()
    return figure
