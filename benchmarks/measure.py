"""Times taken in turn, and ratios of their medians with an interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch

Clock = Callable[[], float]
Scale = Literal["micro", "quick", "full"]
Sense = Literal["at_least", "at_most"]
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One line of `results/benchmarks.csv`; `low` to `high` holds the ratio with 95%."""

    name: str
    ratio: float
    goal: float | None
    sense: Sense
    note: str
    low: float
    high: float
    repeats: int

    @property
    def met(self) -> bool | None:
        """Whether the ratio is on the right side of the goal; None without a goal."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.sense == "at_least" else self.ratio <= self.goal


def timed(work: Callable[[], object], per: float = 1.0) -> Clock:
    """A clock that does the work and returns the seconds it took, divided by `per`."""

    def clock() -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) / per

    return clock


def interleaved(clocks: Mapping[str, Clock], repeats: int, warm_up: int = 1) -> pd.DataFrame:
    """Seconds, one row a round and one column a clock; all clocks run once in each round.

    `warm_up` rounds before them are thrown away.
    """
    rounds = [{name: clock() for name, clock in clocks.items()} for _ in range(warm_up + repeats)]
    return pd.DataFrame(rounds[warm_up:])


def measured(
    name: str,
    times: pd.DataFrame,
    statistic: Callable[[pd.DataFrame], np.ndarray],
    note: str,
    goal: float | None = None,
    sense: Sense = "at_most",
) -> Row:
    """A statistic of medians; whole rounds are drawn again for its bootstrap interval.

    Args:
        times: seconds [rounds, clocks] of `interleaved`.
        statistic: medians [resamples, clocks] to values [resamples].
    """
    rounds, names = times.to_numpy(), list(times)
    drawn = np.random.default_rng(0).integers(len(rounds), size=(RESAMPLES, len(rounds)))
    medians = np.median(rounds[drawn], axis=1)  # [resamples, clocks]
    low, high = np.quantile(statistic(pd.DataFrame(medians, columns=names)), [0.025, 0.975])
    value = statistic(times.median().to_frame().T)[0]
    return Row(name, float(value), goal, sense, note, float(low), float(high), len(rounds))


def ratio(
    name: str,
    times: pd.DataFrame,
    above: str,
    below: str,
    note: str,
    goal: float | None = None,
    sense: Sense = "at_most",
) -> Row:
    """Median seconds of one clock over those of another."""
    statistic: Callable[[pd.DataFrame], np.ndarray] = lambda m: (m[above] / m[below]).to_numpy()  # noqa: E731
    return measured(name, times, statistic, note, goal, sense)


def counted(name: str, value: float, note: str, goal: float, sense: Sense = "at_most") -> Row:
    """What is counted or computed once has no spread."""
    return Row(name, value, goal, sense, note, value, value, 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on this many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
