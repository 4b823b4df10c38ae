"""Survival metrics against scikit-survival, by hand, and against brute force."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.survival import model

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    from torchsurv.metrics.auc import Auc
    from torchsurv.metrics.cindex import ConcordanceIndex

# Five patients, by hand. Months: 2, 4, 4, 6, 8; the third and the last are censored.
TIME = np.array([2.0, 4.0, 4.0, 6.0, 8.0])
EVENT = np.array([True, True, False, True, False])
RISK = np.array([0.3, 0.9, 0.5, 0.5, 0.1])


def follow_up(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risk, time and event with ties in all of them and some censoring; the last is no event."""
    rng = np.random.default_rng(seed)
    risk = rng.integers(-6, 7, count) / 4
    time = rng.integers(1, 25, count).astype(float)
    event = rng.random(count) < 0.6
    event[0], event[time == time.max()] = True, False
    time[0] = 1.0
    return risk, time, event


def concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    return model.c_index(np.ones((1, len(risk)), int), risk, time, event)[0]


def integrated_auc(risk: np.ndarray, time: np.ndarray, event: np.ndarray, weights) -> float:
    return model.integrated_auc(np.ones((1, len(risk)), int), risk, time, event, weights)[0]


def structured(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    return np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", float)])


def test_c_index_of_five_patients_by_hand() -> None:
    # Patient 1 (month 2) against 2, 3, 4, 5: only 5 has the lower risk: 1 of 4.
    # Patient 2 (month 4) against 3 (censored in the same month), 4, 5: 3 of 3.
    # Patient 4 (month 6) against 5: 1 of 1.
    assert concordance(RISK, TIME, EVENT) == pytest.approx(5 / 8)
    # Patients 1 and 4 made equal: that pair counts a half.
    assert concordance(np.array([0.5, 0.9, 0.5, 0.5, 0.1]), TIME, EVENT) == pytest.approx(
        (0.5 + 0.5 + 1 + 3 + 1) / 8
    )


def test_cox_loss_of_five_patients_by_hand() -> None:
    h = np.exp(RISK)
    terms = [h[0] / h.sum(), h[1] / h[1:].sum(), h[3] / h[3:].sum()]
    loss = model.cox_loss(torch.tensor(RISK), torch.tensor(TIME), torch.tensor(EVENT))
    assert loss.item() == pytest.approx(-np.mean(np.log(terms)), rel=1e-5)


def test_cox_loss_takes_ties_by_efron() -> None:
    risk = torch.tensor([0.3, 0.9, -0.2, 0.1])
    time, event = torch.tensor([3.0, 3.0, 5.0, 5.0]), torch.tensor([True, True, True, False])
    h = risk.exp()
    tied = h[0] + h[1]
    first = h[0] * h[1] / (h.sum() * (h.sum() - tied / 2))
    expected = -(first.log() + (h[2] / (h[2] + h[3])).log()) / 3
    assert model.cox_loss(risk, time, event).item() == pytest.approx(expected.item(), rel=1e-5)


@given(st.floats(-5, 5), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_cox_loss_knows_no_constant_and_is_zero_without_events(shift: float, seed: int) -> None:
    risk, time, event = (torch.tensor(v) for v in follow_up(seed))
    moved = model.cox_loss(risk + shift, time, event)
    assert moved.item() == pytest.approx(model.cox_loss(risk, time, event).item(), abs=1e-4)
    assert model.cox_loss(risk, time, torch.zeros_like(event)).item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_survival(seed: int) -> None:
    sksurv = pytest.importorskip("sksurv.metrics")
    risk, time, event = follow_up(seed)
    _, train_time, train_event = follow_up(100 + seed, 80)
    train_time[1], train_event[1] = 30.0, False  # follow-up beyond all that is predicted
    theirs = sksurv.concordance_index_censored(event, time, risk)[0]
    assert concordance(risk, time, event) == pytest.approx(theirs, abs=1e-6)

    weights = model.censoring_weights(train_time, train_event, time)
    at = np.unique(time[event & (time < time.max()) & (weights > 0)])
    train, test = structured(train_time, train_event), structured(time, event)
    theirs = sksurv.cumulative_dynamic_auc(train, test, risk, at)[1]
    assert integrated_auc(risk, time, event, weights) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_torchsurv(seed: int) -> None:
    risk, time, event = follow_up(seed)
    weights = model.censoring_weights(*follow_up(100 + seed, 80)[1:], time)
    at = np.unique(time[event & (time < time.max()) & (weights > 0)])
    single = {name: torch.tensor(values, dtype=torch.float32)
              for name, values in (("risk", risk), ("time", time), ("weight", weights),
                                   ("at", at))}  # fmt: skip
    followed = (single["risk"], torch.tensor(event), single["time"])
    assert concordance(risk, time, event) == pytest.approx(
        float(ConcordanceIndex()(*followed)), abs=1e-6
    )
    auc = Auc()
    auc(*followed, weight=single["weight"], new_time=single["at"],
        weight_new_time=torch.ones(len(at)))  # fmt: skip
    found = integrated_auc(risk, time, event, weights)
    assert found == pytest.approx(float(auc.integral()), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_log_rank_test_agrees_with_scikit_survival(seed: int) -> None:
    compare = pytest.importorskip("sksurv.compare")
    risk, time, event = follow_up(seed)
    high = risk > np.median(risk)
    theirs = compare.compare_survival(structured(time, event), high)[1]
    split = pd.DataFrame({"time": time, "event": event, "high": high})
    assert model.logrank(split) == pytest.approx(theirs, rel=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_resample_is_worth_what_its_slides_are_worth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    risk, time, event = follow_up(seed, 25)
    weights = model.censoring_weights(*follow_up(seed + 1, 60)[1:], time)
    rows = rng.integers(25, size=25)
    counts = np.bincount(rows, minlength=25)[None]
    drawn = risk[rows], time[rows], event[rows]
    fast = model.c_index(counts, risk, time, event)[0]
    assert fast == pytest.approx(concordance(*drawn), abs=1e-6, nan_ok=True)
    fast = model.integrated_auc(counts, risk, time, event, weights)[0]
    slow = integrated_auc(*drawn, weights[rows])
    assert fast == pytest.approx(slow, abs=1e-5, nan_ok=True)


def cohort(seed: int, slides: int, signal: float) -> pd.DataFrame:
    """Predictions whose risk knows the hazard up to noise."""
    rng = np.random.default_rng(seed)
    hazard = rng.standard_normal(slides)
    event, time = rng.random(slides) < 0.7, rng.exponential(np.exp(-hazard))
    return pd.DataFrame({
        "time": time, "event": event, "fold": np.arange(slides) % 5 + 1,
        "log_risk": signal * hazard + rng.standard_normal(slides),
    })  # fmt: skip


def two_folds(first: int, second: int) -> pd.DataFrame:
    """Ten slides a fold, all events; the sign of risk in each: 1 if early deaths are foreseen."""
    time, fold = np.tile(np.arange(1.0, 11), 2), np.repeat([1, 2], 10)
    risk = -time * np.where(fold == 1, first, second)
    return pd.DataFrame({"time": time, "event": True, "fold": fold, "log_risk": risk})


def test_resampled_means_are_over_folds_and_seeds() -> None:
    drawn = model.bootstrap({"a": [two_folds(1, 1)] * 2, "b": [two_folds(1, -1)] * 2}, 20)
    for metric in model.METRICS:
        np.testing.assert_allclose(drawn["a", metric], 1)
        np.testing.assert_allclose(drawn["b", metric], 0.5)
    one_right = model.bootstrap({"a": [two_folds(1, 1), two_folds(-1, -1)]}, 50)["a", "c_index"]
    assert {*one_right.round(9)} == {0, 0.5, 1}  # of two seeds none, one or both


def test_censoring_is_that_of_the_other_folds() -> None:
    # Fold 1: months 1 to 4, the second is censored; fold 2: the same, none is.
    frame = pd.DataFrame({
        "time": [1.0, 2, 3, 4] * 2, "event": [True, False, True, True, *[True] * 4],
        "fold": [1] * 4 + [2] * 4, "log_risk": 0.0,
    })  # fmt: skip
    (first, of_first), (second, of_second) = model.held_out(frame)
    assert first.tolist() == [0, 1, 2, 3] and second.tolist() == [4, 5, 6, 7]
    np.testing.assert_allclose(of_first, 1)
    # Of three slides at risk in month 2 one is censored: 1 / (2 / 3) from then on.
    np.testing.assert_allclose(of_second[[0, 2, 3]], [1, 1.5, 1.5])


def test_the_interval_of_a_gain_covers_the_truth() -> None:
    """Two noisy predictors of equal worth: the truth is 0; one that knows more: above 0."""
    covered = 0
    for seed in range(40):
        frame = cohort(seed, 100, 1.0)
        twin = frame.assign(log_risk=cohort(seed, 100, 1.0)["log_risk"])
        rng = np.random.default_rng(1000 + seed)
        for each in (frame, twin):
            each["log_risk"] += rng.standard_normal(100)
        drawn = model.bootstrap({"unimodal": [frame], "clip_it": [twin]}, 200)
        gain = drawn["clip_it", "c_index"] - drawn["unimodal", "c_index"]
        low, high = np.percentile(gain, [2.5, 97.5])
        covered += low <= 0 <= high
    assert 34 <= covered <= 40  # of 40 at 95%: fewer than 34 has a chance of 0.3%
    frame = cohort(1, 150, 3.0)
    worse = frame.assign(log_risk=np.random.default_rng(3).standard_normal(150))
    drawn = model.bootstrap({"unimodal": [worse], "clip_it": [frame]}, 200)
    assert np.percentile(drawn["clip_it", "iauc"] - drawn["unimodal", "iauc"], 2.5) > 0
