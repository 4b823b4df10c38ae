"""One claim judged by stored runs, according to the kind of its rule."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats

from clipit_lib import tables
from clipit_lib.claims import own, verdicts
from clipit_lib.claims.model import (
    Claim,
    Equal,
    Falling,
    Gain,
    Gains,
    NoLoss,
    NotWorse,
    Own,
    Pair,
    ShareHigher,
)
from clipit_lib.claims.shelf import Shelf, Untestable
from clipit_lib.claims.verdicts import Finding, Verdict
from clipit_lib.names import label
from clipit_lib.runs import StoredRun
from clipit_lib.statistics import Interval


def finding_of(claim: Claim, shelf: Shelf) -> Finding:
    """The verdict on one claim."""
    try:
        return _judge(claim, shelf)
    except Untestable as why:
        return Finding(Verdict.UNTESTABLE, reason=str(why))


def _judge(claim: Claim, shelf: Shelf) -> Finding:
    match claim:
        case Own():
            return own.FUNCTIONS[claim.id](shelf)
        case Gains():
            return _gains(claim, shelf)
        case Falling():
            return _falling(claim, shelf)
        case ShareHigher() | NoLoss():
            return _by_cell(claim, shelf)
        case Gain() | Equal() | NotWorse():
            return _pooled(claim, shelf)


def _pooled(claim: Gain | Equal | NotWorse, shelf: Shelf) -> Finding:
    """A rule on the mean difference over cells."""
    runs = _runs_of(claim, shelf)
    value = _pooled_gain(runs, claim.first, claim.second, shelf)
    if isinstance(claim, Gain):
        verdict = verdicts.gain(value)
    elif isinstance(claim, Equal):
        verdict = verdicts.equal(value, claim.margin)
    else:
        verdict = verdicts.not_worse(value, claim.margin)
    return _found(verdict, value, _cells_in_words(runs), runs)


def _by_cell(claim: ShareHigher | NoLoss, shelf: Shelf) -> Finding:
    """A rule that counts cells; ours is their share."""
    runs = _runs_of(claim, shelf)
    cells = tables.gain_table(runs, [(claim.first, claim.second)], shelf.draws)
    keys = _keys(runs)
    if isinstance(claim, ShareHigher):
        higher = int((cells["gain"] > 0).sum())
        verdict = verdicts.share_higher(cells["gain"].tolist(), claim.share)
        said = f"{higher} of {len(cells)} cells higher"
        return Finding(verdict, higher / len(cells), reason=said, runs=keys)
    lost = cells[cells["high"] < 0]
    names = "".join(f"; {row['dataset']}, {row['backbone']}" for _, row in lost.iterrows())
    said = f"{len(lost)} of {len(cells)} cells with an interval below zero{names}"
    verdict = verdicts.no_loss(cells["high"].tolist())
    return Finding(verdict, len(lost) / len(cells), reason=said, runs=keys)


def _gains(claim: Gains, shelf: Shelf) -> Finding:
    """A gain over each of several; ours is the smallest of the weakest verdict."""
    stored, values = [], {}
    for first in claim.firsts:
        runs = shelf.runs(claim.study, [first, claim.second], claim.datasets)
        values[first] = _pooled_gain(runs, first, claim.second, shelf)
        stored += runs
    verdict = verdicts.weakest([verdicts.gain(value) for value in values.values()])
    weakest = [value for value in values.values() if verdicts.gain(value) == verdict]
    least = min(weakest, key=lambda value: value.estimate)
    said = "; ".join(f"over {label(first)} {value}" for first, value in values.items())
    return _found(verdict, least, said, stored)


def _falling(claim: Falling, shelf: Shelf) -> Finding:
    """A rule on an order of settings; ours is the gain of the first over the last."""
    held = shelf.settings(claim.study)
    order = [name for name in claim.order if name in held]
    if len(order) < 3:
        raise Untestable(f"{len(order)} ranks in the profile's {claim.study}, of at least 3")
    runs = shelf.runs(claim.study, order, claim.datasets)
    means = tables.run_table(runs).groupby("setting")["balanced_accuracy"].mean()[order]
    flat = means.nunique() == 1  # no correlation is defined then
    correlation = 0.0 if flat else float(stats.spearmanr(range(len(order)), means).statistic)
    value = _pooled_gain(runs, order[-1], order[0], shelf)
    said = f"first over last; Spearman {correlation:+.2f} over {len(order)} ranks"
    return _found(verdicts.falling(correlation, value), value, said, runs)


def _runs_of(claim: Pair, shelf: Shelf) -> list[StoredRun]:
    return shelf.runs(claim.study, claim.settings, claim.datasets)


def _pooled_gain(runs: Sequence[StoredRun], first: str, second: str, shelf: Shelf) -> Interval:
    value = tables.pooled_gain(runs, first, second, shelf.draws)
    if value is None:
        raise Untestable(f"{first} and {second} have no seeds in common")
    return value


def _found(verdict: Verdict, value: Interval, said: str, runs: Sequence[StoredRun]) -> Finding:
    return Finding(verdict, value.estimate, value.low, value.high, said, _keys(runs))


def _keys(runs: Sequence[StoredRun]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.key for run in runs))


def _cells_in_words(runs: Sequence[StoredRun]) -> str:
    cells = {(run.spec.dataset, run.spec.backbone) for run in runs}
    seeds = {run.spec.seed for run in runs}
    one = "cell" if len(cells) == 1 else "cells"
    return f"{len(cells)} {one}, {len(seeds)} seed{'' if len(seeds) == 1 else 's'}"
