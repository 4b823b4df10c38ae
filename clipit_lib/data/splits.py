"""Validation samples for data sets that bring none; the test split is never touched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from clipit_lib.errors import ClipItError
from clipit_lib.settings import ValidationSplit

CLUSTERS = 9
# Units among which pairs are tried for an exchange: enough for any share, and memory is bounded.
EXCHANGED = 300
# Optical density of each byte value; one is added so that black stays finite.
OPTICAL_DENSITY = -np.log((np.arange(256) + 1) / 256)


def with_validation(
    samples: pd.DataFrame,
    split: ValidationSplit,
    stain: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> pd.DataFrame:
    """Move about `fraction` of the train samples to validation; a split that exists is kept.

    `stratified` draws patches in each class, `group` whole groups, and `stain` whole clusters of
    stain colour in each class. The last is for data without slide ids: patches of one slide share
    its stain, so a random split can be answered by colour alone, while patches of another stain
    are a question like the test's (in crc5 colour alone answers 94% of a random split and 54% of
    the test).

    Args:
        samples: one row a patch: id, split, label, group.
        stain: [n, 6] colour features of every row (see `stain_features`), for `stain` only.
        classes: names for messages; without them classes are numbered.

    Raises:
        ClipItError: `official` without validation samples; `group` without groups; a class or
            the train split cannot be divided.
    """
    if (samples["split"] == "validation").any():
        return samples
    train = np.flatnonzero(samples["split"] == "train")
    labels = samples["label"].to_numpy()[train]
    rng = np.random.default_rng(split.seed)
    names = classes or [str(label) for label in range(labels.max(initial=0) + 1)]
    if split.by == "stratified":
        held = _stratified(labels, split.fraction, rng, names)
    elif split.by == "group":
        held = _by_group(samples["group"].to_numpy()[train], labels, split.fraction, rng)
    elif split.by == "stain":
        if stain is None:
            raise ValueError("a split by stain needs colour features")
        held = _by_stain(stain[train], labels, split, rng, names)
    else:
        raise _error("the data set brings no validation samples", "Use stratified, group or stain")
    column = samples["split"].to_numpy(dtype=object, copy=True)
    column[train[held]] = "validation"
    return samples.assign(split=column)


def stain_features(pixels: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of the optical density of each channel.

    Args:
        pixels: [n, side, side, 3] uint8.

    Returns:
        [n, 6] float64.
    """
    counts = [[np.bincount(c.ravel(), minlength=256) for c in np.moveaxis(p, 2, 0)] for p in pixels]
    share = np.array(counts) / (pixels.shape[1] * pixels.shape[2])
    mean = share @ OPTICAL_DENSITY
    variance = share @ OPTICAL_DENSITY**2 - mean**2
    return np.concatenate([mean, np.sqrt(variance.clip(min=0))], axis=1)


def _stratified(
    labels: np.ndarray, fraction: float, rng: np.random.Generator, names: Sequence[str]
) -> np.ndarray:
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            raise _error(f"class {names[label]} has a single train patch", "Add patches of it")
        held[rows[: min(max(1, round(fraction * len(rows))), len(rows) - 1)]] = True
    return held


def _by_group(
    groups: np.ndarray, labels: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    if (groups == "").any():
        raise _error("some train patches have no group", "Use stratified or stain, or add groups")
    if len(np.unique(groups)) < 2:
        raise _error("all train patches are of one group", "Use stratified or stain")
    counts = pd.crosstab(groups, labels)
    chosen = _improved(_hold_out(counts.to_numpy(), fraction, rng), counts.to_numpy(), fraction)
    return np.isin(groups, counts.index[chosen].to_numpy())


def _by_stain(
    stain: np.ndarray,
    labels: np.ndarray,
    split: ValidationSplit,
    rng: np.random.Generator,
    names: Sequence[str],
) -> np.ndarray:
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        clusters = _clusters(stain[rows], split.seed)
        counts = np.bincount(clusters)[:, None]
        if len(counts) < 2:
            raise _error(f"class {names[label]} has a single stain colour", "Use stratified")
        held[rows] = _hold_out(counts, split.fraction, rng)[clusters]
    return held


def _clusters(features: np.ndarray, seed: int) -> np.ndarray:
    """Cluster number of each row, [n]."""
    from sklearn.cluster import KMeans  # slow to import, and seldom needed

    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    count = min(CLUSTERS, len(np.unique(scaled, axis=0)))
    # Sums in another order round differently: one thread keeps the split the same everywhere.
    with threadpool_limits(1):
        found = KMeans(count, n_init=10, random_state=seed).fit_predict(scaled)
    return np.unique(found, return_inverse=True)[1]


def _hold_out(counts: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose whole units, in random order, while they bring every class nearer to `fraction`.

    Args:
        counts: [units, classes], at least two units.

    Returns:
        [units] bool, at least one and not all.
    """
    target = fraction * counts.sum(axis=0)
    chosen = np.zeros(len(counts), bool)
    held = np.zeros_like(target)
    for unit in rng.permutation(len(counts)):
        if np.abs(held + counts[unit] - target).sum() < np.abs(held - target).sum():
            chosen[unit] = True
            held += counts[unit]
    if not chosen.any():
        chosen[np.abs(counts - target).sum(axis=1).argmin()] = True
    if chosen.all():
        chosen[counts.sum(axis=1).argmax()] = False
    return chosen


def _improved(chosen: np.ndarray, counts: np.ndarray, fraction: float) -> np.ndarray:
    """Exchange or move single units while that brings the classes nearer to `fraction`.

    With several classes a single pass can leave one class far off while the others are met.
    The squared distance falls at every step, so this ends.
    """
    target = fraction * counts.sum(axis=0)
    # Moving unit i across changes the held counts by +counts[i] or -counts[i]; the last is no move.
    while True:
        movable = np.where(chosen[:EXCHANGED, None], -counts[:EXCHANGED], counts[:EXCHANGED])
        change = np.vstack([movable, np.zeros_like(counts[:1])])
        off = counts[chosen].sum(axis=0) - target
        distance = ((off + change[:, None] + change[None]) ** 2).sum(axis=2)
        np.fill_diagonal(distance, np.inf)
        first, second = np.unravel_index(distance.argmin(), distance.shape)
        if distance[first, second] >= (off**2).sum() - 1e-9:
            return chosen
        moved = chosen.copy()
        for unit in (first, second):
            if unit < len(movable):
                moved[unit] = ~moved[unit]
        if moved.all() or not moved.any():
            return chosen
        chosen = moved


def _error(what: str, fix: str) -> ClipItError:
    return ClipItError(what, "validation_split", fix)
