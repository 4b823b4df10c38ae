"""Classical tests against sums written out by hand, simulated nulls and simulated effects."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from clipit_lib.errors import ClipItError
from clipit_lib.paths import repository
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import studies, tables
from companion.profile import Workbench, load_profile
from companion.tables import fisher_as_in_the_paper, holm, mcnemar


def coin(heads: int, tosses: int) -> float:
    """Chance that a fair coin gives a count no likelier than this one."""
    ways = [math.comb(tosses, k) for k in range(tosses + 1)]
    return sum(each for each in ways if each <= ways[heads]) / 2**tosses


@given(st.tuples(*[st.integers(0, 60)] * 4), st.integers(0, 99))
def test_mcnemar_is_the_binomial_written_out(counts: tuple[int, ...], seed: int) -> None:
    both, neither, lost, gained = counts
    first = np.repeat([True, False, True, False], [both, neither, lost, gained])
    second = np.repeat([True, False, False, True], [both, neither, lost, gained])
    order = np.random.default_rng(seed).permutation(len(first))
    *counted, p = mcnemar(first[order], second[order])
    assert counted == [lost, gained]
    assert p == pytest.approx(coin(gained, lost + gained), rel=1e-9)


def test_holm_of_four_by_hand() -> None:
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04, which may not fall below the one before.
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])


def rejected(p: list[float], level: float) -> list[bool]:
    """Holm's procedure as he states it: stop at the first that is not below its own bound."""
    answer = [False] * len(p)
    for step, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[at] > level / (len(p) - step):
            break
        answer[at] = True
    return answer


# Odd multiples of 1/2000, so that no p times a whole number meets a level below exactly.
P = st.lists(st.integers(0, 999).map(lambda k: (2 * k + 1) / 2000), max_size=12)


@given(P, st.sampled_from([0.0111, 0.0503, 0.2003, 0.7001, 0.9997]))
def test_holm_rejects_what_the_procedure_rejects(p: list[float], level: float) -> None:
    adjusted = holm(np.array(p))
    assert (adjusted <= level).tolist() == rejected(p, level)


@given(P)
def test_holm_keeps_order_and_stays_between_p_and_bonferroni(p: list[float]) -> None:
    raw = np.array(p)
    adjusted = holm(raw)
    assert (adjusted >= raw).all() and (adjusted <= np.minimum(len(p) * raw, 1)).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=20))
def test_fisher_is_the_tail_of_chi_square_written_out(p: list[float]) -> None:
    # With 2k degrees the tail beyond x is exp(-x / 2) times the first k terms of exp(x / 2).
    half = -sum(map(math.log, p))
    tail = math.exp(-half) * sum(half**i / math.factorial(i) for i in range(len(p)))
    assert fisher_as_in_the_paper(np.array(p)) == pytest.approx(tail, rel=1e-6)


def test_fisher_bears_a_p_value_too_small_for_a_float() -> None:
    assert 0 <= fisher_as_in_the_paper(np.array([0.0, 0.5])) < 1e-300


def bounds(chance: float, repeats: int) -> tuple[float, float]:
    """Where the share of `repeats` lies with a chance of 0.9995."""
    low, high = binom.ppf([0.00025, 0.99975], repeats, chance) / repeats
    return low, high


def share_of_rejections(gain: float, repeats: int) -> float:
    """McNemar at 5% on 400 samples, of which the second has 70% + `gain` right."""
    rng = np.random.default_rng(5)
    first, second = rng.random((repeats, 400)) < 0.7, rng.random((repeats, 400)) < 0.7 + gain
    pairs = zip(first, second, strict=True)
    return float(np.mean([mcnemar(*each)[2] < 0.05 for each in pairs]))


def test_mcnemar_is_wrong_as_often_as_it_must_be_under_the_null() -> None:
    # What 5% becomes for whole counts: the largest two tails below it, averaged over how many
    # samples differ.
    level = 0.0
    for differ in range(401):
        tails, k = 0.0, 0
        while tails + 2 * math.comb(differ, k) / 2**differ < 0.05:
            tails, k = tails + 2 * math.comb(differ, k) / 2**differ, k + 1
        level += binom.pmf(differ, 400, 2 * 0.7 * 0.3) * tails
    assert 0.03 < level < 0.05
    low, high = bounds(level, 1500)
    assert low <= share_of_rejections(0.0, 1500) <= high


def test_mcnemar_finds_a_large_effect() -> None:
    assert share_of_rejections(0.15, 300) > 0.99


def test_holm_under_the_null_and_with_one_effect() -> None:
    rng = np.random.default_rng(6)
    p = rng.random((3000, 15))
    wrong = np.mean([(holm(row) < 0.05).any() for row in p])
    low, high = bounds(1 - (1 - 0.05 / 15) ** 15, 3000)  # the smallest of 15 falls below 5% / 15
    assert low <= wrong <= high
    p[:, 3] = 1e-4
    assert all(holm(row)[3] < 0.05 for row in p)


def test_fisher_keeps_its_level_only_for_independent_tests() -> None:
    rng = np.random.default_rng(7)
    low, high = bounds(0.05, 3000)
    apart = np.mean([fisher_as_in_the_paper(row) < 0.05 for row in rng.random((3000, 5))])
    assert low <= apart <= high
    # Equally good settings, 15 runs, one test set: each sample favours the same setting in nearly
    # every run. McNemar keeps its level in each run, the combination does not.
    alone, combined = [], []
    for _ in range(250):
        favoured = rng.random(100) < 0.5
        p = [mcnemar(~favoured, favoured ^ (rng.random(100) < 0.1))[2] for _ in range(15)]
        alone.append(p[0] < 0.05)
        combined.append(fisher_as_in_the_paper(np.array(p)) < 0.05)
    assert np.mean(alone) <= bounds(0.05, 250)[1]
    assert np.mean(combined) > 0.1


class Run(StoredRun):
    """A stored run whose test answers are given."""

    def predictions(self, split: str = "test") -> pd.DataFrame:
        right = RIGHT[self.spec.setting, self.spec.seed]
        answer = np.array([int(each) for each in right])
        names = [f"p{i}" for i in range(len(right))]
        frame = pd.DataFrame({"sample": names, "group": "", "label": 1})
        return frame.assign(logit_0=1.0 - answer, logit_1=1.0 * answer)


RIGHT = {
    ("unimodal", 0): "0000000011", ("clip_it", 0): "1111111100",  # 8 gained, 2 lost
    ("unimodal", 1): "1111100000", ("clip_it", 1): "0000000000",  # 5 lost
}  # fmt: skip


def runs_of(*keys: tuple[str, int]) -> list[Run]:
    return [
        Run(Path(f"{setting}{seed}"),
            RunSpec.model_construct(dataset="d", backbone="b", setting=setting, seed=seed))
        for setting, seed in keys
    ]  # fmt: skip


def test_tables_and_words_of_two_seeds_by_hand() -> None:
    tests = tables.seed_tests(runs_of(*RIGHT), [("unimodal", "clip_it")])
    assert list(tests.columns) == [
        "dataset", "backbone", "first", "second", "seed", "lost", "gained", "p", "p_holm",
    ]  # fmt: skip
    assert tests[["seed", "lost", "gained"]].to_numpy().tolist() == [[0, 2, 8], [1, 5, 0]]
    p = [2 * (1 + 10 + 45) / 1024, 2 / 32]  # at most 2 of 10, none of 5
    assert tests["p"].tolist() == pytest.approx(p)
    assert tests["p_holm"].tolist() == pytest.approx([2 * p[1], 2 * p[1]])
    row = tables.seed_table(tests).iloc[0]
    assert row["comparison"] == "CLIP-IT over unimodal (probe)"
    assert row["seed 0"] == "-2 +8: 0.11 (0.12)" and row["seed 1"] == "-5 +0: 0.062 (0.12)"
    combined = tables.fisher_table(tests).iloc[0]
    assert (combined["tests"], combined["lost"], combined["gained"]) == (2, 7, 8)
    product = p[0] * p[1]
    assert float(combined["Fisher's p, as in the paper"]) == pytest.approx(
        product * (1 - math.log(product)), rel=0.05
    )
    said = tables.family_words(tests)
    assert "every test in this table: 2, from 1 cells" in said and "2 seeds" in said
    assert said.endswith("alone: 0; adjusted over the family: 0 (gains: 0, losses: 0).")
    words = tables.family_words(tests.assign(p=[0.03, 0.02], p_holm=[0.06, 0.04]))
    assert words.endswith("alone: 2; adjusted over the family: 1 (gains: 0, losses: 1).")


def test_a_p_value_too_small_for_four_decimals_is_kept_in_writing() -> None:
    tests = pd.DataFrame({"p": [1.23456e-20, 0.5], "p_holm": [2.4e-20, 0.5]})
    assert tables.in_text(tests)["p"].tolist() == ["1.235e-20", "0.5"]


def test_settings_with_other_seeds_are_refused() -> None:
    keys = [key for key in RIGHT if key != ("clip_it", 1)]
    with pytest.raises(ClipItError, match="same seeds"):
        tables.seed_tests(runs_of(*keys), [("unimodal", "clip_it")])


def test_recalls_of_classes_average_to_the_balanced_accuracy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLIPIT_PREDICTIONS", str(repository() / "results"))
    stored = studies.stored(Workbench(load_profile("demo")), "controls")
    found = tables.recall_table(stored, "clip_it")
    firsts = list(found["first"].unique())
    whole = tables.gain_table(stored, [(first, "clip_it") for first in firsts])
    cells = ["dataset", "backbone", "first"]
    assert len(firsts) > 5 and set(found["class"]) >= {0, 1}
    pd.testing.assert_series_equal(
        found.groupby(cells)["gain"].mean(), whole.groupby(cells)["gain"].mean()
    )
    assert (found["p_holm"] >= found["p"]).all()
    decided = (found["low"] > 0) | (found["high"] < 0)
    assert (decided == (found["p"] < 0.05)).all()
