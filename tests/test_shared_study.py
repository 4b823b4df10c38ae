"""A study that is shared: an exact number of trials, whoever is killed and when."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import Trial, TrialState

from companion import search
from companion.search import SharedStudy, open_study

SAMPLED = {"rank": CategoricalDistribution((4, 8, 16)), "x": FloatDistribution(0.01, 10, log=True)}


def toy(folder: Path, seed: int = 0) -> SharedStudy:
    return open_study(folder / "toy.journal", "toy", SAMPLED, {"rank": 8, "x": 1.0}, seed)


def bowl(trial: Trial) -> float:
    return abs(np.log(trial.params["x"]) + 1) + trial.params["rank"] / 16


def sequence(study: SharedStudy) -> list[dict[str, float]]:
    return [trial.params for trial in study.finished()]


def _killed_in_its_fourth_trial(folder: Path) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return bowl(trial)

    toy(folder).work(20, objective)


def test_a_killed_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_in_its_fourth_trial, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = toy(tmp_path).finished()
    assert len(kept) == 3
    begun: list[int] = []
    toy(tmp_path).work(20, lambda trial: begun.append(trial.number) or bowl(trial))
    resumed = toy(tmp_path)
    assert [t.number for t in resumed.finished()[:3]] == [t.number for t in kept]
    assert len(begun) == 17 and len(resumed.finished()) == 20
    assert not resumed.study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])

    (tmp_path / "whole").mkdir()
    whole = toy(tmp_path / "whole")
    whole.work(20, bowl)
    assert sequence(resumed) == sequence(whole)
    assert sequence(whole)[0] == {"rank": 8, "x": 1.0}
    assert len({params["x"] for params in sequence(whole)}) == 20


def test_another_seed_gives_other_trials(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        toy(tmp_path / str(seed), seed).work(3, bowl)
    first, second = (sequence(toy(tmp_path / str(seed))) for seed in (0, 1))
    assert first[0] == second[0] and first[1:] != second[1:]


def test_a_trial_in_work_is_counted_and_left_alone(tmp_path: Path) -> None:
    mine, others = toy(tmp_path), toy(tmp_path)

    def objective(trial: Trial) -> float:
        # While this trial is in work, another worker sees a budget of two with one place left.
        others.work(2, bowl)
        states = {each.number: each.state for each in others.study.trials}
        assert states == {0: TrialState.RUNNING, 1: TrialState.COMPLETE}
        return bowl(trial)

    mine.work(2, objective)
    assert [trial.number for trial in mine.finished()] == [0, 1]


def test_a_failure_is_raised_and_its_trial_done_again(tmp_path: Path) -> None:
    def broken(trial: Trial) -> float:
        raise MemoryError("too large")

    with pytest.raises(MemoryError):
        toy(tmp_path).work(2, broken)
    toy(tmp_path).work(2, bowl)
    assert sequence(toy(tmp_path))[0] == {"rank": 8, "x": 1.0}


def test_a_diverged_trial_is_never_best(tmp_path: Path) -> None:
    study = toy(tmp_path)
    study.work(12, lambda trial: float("nan") if trial.number < 11 else 3.0)
    assert len(study.finished()) == 12 and study.study.best_trial.number == 11


def test_a_worker_whose_parent_is_gone_begins_nothing(tmp_path: Path, monkeypatch) -> None:
    gone = multiprocessing.get_context("spawn").Process()
    monkeypatch.setattr(search, "parent_process", lambda: gone)
    monkeypatch.setattr(gone, "is_alive", lambda: False)
    toy(tmp_path).work(2, lambda _: pytest.fail("a trial began"))
