"""What distilled features explain, on cases with a known answer; and what may be shown."""

from __future__ import annotations

import numpy as np
import pytest

from companion.measures import distillation, hubs, may_be_shown, pairing_row
from companion.profile import Workbench, load_profile


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def true() -> np.ndarray:
    """Features that share a direction, as text features do: all cosines are high."""
    rng = np.random.default_rng(0)
    return unit(np.eye(8)[0] + 0.1 * rng.normal(size=(500, 8)))


def test_perfect_prediction_at_any_length_explains_all(true: np.ndarray) -> None:
    found = distillation(3 * true, true, true)
    np.testing.assert_allclose(found.cosines, 1)
    assert found.explained == pytest.approx(1)


def test_a_constant_is_near_one_in_cosine_and_explains_nothing(true: np.ndarray) -> None:
    constant = np.tile(true.mean(axis=0), (len(true), 1))
    found = distillation(constant, true, true)
    assert found.cosines.mean() > 0.95
    np.testing.assert_allclose(found.cosines, found.constant)
    # |t - m/r|^2 averages 2 - 2r and |t - m|^2 averages 1 - r^2, where r is the length of m.
    length = np.linalg.norm(true.mean(axis=0))
    assert found.explained == pytest.approx(1 - (2 - 2 * length) / (1 - length**2))
    assert -0.05 < found.explained < 0


def test_explained_is_that_of_a_plain_loop(true: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    guess, train = true + 0.05 * rng.normal(size=true.shape), true[:100]
    mean = sum(row / np.linalg.norm(row) for row in train) / len(train)
    left = whole = 0.0
    for target, row in zip(true, guess, strict=True):
        that = row / np.linalg.norm(row)
        left += sum((a - b) ** 2 for a, b in zip(target, that, strict=True))
        whole += sum((a - b) ** 2 for a, b in zip(target, mean, strict=True))
    assert distillation(guess, true, train).explained == pytest.approx(1 - left / whole)


def test_half_the_signal_explains_half_of_the_variance() -> None:
    """Targets turn by a seen and an unseen small angle of equal variance in two planes."""
    rng = np.random.default_rng(2)
    seen, unseen = 0.05 * rng.normal(size=(2, 20_000))
    true = unit(np.stack([np.ones_like(seen), seen, unseen], axis=1))
    guess = np.stack([np.ones_like(seen), seen, np.zeros_like(seen)], axis=1)
    assert distillation(guess, true, true).explained == pytest.approx(0.5, abs=0.02)


def test_one_report_for_all_leaves_nothing_to_explain() -> None:
    same = np.tile([[0.6, 0.8]], (10, 1))
    assert np.isnan(distillation(same, same, same).explained)


def test_hubs_are_counted_by_hand() -> None:
    found = hubs(np.array([5, 2, 2, 9, 5, 2]), 2)
    assert [(report, rows.tolist()) for report, rows in found] == [(2, [1, 2, 5]), (5, [0, 4])]


def test_pairing_row_follows_from_the_pairs(bench: Workbench) -> None:
    row = pairing_row(bench, "phantom-crc")
    pairs = bench.pairs("phantom-crc", "train", 1)
    assert row["similarity_mean"] == pytest.approx(sum(pairs.similarities[:, 0].tolist()) / 90)
    assert row["distinct_reports"] == len(set(pairs.reports[:, 0].tolist()))
    lengths = bench.clip.tokenizer.lengths(bench.corpus("phantom-crc").texts)
    assert row["tokens_longest"] == max(lengths)
    assert row["longer_share"] == sum(n > row["context_length"] for n in lengths) / len(lengths)


def test_only_phantom_images_and_reports_are_kept_in_a_figure() -> None:
    smoke = load_profile("smoke")
    assert all(may_be_shown(smoke, name) for name in smoke.data)
    assert not may_be_shown(load_profile("pilot"), "crc5")
    foreign = load_profile("pilot").corpora["tcga-colorectal"]
    mixed = smoke.model_copy(update={"corpora": {"phantom-colon": foreign}})
    assert not may_be_shown(mixed, "phantom-crc")
