"""Intervals for paired differences between two settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval, in percentage points."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_bootstrap(
    first: Bool[np.ndarray, "seeds n"],
    second: Bool[np.ndarray, "seeds n"],
    labels: Int[np.ndarray, " n"],
    groups: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> Interval:
    """Hierarchical bootstrap of the gain in balanced accuracy of `second` over `first`.

    Seeds are drawn with replacement, and whole groups (patients, slides, or single patches where
    neither is known) are drawn with replacement; both settings share every draw.

    Args:
        first, second: whether each test sample is right, per seed, in the same order.
        groups: [n], the unit that is drawn.
    """
    gain = second.astype(float) - first
    units, unit = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    cells = (len(units), len(classes))
    size = np.zeros(cells)
    np.add.at(size, (unit, label), 1.0)
    total = np.zeros((len(gain), *cells))
    for seed, row in enumerate(gain):
        np.add.at(total[seed], (unit, label), row)
    estimate = (total.mean(axis=0).sum(axis=0) / size.sum(axis=0)).mean()
    values = [_draw(total, size, rng) for _ in range(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(100 * estimate, 100 * float(low), 100 * float(high))


def _draw(total: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> float:
    seeds, units = len(total), len(size)
    seed_weight = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds) / seeds
    unit_weight = np.bincount(rng.integers(units, size=units), minlength=units)
    gained = np.einsum("s,u,suc->c", seed_weight, unit_weight, total, optimize=True)
    drawn = unit_weight @ size
    # A draw without any sample of a class has no accuracy there.
    return float(np.mean(gained[drawn > 0] / drawn[drawn > 0]))
