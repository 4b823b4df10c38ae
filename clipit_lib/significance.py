"""Tests shown for transparency; conclusions rest on the intervals of `statistics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import binomtest, combine_pvalues

from clipit_lib.names import label
from clipit_lib.runs import StoredRun
from clipit_lib.tables import CELL, paired_cell

LEVEL = 0.05
PAIR = ["first", "second"]


@dataclass(frozen=True)
class McNemar:
    """Test samples on which two classifiers differ, and the two-sided exact p-value.

    Attributes:
        lost: samples that only the first has right.
        gained: samples that only the second has right.
    """

    lost: int
    gained: int
    p: float


def mcnemar(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> McNemar:
    """Exact McNemar test that both classifiers are right equally often (in plain accuracy).

    Under that null each sample on which they differ is a fair coin. It takes samples as
    independent: where many patches come from one patient, p is too small.
    """
    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    differ = lost + gained
    return McNemar(lost, gained, float(binomtest(gained, differ).pvalue) if differ else 1.0)


def holm(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """p-values of a family adjusted by Holm's step-down, in the order given.

    The i-th smallest of k is multiplied by k - i + 1, made no smaller than the one before it and
    at most 1. Rejecting those below a level keeps the chance of any false rejection below that
    level, whatever the dependence between the tests.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def fisher_as_in_the_paper(p: Float[np.ndarray, " k"]) -> float:
    """Fisher's combined probability test: -2 sum(log p) against chi-square with 2k degrees.

    The paper reports one; it does not say which tests it combines. Nothing should rest on it
    here. It supposes independent p-values, but all seeds and backbones of a data set are tested
    on the same samples: one piece of luck in them is counted once a run, and the result tends to
    be too small. A p-value with two sides does not know a gain from a loss either: both lower it.
    """
    # An exact p-value can be too small for a float; the logarithm must stay finite.
    return float(combine_pvalues(np.clip(p, np.finfo(float).tiny, 1.0), method="fisher").pvalue)


def seed_tests(runs: Sequence[StoredRun], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """McNemar's test of every cell, pair of settings and seed, adjusted over all of them.

    Returns one row a test: dataset, backbone, first, second, seed, lost, gained, p, p_holm.

    Raises:
        ClipItError: two settings were not run with the same seeds.
    """
    rows = []
    for dataset, backbone in dict.fromkeys((r.spec.dataset, r.spec.backbone) for r in runs):
        for first, second in pairs:
            seeds, cell = paired_cell(runs, dataset, backbone, first, second)
            for seed, before, after in zip(seeds, cell.first, cell.second, strict=True):
                found = mcnemar(before, after)
                each = [dataset, backbone, first, second, seed, found.lost, found.gained, found.p]
                rows.append(each)
    tests = pd.DataFrame(rows, columns=[*CELL, *PAIR, "seed", "lost", "gained", "p"])
    return tests.assign(p_holm=holm(tests["p"].to_numpy(dtype=float)))


def in_text(tests: pd.DataFrame) -> pd.DataFrame:
    """The same with p-values written to four digits, however small, for a csv file."""
    return tests.assign(**{name: tests[name].map("{:.4g}".format) for name in ("p", "p_holm")})


def seed_table(tests: pd.DataFrame) -> pd.DataFrame:
    """To read: one row a cell and comparison, one column a seed: `-lost +gained: p (p_holm)`."""
    rows = []
    for (dataset, backbone, first, second), cell in tests.groupby([*CELL, *PAIR], sort=False):
        row = {"data set": dataset, "backbone": backbone, "comparison": _against(first, second)}
        for _, test in cell.iterrows():
            row[f"seed {test['seed']}"] = (
                f"-{test['lost']} +{test['gained']}: {test['p']:.2g} ({test['p_holm']:.2g})"
            )
        rows.append(row)
    return pd.DataFrame(rows)


def fisher_table(tests: pd.DataFrame) -> pd.DataFrame:
    """To read: the combination "as in the paper" of all backbones and seeds on a data set."""
    rows = [
        {
            "data set": dataset,
            "comparison": _against(first, second),
            "tests": len(part),
            "lost": part["lost"].sum(),
            "gained": part["gained"].sum(),
            "Fisher's p, as in the paper": f"{fisher_as_in_the_paper(part['p'].to_numpy()):.2g}",
        }
        for (dataset, first, second), part in tests.groupby(["dataset", *PAIR], sort=False)
    ]
    return pd.DataFrame(rows)


def family_words(tests: pd.DataFrame) -> str:
    """What the family of Holm's adjustment is, and what is left after it."""
    kept = tests[tests["p_holm"] < LEVEL]
    gains, losses = (kept["gained"] > kept["lost"]).sum(), (kept["gained"] < kept["lost"]).sum()
    cells, seeds = len(tests[CELL].drop_duplicates()), tests["seed"].nunique()
    compared = len(tests[PAIR].drop_duplicates())
    return (
        f"The family is every test in this table: {len(tests)}, from {cells} cells (data set x "
        f"backbone), {seeds} seeds and {compared} comparisons. Tests with p below {LEVEL}, each "
        f"taken alone: {(tests['p'] < LEVEL).sum()}; adjusted over the family: {len(kept)} "
        f"(gains: {gains}, losses: {losses})."
    )


def _against(first: object, second: object) -> str:
    return f"{label(str(second))} over {label(str(first))}"
