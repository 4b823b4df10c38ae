"""The paired bootstrap on cases with a known answer and on simulated truths."""

import numpy as np
import pytest

from clipit_lib.statistics import paired_bootstrap


def interval(first: np.ndarray, second: np.ndarray, labels: np.ndarray, groups: np.ndarray):
    return paired_bootstrap(first, second, labels, groups, 300, np.random.default_rng(0))


def test_estimate_is_the_gain_in_balanced_accuracy() -> None:
    labels = np.array([0, 0, 0, 1])
    first = np.array([[True, False, False, False]])  # (1/3 + 0) / 2
    second = np.array([[True, True, False, True]])  # (2/3 + 1) / 2
    found = interval(first, second, labels, np.arange(4))
    assert found.estimate == pytest.approx(100 * (5 / 6 - 1 / 6))


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
        found = paired_bootstrap(first, second, labels, groups, 200, rng)
        excluded += found.low > 0 or found.high < 0
    return excluded / repeats


def test_simulated_null_is_rejected_about_as_often_as_stated() -> None:
    assert simulated_share_excluding_zero(0.0) <= 0.12


def test_simulated_effect_is_found() -> None:
    assert simulated_share_excluding_zero(0.15, repeats=40) >= 0.9
