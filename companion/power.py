"""What a design of seeds and patients can see: planted gains, and worlds whose answer is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from clipit_lib.runs import StoredRun
from companion import tables
from companion.specs import Setting, label
from companion.statistics import (
    JUDGED,
    MARGIN,
    Cell,
    Word,
    crossed_gain,
    judgement,
    pooled_bootstrap,
)

RANDOM = "clip_it/random_reports"

# -- What a design can see: worlds with a planted gain, judged as ours are.


@dataclass(frozen=True)
class Spread:
    """Standard deviations of what makes a sample right or wrong, in a probit model.

    Attributes:
        right: share of samples that the reference gets right, in percent.
        patient, sample: of what both settings share.
        patient_gain, seed_gain: of what they do not share; the noise of each sample has 1.
        sample_gain: of how much a sample suits one setting more than the other.
    """

    right: float = 85.0
    patient: float = 0.3
    sample: float = 2.5
    patient_gain: float = 0.1
    seed_gain: float = 0.1
    sample_gain: float = 0.3

    @property
    def total(self) -> float:
        """Of one setting's latent, so that its share of right samples is known."""
        own = (self.patient_gain**2 + self.seed_gain**2 + self.sample_gain**2) / 2
        return float(np.sqrt(1 + self.patient**2 + self.sample**2 + own))


@dataclass(frozen=True)
class Design:
    """How much is run and tested."""

    seeds: int
    patients: int
    patches: int = 20


def planted(design: Design, spread: Spread, gain: float, rng: np.random.Generator) -> Cell:
    """What two settings get right whose accuracies differ by `gain` points in expectation."""
    people = np.repeat(np.arange(design.patients), design.patches)
    count, ends = len(people), stats.norm.ppf(np.array([spread.right, spread.right + gain]) / 100)
    shared = spread.patient * rng.standard_normal(design.patients)[people]
    shared = shared + spread.sample * rng.standard_normal(count)
    hits = []
    for end in ends:
        own = spread.patient_gain * rng.standard_normal(design.patients)[people]
        own = own + spread.sample_gain * rng.standard_normal(count)
        seed = spread.seed_gain * rng.standard_normal((design.seeds, 1))
        # Half of the variance of a difference is each one's.
        latent = shared + (own + seed) / np.sqrt(2) + rng.standard_normal((design.seeds, count))
        hits.append(latent + end * spread.total > 0)
    return Cell("planted", hits[0], hits[1], np.zeros(count, np.int64), people)


def judged(
    designs: Sequence[Design],
    gains: Iterable[float],
    worlds: int,
    draws: int,
    seed: int = 0,
    spread: Spread = Spread(),
) -> pd.DataFrame:
    """How planted gains are judged: one row per design, gain and world.

    Columns: seeds, patients, planted, estimate, smallest, word, crossed and bootstrap (whether
    each 95% interval holds the planted gain), and the widths of both.
    """
    rows = []
    for design in designs:
        for number, gain in enumerate(gains):
            for world in range(worlds):
                rng = np.random.default_rng([seed, design.seeds, design.patients, number, world])
                cell = planted(design, spread, gain, rng)
                found = crossed_gain([cell])
                both = found.interval(), pooled_bootstrap([cell], draws, rng)
                rows.append(
                    (design.seeds, design.patients, gain, found.estimate, found.smallest,
                     found.word(), *(each.low <= gain <= each.high for each in both),
                     *(each.high - each.low for each in both))
                )  # fmt: skip
    columns = ["seeds", "patients", "planted", "estimate", "smallest", "word", "crossed",
               "bootstrap", "crossed_width", "bootstrap_width"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """One row per design and planted gain: percent of the worlds with each word, and of the
    intervals that hold the gain; the mean of the smallest gain that a world could have found.
    """
    given = found.assign(**{str(word): found["word"] == word for word in Word})
    shares = [*map(str, Word), "crossed", "bootstrap"]
    by_design = given.groupby(["seeds", "patients", "planted"])
    table = (100 * by_design[shares].mean()).assign(worlds=by_design.size())
    return table.assign(smallest=by_design["smallest"].mean()).reset_index()


def power_words(table: pd.DataFrame) -> str:
    """What `summary` says, one Markdown item per design."""
    lines = []
    for (seeds, patients), rows in table.groupby(["seeds", "patients"]):
        by_gain = rows.set_index("planted")
        none, two = by_gain.loc[0], by_gain.loc[2]
        lines.append(
            f"- {seeds} seeds, {patients} patients: a gain of 2 points is found in "
            f"{two['helps']:.0f}% of the worlds; where there is none, {none['helps']:.0f}% are "
            f"called helps, {none['hurts']:.0f}% hurts and {none['equivalent']:.0f}% equivalent; "
            f"the 95% interval holds the truth in {rows['crossed'].mean():.1f}% (the bootstrap's: "
            f"{rows['bootstrap'].mean():.1f}%)."
        )
    return "\n".join(lines)


# -- Stored runs judged so.


def over_random(stored: Sequence[StoredRun], margin: float = MARGIN) -> pd.DataFrame:
    """The gain of each setting of a known world over random reports, with its word.

    Columns: setting, label, right (percent of the patches with their own informed report; missing
    elsewhere) and `JUDGED`.
    """
    rows = []
    for setting in dict.fromkeys(run.spec.setting for run in stored):
        own = Setting.of(setting)
        on_curve = own.base == "clip_it" and list(own.changes) == ["own"]
        right = float(own.changes["own"]) if on_curve else float("nan")
        if setting != RANDOM:
            gain = tables.pooled_gain(stored, RANDOM, setting)
            rows.append((setting, label(setting), right, *judgement(gain, margin)))
    return pd.DataFrame(rows, columns=["setting", "label", "right", *JUDGED])
