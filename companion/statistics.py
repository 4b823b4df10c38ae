"""Scores of predictions and of pairs, and intervals for paired differences of two settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Int64

from clipit_lib.errors import ClipItError
from clipit_lib.predictions import LOGIT

BLOCK = 64  # draws at a time: memory stays at BLOCK x units numbers


def correct(predictions: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Whether the highest logit is the true class; equal logits go to the lower class."""
    logits = predictions.filter(like=LOGIT).to_numpy()
    hits: np.ndarray = logits.argmax(axis=1) == predictions["label"].to_numpy()
    return hits


def accuracy(predictions: pd.DataFrame) -> float:
    """Share of samples that are right, in percent."""
    return 100 * float(correct(predictions).mean())


def balanced_accuracy(predictions: pd.DataFrame) -> float:
    """Mean over classes of the share that is right, in percent.

    The released code reports this under the name accuracy.
    """
    hits = pd.Series(correct(predictions)).groupby(predictions["label"].to_numpy()).mean()
    return 100 * float(hits.mean())


def top_share(reports: Int64[np.ndarray, " n"], top: int = 10) -> float:
    """Share of patches that are served by the `top` most chosen reports."""
    counts = np.sort(np.unique(reports, return_counts=True)[1])[::-1]
    return float(counts[:top].sum() / counts.sum())


class Side(StrEnum):
    """Where an interval lies: the words of every table and sentence."""

    ABOVE = "above zero"
    BELOW = "below zero"
    INCLUDES = "includes zero"


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval, in percentage points."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Mapping[Any, Any] | pd.Series, estimate: str = "gain") -> Interval:
        """That of a table's row, which names its ends low and high."""
        return cls(float(row[estimate]), float(row["low"]), float(row["high"]))

    @property
    def side(self) -> Side:
        if self.low > 0:
            return Side.ABOVE
        return Side.BELOW if self.high < 0 else Side.INCLUDES

    @property
    def verdict(self) -> str:
        """Where it lies, as the end of a sentence."""
        return f"the interval {'' if self.side is Side.INCLUDES else 'lies '}{self.side}"

    def __str__(self) -> str:
        return f"{self.estimate:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def each_interval(rows: pd.DataFrame) -> pd.Series:
    """The interval of each row of a table."""
    return pd.Series([Interval.of(row) for _, row in rows.iterrows()], rows.index, object)


def sides(rows: pd.DataFrame) -> pd.Series:
    """Where the interval of each row of a table lies."""
    return each_interval(rows).map(lambda each: each.side)


def units(samples: pd.DataFrame, name: str = "sample") -> np.ndarray:
    """[n], what a bootstrap draws: the group of each sample, or its name where it has none."""
    return samples["group"].where(samples["group"] != "", samples[name]).to_numpy()


@dataclass(frozen=True)
class Cell:
    """What two settings get right in one cell of a table (a data set and a backbone).

    Attributes:
        dataset: cells of one name hold the same test samples, in the same order.
        first, second: [seeds, n], whether each test sample is right.
        labels, groups: [n], groups are the unit that is drawn.
    """

    dataset: str
    first: Bool[np.ndarray, "seeds n"]
    second: Bool[np.ndarray, "seeds n"]
    labels: Int[np.ndarray, " n"]
    groups: np.ndarray

    @classmethod
    def of_cases(
        cls, cases: Bool[np.ndarray, "seeds n"], groups: np.ndarray,
        labels: Int[np.ndarray, " n"] | None = None,
    ) -> Cell:  # fmt: skip
        """A share of samples is a gain over never; without labels, all are in one class."""
        classes = np.zeros(cases.shape[1], np.int64) if labels is None else labels
        return cls("", np.zeros_like(cases), cases, classes, groups)

    def sums(self) -> tuple[Float[np.ndarray, "seeds units classes"], np.ndarray]:
        """Hits gained and samples [units, classes], in each unit and class."""
        gain = self.second.astype(float) - self.first
        names, unit = np.unique(self.groups, return_inverse=True)
        classes, label = np.unique(self.labels, return_inverse=True)
        size = np.zeros((len(names), len(classes)))
        np.add.at(size, (unit, label), 1.0)
        total = np.zeros((len(gain), *size.shape))
        for seed, row in enumerate(gain):
            np.add.at(total[seed], (unit, label), row)
        return total, size


def pooled_bootstrap(
    cells: Sequence[Cell], draws: int, rng: np.random.Generator, block: int = BLOCK
) -> Interval:
    """Hierarchical bootstrap of the gain in balanced accuracy, averaged over cells.

    Seeds are drawn with replacement, and whole groups (patients, slides, or single patches where
    neither is known) are drawn with replacement; both settings share every draw. Drawing both is
    cautious (Owen 2007, the pigeonhole bootstrap): where the errors of seeds have nothing in
    common, the interval is up to about sqrt(3) times too wide.

    The seeds of a draw are the same in all cells, and its groups the same for all backbones on a
    data set: their errors are correlated, and drawing them apart would make the interval too
    narrow. Data sets are drawn apart from each other. Cells themselves are not drawn: the
    interval speaks of these backbones and data sets only.

    Args:
        block: draws whose random numbers are taken together; another gives another interval.
            Intervals of single cells are made with 1, draw by draw.

    Raises:
        ClipItError: no cell, numbers of seeds that differ, or test samples of one data set that do.
    """
    _check(cells)
    sums: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for cell in cells:
        sums.setdefault(cell.dataset, []).append(cell.sums())
    estimates = [
        100 * (total.mean(axis=0).sum(axis=0) / size.sum(axis=0)).mean()
        for parts in sums.values()
        for total, size in parts
    ]
    values = [_drawn(sums, min(block, draws - begin), rng) for begin in range(0, draws, block)]
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return Interval(float(np.mean(estimates)), 100 * float(low), 100 * float(high))


def _drawn(
    sums: dict[str, list[tuple[np.ndarray, np.ndarray]]], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """The mean over cells in each draw, as a fraction."""
    seeds = next(iter(sums.values()))[0][0].shape[0]
    seed_weight = _times_drawn(seeds, draws, rng) / seeds  # [draws, seeds]
    per_cell = []
    for parts in sums.values():
        size = parts[0][1]  # [units, classes], shared by the backbones
        unit_weight = _times_drawn(len(size), draws, rng)  # [draws, units]
        drawn = unit_weight @ size
        for total, _ in parts:
            gained = np.einsum("ds,du,suc->dc", seed_weight, unit_weight, total, optimize=True)
            # A draw without any sample of a class has no accuracy there.
            rate = np.divide(gained, drawn, out=np.zeros_like(gained), where=drawn > 0)
            per_cell.append(rate.sum(axis=1) / (drawn > 0).sum(axis=1))
    return np.mean(per_cell, axis=0)


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
        what = f"cells with {seeds} seeds" if seeds else "no cell"
        raise ClipItError(what, where, "Pool cells that were all run with the same seeds")
    first: dict[str, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.dataset, cell)
        same = np.array_equal(cell.labels, other.labels)
        if not (same and np.array_equal(cell.groups, other.groups)):
            what = f"two backbones on {cell.dataset} were tested on different samples"
            raise ClipItError(what, where, "Pool runs of one profile")
