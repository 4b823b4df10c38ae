"""The paired and the pooled bootstrap on cases with a known answer and on simulated truths."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipit_lib.errors import ClipItError
from clipit_lib.predictions import LOGIT
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import tables
from companion.statistics import (
    Cell,
    Interval,
    Word,
    crossed_difference,
    crossed_gain,
    pooled_bootstrap,
    scores,
    units,
    word,
)


def interval(first: np.ndarray, second: np.ndarray, labels: np.ndarray, groups: np.ndarray):
    return paired(Cell("", first, second, labels, groups), 300, np.random.default_rng(0))


def paired(cell: Cell, draws: int, rng: np.random.Generator) -> Interval:
    return pooled_bootstrap([cell], draws, rng)


def test_estimate_is_the_gain_in_balanced_accuracy() -> None:
    labels = np.array([0, 0, 0, 1])
    first = np.array([[True, False, False, False]])  # (1/3 + 0) / 2
    second = np.array([[True, True, False, True]])  # (2/3 + 1) / 2
    found = interval(first, second, labels, np.arange(4))
    assert found.estimate == pytest.approx(100 * (5 / 6 - 1 / 6))


@pytest.mark.parametrize(
    ("sure", "likely", "said"),
    [
        ((0.1, 3.0), (0.3, 2.0), Word.HELPS), ((-3.0, -0.1), (-2.0, -0.3), Word.HURTS),
        ((0.0, 3.0), (0.2, 2.0), Word.UNDECIDED), ((-1.2, 1.2), (-0.9, 0.9), Word.EQUIVALENT),
        ((-1.2, 1.2), (-0.9, 1.0), Word.UNDECIDED), ((0.1, 0.5), (0.2, 0.4), Word.HELPS),
    ],
)  # fmt: skip
def test_a_word_is_decided_by_both_intervals(
    sure: tuple[float, float], likely: tuple[float, float], said: Word
) -> None:
    assert word(Interval(0.0, *sure), Interval(0.0, *likely), margin=1.0) is said


def test_one_seed_has_the_error_of_its_patients_and_decides_nothing() -> None:
    """Patients 0 and 1 gain all of their patches, 2 and 3 one of two."""
    second = np.array([[True, True, True, True, True, False, True, False]])
    groups, labels = np.arange(8) // 2, np.zeros(8, int)
    found = crossed_gain([Cell("a", np.zeros((1, 8), bool), second, labels, groups)])
    assert found.estimate == pytest.approx(75)
    assert found.error == pytest.approx(np.std([100, 100, 50, 50], ddof=1) / 2)
    assert (found.freedom, found.word()) == (3, Word.UNDECIDED)
    one_patient = Cell("a", np.zeros((2, 8), bool), second.repeat(2, 0), labels, 0 * groups)
    alone = crossed_gain([one_patient])
    assert alone.word() is Word.UNDECIDED and alone.interval().high == np.inf


def test_a_data_set_counts_by_its_cells() -> None:
    cells = [cell(1), cell(2), cell(3, "b", gain=-0.1, n=60)]
    a, b = crossed_gain(cells[:2]), crossed_gain(cells[2:])
    found = crossed_gain(cells)
    assert found.estimate == pytest.approx((2 * a.estimate + b.estimate) / 3)
    assert found.error == pytest.approx(np.hypot(2 * a.error, b.error) / 3)


def test_patients_are_drawn_and_patches_where_none_is_known() -> None:
    samples = pd.DataFrame({"sample": ["a", "b", "c"], "group": ["p", "", "p"]})
    assert units(samples).tolist() == ["p", "b", "p"]


def test_no_difference_has_no_width() -> None:
    hits = np.random.default_rng(0).random((3, 50)) < 0.7
    found = interval(hits, hits, np.arange(50) % 2, np.arange(50))
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], 200)
    patient = np.repeat(np.arange(20), 20)
    effect = rng.random(20)[patient]  # patients differ, patches of one patient agree
    first = np.zeros((2, 400), bool)
    second = np.tile(effect > 0.5, (2, 1))
    alone = interval(first, second, labels, np.arange(400))
    grouped = interval(first, second, labels, patient)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def simulated_share_excluding_zero(gain: float, repeats: int = 120) -> float:
    rng = np.random.default_rng(7)
    labels, groups = np.arange(200) % 2, np.arange(200) // 4
    excluded = 0
    for _ in range(repeats):
        patients = np.repeat(rng.normal(0, 0.1, 50), 4)
        seeds = rng.normal(0, 0.01, (5, 1))
        first = rng.random((5, 200)) < 0.6 + patients
        second = rng.random((5, 200)) < 0.6 + gain + patients + seeds
        found = paired(Cell("", first, second, labels, groups), 200, rng)
        excluded += found.low > 0 or found.high < 0
    return excluded / repeats


def test_simulated_null_is_rejected_about_as_often_as_stated() -> None:
    assert simulated_share_excluding_zero(0.0) <= 0.12


def test_simulated_effect_is_found() -> None:
    assert simulated_share_excluding_zero(0.15, repeats=40) >= 0.9


def pooled(*cells: Cell, draws: int = 2000, seed: int = 0) -> Interval:
    return pooled_bootstrap(cells, draws, np.random.default_rng(seed))


def cell(seed: int, dataset: str = "a", gain: float = 0.1, seeds: int = 3, n: int = 120) -> Cell:
    """Two settings of which the second is right more often; 4 patches a patient, 3 classes.

    What a seed or a patient does to the gain is the same in all cells that share it.
    """
    rng, shared = np.random.default_rng(seed), np.random.default_rng([9, n])
    effect = shared.normal(0, 0.15, n // 4).repeat(4) + np.linspace(-0.08, 0.08, seeds)[:, None]
    first = rng.random((seeds, n)) < 0.5
    second = rng.random((seeds, n)) < 0.5 + gain + effect
    return Cell(dataset, first, second, np.arange(n) % 7 % 3, np.arange(n) // 4)


def balanced(hits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([hits[labels == c].mean() for c in np.unique(labels)]))


def by_loop(cells: Sequence[Cell], draws: int, rng: np.random.Generator) -> np.ndarray:
    """Every draw written out: the drawn samples laid side by side, accuracies taken from them."""
    values = []
    for _ in range(draws):
        seeds = rng.choice(len(cells[0].first), len(cells[0].first))
        rows: dict[str, np.ndarray] = {}
        gains = []
        for each in cells:
            if each.dataset not in rows:
                units = np.unique(each.groups)
                drawn = rng.choice(units, len(units))
                rows[each.dataset] = np.concatenate(
                    [np.flatnonzero(each.groups == u) for u in drawn]
                )
            at = rows[each.dataset]
            gains.append(np.mean([
                balanced(each.second[s, at], each.labels[at])
                - balanced(each.first[s, at], each.labels[at])
                for s in seeds
            ]))  # fmt: skip
        values.append(np.mean(gains))
    return 100 * np.array(values)


def same_interval(one: Interval, other: Interval) -> bool:
    """Ends within 4 standard errors of the quantiles of a normal in 2000 draws each.

    Such a quantile errs by sqrt(0.025 x 0.975 / 2000) / density, 0.06 of a deviation; the
    difference of two by 0.084; the interval is 3.92 deviations wide.
    """
    allowed = 4 * 0.084 * (one.high - one.low) / 3.92
    return max(abs(one.low - other.low), abs(one.high - other.high)) < allowed


def test_pooled_estimate_is_the_mean_over_cells() -> None:
    cells = [cell(1), cell(2), cell(3, "b", gain=-0.1, n=60)]
    gains = [
        balanced(second, each.labels) - balanced(first, each.labels)
        for each in cells
        for first, second in zip(each.first, each.second, strict=True)
    ]
    found = pooled(*cells, draws=10).estimate
    assert found == pytest.approx(100 * np.mean(gains), rel=1e-12)
    assert found == np.mean([pooled(each, draws=1).estimate for each in cells])


def test_pooled_interval_is_that_of_a_loop_over_draws() -> None:
    cells = [cell(1), cell(2), cell(3, "b", gain=-0.1, n=60)]
    values = by_loop(cells, 2000, np.random.default_rng(4))
    found, low, high = pooled(*cells), *np.percentile(values, [2.5, 97.5])
    assert same_interval(found, Interval(values.mean(), low, high))
    # Draws apart from each other in every cell would be clearly narrower.
    rng = np.random.default_rng(5)
    apart = np.mean([by_loop([each], 500, rng) for each in cells], axis=0)
    assert values.std() > 1.1 * apart.std()


def test_seeds_are_shared_by_all_cells_and_groups_by_those_of_a_data_set() -> None:
    labels, groups = np.zeros(40, int), np.arange(40)
    nothing = np.zeros((5, 40), bool)
    by_seed = np.repeat(np.arange(5)[:, None] < 2, 40, axis=1)  # two seeds gain, on every sample
    by_sample = np.tile(np.arange(40) < 16, (5, 1))  # every seed gains, on 16 samples

    def width(hits: np.ndarray, *datasets: str) -> float:
        found = pooled(*(Cell(name, nothing, hits, labels, groups) for name in datasets))
        return found.high - found.low

    assert width(by_seed, "a") == width(by_seed, "a", "a") == width(by_seed, "a", "b") > 0
    assert width(by_sample, "a", "a") == width(by_sample, "a")
    halved = width(by_sample, "a", "b") / width(by_sample, "a")
    assert halved == pytest.approx(np.sqrt(0.5), abs=0.1)


def test_a_class_missing_from_a_draw_is_left_out_of_it() -> None:
    rare = Cell("a", np.zeros((2, 3), bool), np.ones((2, 3), bool), np.array([0, 0, 1]),
                np.array(["x", "x", "y"]))  # fmt: skip
    found = pooled(rare, draws=300)
    assert (found.estimate, found.low, found.high) == (100, 100, 100)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([], "no cell"),
        ([cell(1), cell(2, "b", seeds=2)], r"cells with \[2, 3\] seeds"),
        ([cell(1), cell(2, n=80)], "two backbones on a were tested on different samples"),
        ([cell(1), replace(cell(2), groups=np.arange(120))], "on a were tested on different"),
        ([cell(1), replace(cell(2), labels=np.arange(120) % 3)], "on a were tested on different"),
    ],
)
def test_cells_that_cannot_be_pooled_are_refused(cells: list[Cell], said: str) -> None:
    with pytest.raises(ClipItError, match=said) as refusal:
        pooled(*cells)
    assert "\n" not in str(refusal.value)


def pooled_share_excluding_zero(gain: float, repeats: int) -> float:
    """Two backbones on one data set and one on another, five seeds, four patches a patient.

    A patch has a margin with each setting, much the same in all seeds; patients and seeds shift
    that of the second, and `gain` does. At zero both are right on half of all patches.
    """
    rng = np.random.default_rng(8)
    labels, groups = np.arange(200) % 2, np.arange(200) // 4
    excluded = 0
    for _ in range(repeats):
        shift = {name: rng.normal(3 * gain, 0.4, 50).repeat(4) for name in "ab"}
        of_seed = rng.normal(0, 0.05, (5, 1))
        cells = []
        for name in "aab":
            noise = rng.normal(0, 0.1, (2, 5, 200))
            first, second = rng.normal(size=(2, 1, 200)) + noise
            second = second + of_seed + shift[name]
            cells.append(Cell(name, first > 0, second > 0, labels, groups))
        found = pooled_bootstrap(cells, 200, rng)
        excluded += found.low > 0 or found.high < 0
    return excluded / repeats


def test_pooled_null_is_rejected_about_as_often_as_stated() -> None:
    # Of 5000 such nulls 6.5% were rejected: five seeds are few, and 200 draws end early. Of 600,
    # the share then lies between these with a chance above 0.999.
    assert 0.03 <= pooled_share_excluding_zero(0.0, 600) <= 0.11


def test_pooled_effect_is_found() -> None:
    assert pooled_share_excluding_zero(0.2, 40) >= 0.9


class Run(StoredRun):
    """A stored run whose test answers are simulated: right with a chance by setting."""

    def predictions(self, split: str = "test") -> pd.DataFrame:
        rng = np.random.default_rng(
            [self.spec.seed, len(self.spec.backbone), len(self.spec.setting)]
        )
        labels = np.arange(60) % 2
        right = rng.random(60) < {"unimodal": 0.6, "clip_it": 0.8}[self.spec.setting]
        answer = np.where(right, labels, 1 - labels)
        frame = pd.DataFrame({"sample": np.arange(60).astype(str), "group": "", "label": labels})
        return frame.assign(logit_0=1.0 - answer, logit_1=1.0 * answer)


def simulated(backbone: str, setting: str, seeds: Sequence[int]) -> list[Run]:
    return [
        Run(Path(f"{backbone}{setting}{seed}"),
            RunSpec.model_construct(dataset="d", backbone=backbone, setting=setting, seed=seed))
        for seed in seeds
    ]  # fmt: skip


def test_pooled_gain_takes_the_cells_that_have_both_settings() -> None:
    both = [
        run
        for backbone in ("s", "big")
        for setting in ("unimodal", "clip_it")
        for run in simulated(backbone, setting, (0, 1, 2))
    ]
    alone = simulated("alone", "clip_it", (0, 1, 2))
    torn = simulated("torn", "unimodal", (0,)) + simulated("torn", "clip_it", (0, 1))
    found = tables.pooled_gain([*both, *alone, *torn], "unimodal", "clip_it")
    gains = tables.gain_table(both, [("unimodal", "clip_it")])["gain"]
    assert found.estimate == pytest.approx(gains.mean())
    with pytest.raises(ClipItError, match="share no seeds"):
        tables.pooled_gain([*alone, *torn], "unimodal", "clip_it")
    other = simulated("other", "unimodal", (3, 4)) + simulated("other", "clip_it", (3, 4))
    with pytest.raises(ClipItError, match="cells differ in their seeds"):
        tables.pooled_gain([*both, *other], "unimodal", "clip_it")


def test_a_gain_in_a_table_is_judged_by_the_crossed_model() -> None:
    pair = "unimodal", "clip_it"
    both = [run for setting in pair for run in simulated("b", setting, (0, 1))]
    row = tables.gain_table(both, [pair]).iloc[0]
    found = crossed_gain([tables.paired_cell(both, "d", "b", *pair)[1]])
    assert Interval.of(row) == found.interval()
    assert (row["word"], row["smallest"]) == (found.word(), found.smallest)


def test_scores_worked_by_hand() -> None:
    """Three samples of two classes, with probabilities 3/4, 1/2 and 9/10 of class 1."""
    ones = np.array([0.75, 0.5, 0.9])
    logits = {f"{LOGIT}0": np.log(1 - ones), f"{LOGIT}1": np.log(ones)}
    found = scores(pd.DataFrame(logits | {"label": [1, 0, 0]}))
    assert found["log_loss"] == pytest.approx(-np.log([0.75, 0.5, 0.1]).mean())
    assert found["brier"] == pytest.approx(2 * np.mean([0.25**2, 0.5**2, 0.9**2]))
    # Sure by 0.75 and right, by 0.5 and right (equal logits go to the lower class), by 0.9 and not.
    assert found["calibration_error"] == pytest.approx(100 * (0.25 + 0.5 + 0.9) / 3)
    assert found["auroc"] == pytest.approx(50)  # 3/4 over 1/2, and under 9/10
    assert found["lowest_recall"] == pytest.approx(50)


def test_the_ranks_of_each_class_count() -> None:
    samples = np.array([[3.0, 0.0, -9.0], [0.0, 2.0, 3.0], [1.0, 3.0, 0.0]])
    logits = {f"{LOGIT}{label}": samples[:, label] for label in range(3)}
    found = scores(pd.DataFrame(logits | {"label": [0, 1, 2]}))
    assert found["auroc"] == pytest.approx(100 * (1 + 0.5 + 0.5) / 3)


def test_a_difference_of_scores_has_the_error_of_its_seeds_and_patients() -> None:
    change = np.repeat([[1.0, 3.0], [1.0, 3.0]], 3, axis=1)  # two seeds, two patients of three
    found = crossed_difference(np.zeros((2, 6)), change, np.repeat([0, 1], 3))
    assert (found.estimate, found.error, found.freedom) == (2.0, pytest.approx(1.0), 1.0)
