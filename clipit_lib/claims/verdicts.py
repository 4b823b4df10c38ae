"""From numbers to a verdict: one pure function a kind of rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from clipit_lib.statistics import Interval


class Verdict(StrEnum):
    """Verdicts, the strongest first."""

    REPRODUCED = "reproduced"
    DIRECTION = "direction only"
    NOT = "not reproduced"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class Finding:
    """A verdict and what it rests on.

    Attributes:
        ours: the number that was judged, with its interval where it has one.
        reason: what a reader needs beside the number; why, if the claim is not testable.
        runs: keys of the runs behind it.
    """

    verdict: Verdict
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    runs: tuple[str, ...] = ()


def of(sure: bool, direction: bool) -> Verdict:
    """Reproduced if sure, else by the direction."""
    if sure:
        return Verdict.REPRODUCED
    return Verdict.DIRECTION if direction else Verdict.NOT


def gain(value: Interval) -> Verdict:
    return of(value.low > 0, value.estimate > 0)


def equal(value: Interval, margin: float) -> Verdict:
    return of(-margin <= value.low and value.high <= margin, abs(value.estimate) <= margin)


def not_worse(value: Interval, margin: float) -> Verdict:
    return of(value.low > -margin, value.estimate > -margin)


def share_higher(gains: Sequence[float], share: float) -> Verdict:
    """By the gains of all cells."""
    higher = sum(gain > 0 for gain in gains) / len(gains)
    return of(higher >= share, higher > 0.5)


def no_loss(highs: Sequence[float]) -> Verdict:
    """By the upper ends of the intervals of all cells."""
    losses = sum(high < 0 for high in highs)
    return of(losses == 0, 10 * losses <= len(highs))


def weakest(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=list(Verdict).index)


def falling(correlation: float, first_over_last: Interval) -> Verdict:
    """By Spearman's correlation of rank and mean accuracy; its rounding errors do not count."""
    falls, above = round(correlation, 9) < -0.5, first_over_last.low > 0
    return of(falls and above, falls or above)
