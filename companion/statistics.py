"""Scores of predictions and of pairs, and intervals for paired differences of two settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Int64
from scipy.special import softmax, stdtr, stdtrit

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
    return mean_recall(correct(predictions), predictions["label"].to_numpy())


def mean_recall(hits: Bool[np.ndarray, " n"], labels: np.ndarray) -> float:
    """Mean over classes of the share that is a hit, in percent."""
    return 100 * float(pd.Series(hits).groupby(labels).mean().mean())


BINS = 15  # of confidence


def scores(predictions: pd.DataFrame) -> dict[str, float]:
    """What is read beside accuracy, of one run.

    `log_loss` (nats) and `brier` (from 0 to 2) are proper scores, of which less is better;
    `calibration_error` is the mean distance of accuracy from confidence in 15 bins of it (percent;
    Guo et al. 2017); `auroc` is that of one class against the rest, averaged over classes, and
    `lowest_recall` that of the class which is recalled least (percent).
    """
    from sklearn.metrics import log_loss, roc_auc_score  # slow to import

    labels, said = predictions["label"].to_numpy(), probabilities(predictions)
    classes, sure, hits = range(said.shape[1]), said.max(axis=1), correct(predictions)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    off = np.bincount(bins, hits - sure, BINS)
    ranked = [roc_auc_score(labels == label, said[:, label]) for label in classes]
    return {
        "log_loss": float(log_loss(labels, said, labels=classes)),
        "brier": float(brier(predictions).mean()),
        "calibration_error": 100 * float(np.abs(off).sum() / len(labels)),
        "auroc": 100 * float(np.mean(ranked)),
        "lowest_recall": 100 * float(pd.Series(hits).groupby(labels).mean().min()),
    }


def probabilities(predictions: pd.DataFrame) -> Float[np.ndarray, "n c"]:
    """Of each class, from the logits of the classes that there are."""
    found: np.ndarray = softmax(predictions.filter(like=LOGIT).to_numpy(np.float64), axis=1)
    return found


def brier(predictions: pd.DataFrame) -> Float[np.ndarray, " n"]:
    """The squared distance of each sample's probabilities from its true class."""
    said = probabilities(predictions)
    true = np.arange(said.shape[1]) == predictions["label"].to_numpy()[:, None]
    distances: np.ndarray = ((said - true) ** 2).sum(axis=1)
    return distances


def top_share(reports: Int64[np.ndarray, " n"], top: int = 10) -> float:
    """Share of patches that are served by the `top` most chosen reports."""
    counts = np.sort(np.unique(reports, return_counts=True)[1])[::-1]
    return float(counts[:top].sum() / counts.sum())


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

    def __str__(self) -> str:
        return f"{self.estimate:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def each_interval(rows: pd.DataFrame) -> pd.Series:
    """The interval of each row of a table."""
    return pd.Series([Interval.of(row) for _, row in rows.iterrows()], rows.index, object)


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


def pooled_bootstrap(cells: Sequence[Cell], draws: int, rng: np.random.Generator) -> Interval:
    """Hierarchical bootstrap of the gain in balanced accuracy, averaged over cells.

    Seeds are drawn with replacement, and whole groups (patients, slides, or single patches where
    neither is known) are drawn with replacement; both settings share every draw. Drawing both is
    cautious (Owen 2007, the pigeonhole bootstrap): where the errors of seeds have nothing in
    common, the interval is up to about sqrt(3) times too wide.

    The seeds of a draw are the same in all cells, and its groups the same for all backbones on a
    data set: their errors are correlated, and drawing them apart would make the interval too
    narrow. Data sets are drawn apart from each other. Cells themselves are not drawn: the
    interval speaks of these backbones and data sets only.

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
    values = [_drawn(sums, min(BLOCK, draws - begin), rng) for begin in range(0, draws, BLOCK)]
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return Interval(float(np.mean(estimates)), 100 * float(low), 100 * float(high))


def _drawn(
    sums: dict[str, list[tuple[np.ndarray, np.ndarray]]], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """The mean over cells in each draw, as a fraction."""
    seeds = next(iter(sums.values()))[0][0].shape[0]
    counts = [seeds, *(len(parts[0][1]) for parts in sums.values())]
    # [draws, seeds], and [draws, units] for each data set
    seed_weight, *unit_weights = (_times_drawn(count, draws, rng) for count in counts)
    seed_weight = seed_weight / seeds
    per_cell = []
    for parts, unit_weight in zip(sums.values(), unit_weights, strict=True):
        size = parts[0][1]  # [units, classes], shared by the backbones
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


# -- Four words for a gain, by a model of crossed random effects.


MARGIN = 1.0  # points of balanced accuracy: less is smaller than what a second seed changes
POWER, LEVEL = 0.8, 0.95


class Word(StrEnum):
    """What an interval says of a gain."""

    HELPS = "helps"
    HURTS = "hurts"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


def word(sure: Interval, likely: Interval, margin: float = MARGIN) -> Word:
    """`helps` or `hurts` where the 95% interval lies off zero, `equivalent` where the 90% interval
    lies within the margin (two one-sided tests), `undecided` otherwise.
    """
    if sure.low > 0 or sure.high < 0:
        return Word.HELPS if sure.low > 0 else Word.HURTS
    within = -margin < likely.low and likely.high < margin
    return Word.EQUIVALENT if within else Word.UNDECIDED


@dataclass(frozen=True)
class Gain:
    """A gain in points, its standard error, and the degrees of freedom of that error."""

    estimate: float
    error: float
    freedom: float
    one_seed: bool = False  # or one patient: the error is that of the others, nothing is decided

    def interval(self, level: float = LEVEL) -> Interval:
        """Student's interval."""
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return Interval(self.estimate, self.estimate - half, self.estimate + half)

    def word(self, margin: float = MARGIN) -> Word:
        """See `word`; one seed decides nothing."""
        found = word(self.interval(), self.interval(0.9), margin)
        return Word.UNDECIDED if self.one_seed else found

    @property
    def p(self) -> float:
        """Two-sided p-value of no gain, by Student's t."""
        if self.error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return 2 * float(stdtr(self.freedom, -abs(self.estimate) / self.error))

    @property
    def smallest(self) -> float:
        """The smallest gain that such a design finds (as `helps`) with a power of 80%."""
        quantiles = stdtrit(self.freedom, np.array([(1 + LEVEL) / 2, POWER]))
        return float(quantiles.sum()) * self.error


JUDGED = ["gain", "low", "high", "low_90", "high_90", "word", "smallest"]


def judgement(gain: Gain, margin: float = MARGIN) -> tuple[object, ...]:
    """A gain as `JUDGED`: with its 95 and 90% intervals, its word, the smallest gain to be seen."""
    sure, likely = gain.interval(), gain.interval(0.90)
    ends = sure.low, sure.high, likely.low, likely.high
    return gain.estimate, *ends, str(gain.word(margin)), gain.smallest


def crossed_gain(cells: Sequence[Cell]) -> Gain:
    """The mean gain over cells in a model of crossed random effects of seeds and patients.

    Variance components are those of the two-way analysis of variance, none below zero (Searle,
    Casella and McCulloch 1992, section 4.4); degrees of freedom are Satterthwaite's. What a patient
    adds to a balanced accuracy is linearised. Backbones on one data set share seeds and patients,
    data sets share neither.

    Raises:
        ClipItError: no cell, numbers of seeds that differ, or test samples of one data set that do.
    """
    _check(cells)
    by_dataset: dict[str, list[Float[np.ndarray, "seeds units"]]] = {}
    for cell in cells:
        by_dataset.setdefault(cell.dataset, []).append(_contributions(cell))
    gains = [_two_way(np.mean(tables, axis=0)) for tables in by_dataset.values()]
    share = np.array([len(tables) for tables in by_dataset.values()]) / len(cells)
    variances = (share * [gain.error for gain in gains]) ** 2
    free = np.array([gain.freedom for gain in gains])
    # Without any error, or any bound of it, Satterthwaite's formula has no value.
    whole, freedom = variances.sum(), free.min()
    if 0 < whole < np.inf:
        freedom = whole**2 / (variances**2 / free).sum()
    estimate = float(share @ [gain.estimate for gain in gains])
    one_seed = any(gain.one_seed for gain in gains)
    return Gain(estimate, float(np.sqrt(whole)), float(freedom), one_seed)


def _contributions(cell: Cell) -> Float[np.ndarray, "seeds units"]:
    """What each unit adds to the gain with each seed, in points; a seed's mean is its gain."""
    total, size = cell.sums()
    whole = size.sum(axis=0)  # [classes]
    per_class = total.sum(axis=1) / whole  # [seeds, classes]
    off = (total - per_class[:, None] * size) / whole
    gains: np.ndarray = per_class.mean(axis=1, keepdims=True) + len(size) * off.mean(axis=2)
    return 100 * gains


def crossed_difference(
    first: Float[np.ndarray, "seeds n"], second: Float[np.ndarray, "seeds n"], groups: np.ndarray
) -> Gain:
    """The mean of `second - first` over samples, by the model of `crossed_gain`."""
    names, unit = np.unique(groups, return_inverse=True)
    change = second - first
    by_seed = change.mean(axis=1, keepdims=True)
    off = (change - by_seed) @ np.eye(len(names))[unit] / change.shape[1]
    return _two_way(by_seed + len(names) * off)


def _two_way(table: Float[np.ndarray, "seeds units"]) -> Gain:
    seeds, units = table.shape
    mean = float(table.mean())
    if units < 2:  # one patient says nothing of others
        return Gain(mean, float("inf"), 1.0, one_seed=True)
    if seeds < 2:
        return Gain(mean, float(table.std(ddof=1) / np.sqrt(units)), units - 1.0, one_seed=True)
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    rest = table - rows - columns + mean
    free = np.array([seeds - 1, units - 1, (seeds - 1) * (units - 1)], float)
    of_seed, of_unit, residual = (
        np.array([units * ((rows - mean) ** 2).sum(), seeds * ((columns - mean) ** 2).sum(),
                  (rest**2).sum()]) / free
    )  # fmt: skip
    # A component below zero is zero, and what is left stands for the mean square of the others.
    share = np.array([of_seed > residual, of_unit > residual])
    weights = np.array([*share, 1.0 - share.sum()]) / (seeds * units)
    squares = np.array([of_seed, of_unit, residual])
    variance = float(weights @ squares)
    if variance == 0:  # the two settings are right on the same samples
        return Gain(mean, 0.0, float(free[2]))
    freedom = variance**2 / ((weights * squares) ** 2 / free).sum()
    return Gain(mean, float(np.sqrt(variance)), float(freedom))
