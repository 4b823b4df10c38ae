"""Table 8 to read, beside the paper's, and the result in words."""

from __future__ import annotations

import pandas as pd

from clipit_lib.survival.resampling import METRICS

# Means over five folds of the paper's Table 8; its values by fold are not available to us.
PAPER = {
    "unimodal": {"c_index": 0.609, "iauc": 0.634},
    "clip_it": {"c_index": 0.661, "iauc": 0.699},
}
PAPER_GAIN = {"c_index": 0.052, "iauc": 0.066}  # of CLIP-IT over unimodal, as printed
NAMES = {
    "unimodal": "unimodal",
    "clip_it": "CLIP-IT",
    "clip_it/architecture_only": "architecture only",
}
METRIC_NAMES = {"c_index": "C-index", "iauc": "iAUC"}


def summary_table(table: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Table 8 to read: folds (means over seeds) and means, ours and the paper's."""
    rows = []
    for metric in METRICS:
        folds = table.pivot_table(index="setting", columns="fold", values=metric)
        for _, row in limits[(limits["metric"] == metric) & (limits["over"] == "")].iterrows():
            setting = str(row["setting"])
            printed = PAPER.get(setting)
            rows.append({
                "metric": METRIC_NAMES[metric],
                "setting": NAMES[setting],
                **{f"fold {fold}": f"{value:.3f}" for fold, value in folds.loc[setting].items()},
                "mean [95%]": f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                "paper's mean": f"{printed[metric]:.3f}" if printed else "no such row",
            })  # fmt: skip
    return pd.DataFrame(rows)


def sentences(limits: pd.DataFrame, p: float, planted: pd.DataFrame | None) -> str:
    """The result in words, as a Markdown list."""
    said = []
    for _, row in limits[limits["over"] != ""].iterrows():
        metric, over = str(row["metric"]), str(row["over"])
        printed = ""
        if over == "unimodal":
            gain = PAPER_GAIN[metric]
            printed = f" The paper's is {gain:+.3f}, on real slides, without an interval."
        said.append(
            f"- {METRIC_NAMES[metric]}: {NAMES['clip_it']} over {NAMES[over]} {row['value']:+.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}]; {_verdict(row['low'], row['high'])}."
            + printed
        )
    said.append(f"- Predicted halves of {NAMES['clip_it']}: log-rank p = {p:.2g}.")
    if planted is not None:
        c_index, iauc = planted[list(METRICS)].mean()
        said.append(
            f"- The planted risk itself reaches C-index {c_index:.3f} and iAUC {iauc:.3f}: chance "
            "in the times of events leaves no more to predict."
        )
    return "\n".join(said)


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "the interval lies above zero"
    return "the interval lies below zero" if high < 0 else "the interval includes zero"
