"""A study that is shared: equal numbers of trials, whoever is killed and when."""

import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from companion import search

SAMPLED = {"rank": CategoricalDistribution((4, 8, 16)), "x": FloatDistribution(0.01, 10, log=True)}


def toy(folder: Path) -> optuna.Study:
    return search.open_study(folder / "toy.journal", "toy", {"rank": 8, "x": 1.0})


def work(study: optuna.Study, budget: int, objective: Callable[[Trial], float], seed: int = 0):
    search.do_trials(study, SAMPLED, seed, budget, objective)


def bowl(trial: Trial) -> float:
    return abs(np.log(trial.params["x"]) + 1) + trial.params["rank"] / 16


def finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def sequence(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in finished(study)]


def _killed_in_its_fourth_trial(folder: Path) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return bowl(trial)

    work(toy(folder), 20, objective)


@pytest.mark.slow
def test_a_killed_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_in_its_fourth_trial, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = finished(toy(tmp_path))
    assert len(kept) == 3
    begun: list[int] = []
    resumed = toy(tmp_path)
    search.take_up(resumed)
    work(resumed, 20, lambda trial: begun.append(trial.number) or bowl(trial))
    assert [t.number for t in finished(resumed)[:3]] == [t.number for t in kept]
    assert len(begun) == 17 and len(finished(resumed)) == 20
    assert not resumed.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])

    (tmp_path / "whole").mkdir()
    whole = toy(tmp_path / "whole")
    work(whole, 20, bowl)
    assert sequence(resumed) == sequence(whole)
    assert sequence(whole)[0] == {"rank": 8, "x": 1.0}
    assert len({params["x"] for params in sequence(whole)}) == 20


def test_another_seed_gives_other_trials(tmp_path: Path) -> None:
    for seed in (0, 1):
        work(toy(tmp_path / str(seed)), 3, bowl, seed)
    first, second = (sequence(toy(tmp_path / str(seed))) for seed in (0, 1))
    assert first[0] == second[0] and first[1:] != second[1:]


def test_a_trial_in_work_is_counted(tmp_path: Path) -> None:
    mine, others = toy(tmp_path), toy(tmp_path)

    def objective(trial: Trial) -> float:
        # While this trial is in work, another worker sees a budget of two with one place left.
        work(others, 2, bowl)
        states = {each.number: each.state for each in others.trials}
        assert states == {0: TrialState.RUNNING, 1: TrialState.COMPLETE}
        return bowl(trial)

    work(mine, 2, objective)
    assert [trial.number for trial in finished(mine)] == [0, 1]


def test_a_trial_that_a_later_search_takes_up_counts_once(tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        search.take_up(toy(tmp_path))
        work(toy(tmp_path), 2, bowl)
        trial.set_user_attr("runs", [])
        return bowl(trial)

    work(toy(tmp_path), 2, objective)
    assert [trial.number for trial in finished(toy(tmp_path))] == [1, 2]
    assert sequence(toy(tmp_path))[0] == {"rank": 8, "x": 1.0}


def test_a_failure_is_raised_and_its_trial_done_again(tmp_path: Path) -> None:
    def broken(trial: Trial) -> float:
        raise MemoryError("too large")

    with pytest.raises(MemoryError):
        work(toy(tmp_path), 2, broken)
    search.take_up(toy(tmp_path))
    work(toy(tmp_path), 2, bowl)
    assert sequence(toy(tmp_path))[0] == {"rank": 8, "x": 1.0}


def test_a_diverged_trial_is_never_best(tmp_path: Path) -> None:
    study = toy(tmp_path)
    work(study, 12, lambda trial: math.nan if trial.number < 11 else 3.0)
    assert len(finished(study)) == 12 and study.best_trial.number == 11


def test_a_worker_whose_parent_is_gone_begins_nothing(tmp_path: Path, monkeypatch) -> None:
    gone = multiprocessing.get_context("spawn").Process()
    monkeypatch.setattr(search, "parent_process", lambda: gone)
    monkeypatch.setattr(gone, "is_alive", lambda: False)
    work(toy(tmp_path), 2, lambda _: pytest.fail("a trial began"))
