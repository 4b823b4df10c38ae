"""Table 8 from stored predictions: metrics by fold, means and gains, predicted halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from clipit_lib.survival.cohort import Cohort
from clipit_lib.survival.metrics import concordance, integrated_auc, logrank
from clipit_lib.survival.resampling import METRICS, bootstrap, held_out
from clipit_lib.survival.runs import SurvivalRun


def fold_metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a fold: fold, c_index, iauc of the slides that the model never saw."""
    rows = []
    for inside, weights in held_out(predictions):
        held = predictions.iloc[inside]
        risk, time, event = (held[name].to_numpy() for name in ("log_risk", "time", "event"))
        rows.append({
            "fold": int(held["fold"].iloc[0]),
            "c_index": concordance(risk, time, event),
            "iauc": integrated_auc(risk, time, event, weights),
        })  # fmt: skip
    return pd.DataFrame(rows)


def run_table(runs: Sequence[SurvivalRun]) -> pd.DataFrame:
    """One row a fold, setting and seed: fold, setting, seed, c_index, iauc, run."""
    parts = [
        fold_metrics(run.predictions()).assign(
            setting=run.spec.setting, seed=run.spec.seed, run=run.key
        )
        for run in runs
    ]
    columns = ["fold", "setting", "seed", *METRICS, "run"]
    return pd.concat(parts, ignore_index=True)[columns]


def planted_metrics(cohort: Cohort) -> pd.DataFrame | None:
    """`fold_metrics` of a phantom's planted hazard, which only chance can beat; None if real."""
    if cohort.planted is None:
        return None
    return fold_metrics(cohort.clinical.assign(log_risk=cohort.planted))


def intervals(runs: Sequence[SurvivalRun], table: pd.DataFrame, draws: int) -> pd.DataFrame:
    """One row a metric and quantity: metric, setting, over, value, low, high.

    `over` is empty for the mean of a setting; otherwise the value is the gain of the setting over
    it. Means are over folds and seeds, intervals 95% (see `resampling`).
    """
    settings = list(dict.fromkeys(run.spec.setting for run in runs))
    frames = {s: [run.predictions() for run in runs if run.spec.setting == s] for s in settings}
    drawn = bootstrap(frames, draws)
    means = table.groupby("setting")[list(METRICS)].mean()
    rows = []
    for metric in METRICS:
        mean, draw = means[metric], {s: drawn[s, metric] for s in settings}
        rows += [(metric, s, "", mean[s], *_limits(draw[s])) for s in settings]
        rows += [
            (metric, "clip_it", s, mean["clip_it"] - mean[s], *_limits(draw["clip_it"] - draw[s]))
            for s in settings
            if s != "clip_it" and "clip_it" in settings
        ]
    return pd.DataFrame(rows, columns=["metric", "setting", "over", "value", "low", "high"])


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def halves(runs: Sequence[SurvivalRun], setting: str) -> pd.DataFrame:
    """Slides split by predicted risk: slide, time, event, fold, high.

    Risks of different folds come from different models and are not comparable. So a slide is
    ranked within its fold, ranks are added over seeds, and the fold is split at their median (of
    slides that tie there, the first of the csv count as lower).
    """
    frames = [run.predictions() for run in runs if run.spec.setting == setting]
    ranks = [frame.groupby("fold")["log_risk"].rank(pct=True) for frame in frames]
    first = frames[0]
    by_fold = sum(ranks[1:], ranks[0]).groupby(first["fold"])
    high = by_fold.rank(method="first") > by_fold.transform("size") / 2
    return first[["slide", "time", "event", "fold"]].assign(high=high)


def halves_p(split: pd.DataFrame) -> float:
    """p of the log-rank test between the halves."""
    time, event, high = (split[name].to_numpy() for name in ("time", "event", "high"))
    return logrank(time, event, high)
