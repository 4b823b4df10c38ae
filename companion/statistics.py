"""Intervals for paired differences between two settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from clipit_lib.errors import ClipItError

BLOCK = 64  # draws at a time: memory stays at BLOCK x units numbers


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
    neither is known) are drawn with replacement; both settings share every draw. Drawing both is
    cautious (Owen 2007, the pigeonhole bootstrap): where the errors of seeds have nothing in
    common, the interval is up to about sqrt(3) times too wide.

    Args:
        first, second: whether each test sample is right, per seed, in the same order.
        groups: [n], the unit that is drawn.
    """
    total, size = _sums(first, second, labels, groups)
    estimate = (total.mean(axis=0).sum(axis=0) / size.sum(axis=0)).mean()
    values = [_draw(total, size, rng) for _ in range(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(100 * estimate, 100 * float(low), 100 * float(high))


def _sums(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[Float[np.ndarray, "seeds units classes"], Float[np.ndarray, "units classes"]]:
    """Hits gained and samples, in each unit and class."""
    gain = second.astype(float) - first
    units, unit = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    cells = (len(units), len(classes))
    size = np.zeros(cells)
    np.add.at(size, (unit, label), 1.0)
    total = np.zeros((len(gain), *cells))
    for seed, row in enumerate(gain):
        np.add.at(total[seed], (unit, label), row)
    return total, size


def _draw(total: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> float:
    seeds, units = len(total), len(size)
    seed_weight = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds) / seeds
    unit_weight = np.bincount(rng.integers(units, size=units), minlength=units)
    gained = np.einsum("s,u,suc->c", seed_weight, unit_weight, total, optimize=True)
    drawn = unit_weight @ size
    # A draw without any sample of a class has no accuracy there.
    return float(np.mean(gained[drawn > 0] / drawn[drawn > 0]))


@dataclass(frozen=True)
class Cell:
    """What two settings get right in one cell of a table (a data set and a backbone).

    Attributes:
        dataset: cells of one name hold the same test samples, in the same order.
        first, second: [seeds, n], whether each test sample is right.
        labels, groups: [n].
    """

    dataset: str
    first: Bool[np.ndarray, "seeds n"]
    second: Bool[np.ndarray, "seeds n"]
    labels: Int[np.ndarray, " n"]
    groups: np.ndarray


def pooled_bootstrap(cells: Sequence[Cell], draws: int, rng: np.random.Generator) -> Interval:
    """Hierarchical bootstrap of the gain in balanced accuracy, averaged over cells.

    The seeds of a draw are the same in all cells, and its groups the same for all backbones on a
    data set: their errors are correlated, and drawing them apart would make the interval too
    narrow. Data sets are drawn apart from each other. Cells themselves are not drawn: the
    interval speaks of these backbones and data sets only.

    Raises:
        ClipItError: no cell, numbers of seeds that differ, or test samples of one data set that do.
    """
    _check(cells)
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    sums = {
        name: [
            _sums(cell.first, cell.second, cell.labels, cell.groups)
            for cell in cells
            if cell.dataset == name
        ]
        for name in names
    }
    estimates = [
        100 * (total.mean(axis=0).sum(axis=0) / size.sum(axis=0)).mean()
        for parts in sums.values()
        for total, size in parts
    ]
    values = [
        _pooled_draws(sums, min(BLOCK, draws - begin), rng) for begin in range(0, draws, BLOCK)
    ]
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return Interval(float(np.mean(estimates)), 100 * float(low), 100 * float(high))


def _pooled_draws(
    sums: dict[str, list[tuple[np.ndarray, np.ndarray]]], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """The mean over cells in each draw, as a fraction."""
    seeds = next(iter(sums.values()))[0][0].shape[0]
    seed_weight = _times_drawn(seeds, draws, rng) / seeds  # [draws, seeds]
    per_cell = []
    for parts in sums.values():
        size = parts[0][1]  # [units, classes], shared by the backbones
        units, classes = size.shape
        unit_weight = _times_drawn(units, draws, rng)  # [draws, units]
        drawn = unit_weight @ size
        for total, _ in parts:
            by_unit = total.transpose(1, 0, 2).reshape(units, -1)
            by_seed = (unit_weight @ by_unit).reshape(draws, seeds, classes)
            gained = np.einsum("ds,dsc->dc", seed_weight, by_seed)
            # A draw without any sample of a class has no accuracy there.
            rate = np.divide(gained, drawn, out=np.zeros_like(gained), where=drawn > 0)
            per_cell.append(rate.sum(axis=1) / (drawn > 0).sum(axis=1))
    mean: np.ndarray = np.mean(per_cell, axis=0)
    return mean


def _times_drawn(
    count: int, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draws count"]:
    """How often each of `count` things is met when `count` are drawn with replacement."""
    chosen = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(chosen.ravel(), minlength=draws * count).reshape(draws, count).astype(float)


def _check(cells: Sequence[Cell]) -> None:
    where = "pooled gain"
    seeds = sorted({len(hits) for cell in cells for hits in (cell.first, cell.second)})
    if len(seeds) != 1:
        raise ClipItError(
            f"cells with {seeds} seeds" if seeds else "no cell",
            where,
            "Pool cells that were all run with the same seeds",
        )
    for cell in cells:
        other = next(each for each in cells if each.dataset == cell.dataset)
        same = np.array_equal(cell.labels, other.labels)
        if not (same and np.array_equal(cell.groups, other.groups)):
            raise ClipItError(
                f"two backbones on {cell.dataset} were tested on different samples",
                where,
                "Pool runs of one profile",
            )
