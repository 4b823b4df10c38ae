"""Whether distillation targets stay apart while a run is trained."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from clipit_lib.runs import StoredRun

FIXED, MOVING = "clip_it", "clip_it/switch_moving_target"
COLUMNS = ["dataset", "setting", "seed", "epoch", "target_spread", "distillation"]


def spread_table(stored: Sequence[StoredRun]) -> pd.DataFrame:
    """One row a look at validation: dataset, setting, seed, epoch, target_spread, distillation."""
    frames = [pd.DataFrame(columns=COLUMNS)]
    for run in stored:
        history = run.history()
        if run.spec.setting in (FIXED, MOVING) and "target_spread" in history:
            history["dataset"], history["setting"] = run.spec.dataset, run.spec.setting
            history["seed"] = run.spec.seed
            frames.append(history[COLUMNS])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def spread_words(spreads: pd.DataFrame) -> str:
    """What is left of the targets' variance at the end, fixed and moving, data set by data set."""
    lines = []
    for dataset, rows in spreads.groupby("dataset", sort=False):
        at = rows.sort_values("epoch").groupby(["setting", "seed"])["target_spread"]
        first, last = at.first().groupby("setting").mean(), at.last().groupby("setting").mean()
        parts = [
            f"{what} target {first[setting]:.2f} at first and {last[setting]:.2f} at the end"
            for what, setting in (("fixed", FIXED), ("moving", MOVING))
            if setting in first
        ]
        lines.append(f"- {dataset}: variance of the {'; '.join(parts)}.")
    return "\n".join(lines)
