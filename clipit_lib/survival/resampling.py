"""Intervals of C-index and integrated AUC by resampling slides within their fold.

A resample is a count for every slide. Both metrics are sums over pairs of slides, so a resample
weighs a pair by the product of its counts: all draws of a fold are a few matrix products. The
weights of censoring stay those of the slides trained on. Models are not trained again: intervals
say how much the choice of slides to predict matters, and of seeds, not that of slides to learn
from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from clipit_lib.survival.metrics import auc_times, censoring_weights

METRICS = ("c_index", "iauc")
Frames = Mapping[str, Sequence[pd.DataFrame]]
TIED = 1e-8  # as in torchsurv


def resampled_c_index(
    counts: Int[np.ndarray, "draws n"], risk: np.ndarray, time: np.ndarray, event: np.ndarray
) -> Float[np.ndarray, " draws"]:
    """Harrell's C-index of each resample; NaN where no two slides can be compared."""
    later = time[None, :] > time[:, None]
    tied = (time[None, :] == time[:, None]) & ~event[None, :]
    comparable = (event[:, None] & (later | tied)).astype(float)
    right = ((counts @ (comparable * _ordered(risk))) * counts).sum(axis=1)
    return _ratio(right, ((counts @ comparable) * counts).sum(axis=1))


def resampled_iauc(
    counts: Int[np.ndarray, "draws n"],
    risk: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    weights: np.ndarray,
) -> Float[np.ndarray, " draws"]:
    """Integrated AUC of each resample (see `metrics.integrated_auc`)."""
    at, ordered = auc_times(time, event, weights), _ordered(risk)
    aucs, drops = np.zeros((2, len(at), len(counts)))
    surviving = np.ones(len(counts))
    for step, now in enumerate(at):
        cases, controls = event * (time <= now) * weights, (time > now).astype(float)
        right = ((counts * cases) @ ordered * (counts * controls)).sum(axis=1)
        aucs[step] = _ratio(right, (counts @ cases) * (counts @ controls))
        events, at_risk = counts @ (event & (time == now)), counts @ (time >= now)
        after = surviving * (1 - np.nan_to_num(_ratio(events, at_risk)))
        drops[step], surviving = surviving - after, after
    drops[np.isnan(aucs)] = 0
    return _ratio((np.nan_to_num(aucs) * drops).sum(axis=0), drops.sum(axis=0))


def _ordered(risk: np.ndarray) -> np.ndarray:
    """[n, n]: 1 where the first slide has the higher risk, a half where both have the same."""
    difference = risk[:, None] - risk[None, :]
    tied = np.abs(difference) <= TIED
    ordered: np.ndarray = np.where(tied, 0.5, difference > 0)
    return ordered


def _ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.divide(first, second, out=np.full(first.shape, np.nan), where=second > 0)


def bootstrap(frames: Frames, draws: int, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """Resampled means over folds and seeds, by (setting, metric), [draws] each.

    All settings share every draw: slides with replacement within each fold, seeds with
    replacement over all.

    Args:
        frames: predictions (slide, time, event, fold, log_risk) of each setting, one a seed,
            seeds and slides in the same order.
    """
    rng = np.random.default_rng(seed)
    seeds = len(next(iter(frames.values())))
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds  # [draws, seeds]
    folds: dict[tuple[str, str], list[np.ndarray]] = {}
    for rows, weights in held_out(next(iter(frames.values()))[0]):
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
        for setting, each in frames.items():
            values = [_metrics(frame.iloc[rows], counts, weights) for frame in each]
            for metric in METRICS:
                stacked = np.stack([value[metric] for value in values], axis=1)
                folds.setdefault((setting, metric), []).append((drawn * stacked).sum(axis=1))
    return {name: np.nanmean(np.stack(values), axis=0) for name, values in folds.items()}


def held_out(frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fold: its rows, and the censoring weights at their times from all other folds."""
    time, event = frame["time"].to_numpy(), frame["event"].to_numpy()
    folds = []
    for fold in sorted(frame["fold"].unique()):
        inside = (frame["fold"] == fold).to_numpy()
        weights = censoring_weights(time[~inside], event[~inside], time[inside])
        folds.append((np.flatnonzero(inside), weights))
    return folds


def _metrics(frame: pd.DataFrame, counts: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    risk, time, event = (frame[name].to_numpy() for name in ("log_risk", "time", "event"))
    return {
        "c_index": resampled_c_index(counts, risk, time, event),
        "iauc": resampled_iauc(counts, risk, time, event, weights),
    }
