"""An Optuna study that several processes work on until it has an exact number of trials.

The journal holds the trials. Who works on one is said by a file lock, which the system frees when
a process ends, however it ends: a running trial whose lock is free was left, and is done again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from clipit_lib.files import digest


@dataclass(frozen=True)
class SharedStudy:
    """One study.

    Attributes:
        folder: where the locks are.
        distributions: what is sampled, by name.
        seed: of the sampler. It is seeded anew for each trial, by how many are taken before it:
            with one process the trials are the same whether or not the study was interrupted.
    """

    study: optuna.Study
    folder: Path
    distributions: Mapping[str, BaseDistribution]
    seed: int

    def work(self, budget: int, objective: Callable[[Trial], float]) -> None:
        """Do trials until `budget` are done or in work anywhere; a failure leaves its trial.

        A value that is not finite counts as infinitely bad.
        """
        while not _orphaned() and (claim := self._claim(budget)) is not None:
            trial, lock = claim
            try:
                value = objective(trial)
                self.study.tell(trial, value if math.isfinite(value) else math.inf)
            finally:
                lock.release()

    def finished(self) -> list[FrozenTrial]:
        """The finished trials in the order they began."""
        return self._trials(TrialState.COMPLETE)

    def _claim(self, budget: int) -> tuple[Trial, FileLock] | None:
        with self._lock("claim"):
            for running in self._trials(TrialState.RUNNING):
                self._queue_if_left(running)
            taken = len(self._trials(TrialState.COMPLETE, TrialState.RUNNING))
            if taken >= budget:
                return None
            seed = int(digest(str(self.seed), self.study.study_name, str(taken)), 16) % 2**32
            self.study.sampler = optuna.samplers.TPESampler(seed=seed)
            trial = self.study.ask(dict(self.distributions))
            lock = self._lock(str(trial.number))
            lock.acquire()
            return trial, lock

    def _queue_if_left(self, trial: FrozenTrial) -> None:
        """Fail a running trial that nobody works on, and queue its values."""
        with suppress(Timeout), self._lock(str(trial.number)).acquire(timeout=0):
            # Its process may have finished it since the list was read.
            if trial.number in [still.number for still in self._trials(TrialState.RUNNING)]:
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.folder / f"{self.study.study_name}-{name}.lock")


def _orphaned() -> bool:
    """Whether this process was started by one that is gone: then it begins nothing more."""
    parent = parent_process()
    return parent is not None and not parent.is_alive()


def open_study(
    journal: Path,
    name: str,
    distributions: Mapping[str, BaseDistribution],
    first: Mapping[str, Any],
    seed: int,
) -> SharedStudy:
    """Open a study in a journal file, or begin it with the trial `first`."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{journal}.lock-open"):
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(dict(first))
    return SharedStudy(study, journal.parent, distributions, seed)
