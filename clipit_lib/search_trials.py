"""Trials of LoRA rank, scale, targets and lambda, on validation, at equal budgets.

Every setting that is compared gets the same number of trials over the same seeds, none of which
is a seed of the evaluation. A trial trains one ordinary run a seed. Its value is the validation
cross-entropy of the image-only model; the choice never looks at a test prediction.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from optuna.trial import Trial
from scipy.special import log_softmax

from clipit_lib import paths, runs, specs
from clipit_lib.errors import ClipItError, Diverged
from clipit_lib.evaluation import LOGIT
from clipit_lib.files import canonical_json, digest, write_text
from clipit_lib.runs import StoredRun
from clipit_lib.search_space import candidate_of, describe, distributions, first_trial
from clipit_lib.settings import (
    PROTOCOLS,
    Candidate,
    Profile,
    RunSpec,
    Search,
    SearchedSetting,
)
from clipit_lib.shared_study import SharedStudy, open_study
from clipit_lib.workbench import Workbench

SETTINGS: tuple[SearchedSetting, ...] = get_args(SearchedSetting)
NOTE = "note"  # what diverged, of a trial and in the table
STUDIES = "studies"  # below results/PROFILE/search: journals and locks

Mistake = tuple[str, str, str]  # the three parts of a ClipItError, which pickle as they are


@dataclass(frozen=True)
class Task:
    """One search: a cell of a profile and a budget."""

    profile: Profile
    dataset: str
    backbone: str
    search: Search

    @property
    def name(self) -> str:
        return f"{self.dataset}__{self.backbone}"

    @property
    def folder(self) -> Path:
        return paths.results(self.profile.name) / "search"


def search(task: Task, processes: int = 1) -> pd.DataFrame:
    """Do or finish a search with some processes; return its trials (see `trial_table`).

    Raises:
        ClipItError: a seed of the search is one of the evaluation's; an unknown data set or
            backbone; an encoder not trained yet; a process ended early.
    """
    evaluated = [task.profile.seeds, *(each.seeds for each in task.profile.studies.values())]
    shared = sorted(set(task.search.seeds).intersection(itertools.chain(*evaluated)))
    if shared:
        raise ClipItError(
            f"the seeds {shared} are evaluated with", "seeds of the search", "Choose others"
        )
    bench = Workbench(task.profile)
    own = specs.resolve(bench, task.dataset, task.backbone, "clip_it", task.search.seeds[0])
    bench.check(own)  # before the first trial
    studies = [study(task, bench, setting) for setting in SETTINGS]
    if processes == 1:
        work(task, bench)
    else:
        _work_together(task, processes)
    table = trial_table(task, dict(zip(SETTINGS, studies, strict=True)))
    done = table.groupby("setting").size().reindex(SETTINGS, fill_value=0)
    if (done < task.search.trials).any():
        raise ClipItError(
            f"{done.min()} of {task.search.trials} trials are finished",
            task.name,
            "Another search works on the rest, or a process was ended: run the same command again",
        )
    return table


def study(task: Task, bench: Workbench, setting: SearchedSetting) -> SharedStudy:
    """The study of one setting. Its name follows from everything that can change a trial."""
    space, profile = task.search.space, task.profile
    own = Candidate(
        lora=profile.lora,
        lora_targets=PROTOCOLS[profile.protocol].lora_targets,
        distillation_weight=profile.distillation_weight,
    )
    keys = [spec(task, bench, setting, own, seed).key for seed in task.search.seeds]
    asked = canonical_json([space.model_dump(mode="json"), task.search.sampler_seed, keys])
    sampled = distributions(space, setting)
    journal = task.folder / STUDIES / f"{task.name}.journal"
    write_text(journal.with_name(".gitignore"), "*\n")
    return open_study(
        journal,
        f"{setting}-{digest(asked)}",
        sampled,
        first_trial(own, sampled),
        task.search.sampler_seed,
    )


def spec(
    task: Task, bench: Workbench, setting: SearchedSetting, candidate: Candidate, seed: int
) -> RunSpec:
    """The run of a candidate; values chosen by an earlier search have no part in it."""
    changes = candidate.fields(PROTOCOLS[task.profile.protocol])
    return specs.resolve(bench, task.dataset, task.backbone, setting, seed, **changes)


def work(task: Task, bench: Workbench) -> None:
    """What one process does: trials of every setting until none is left to begin."""
    for setting in SETTINGS:

        def objective(trial: Trial, setting: SearchedSetting = setting) -> float:
            candidate = candidate_of(trial.params, task.profile.lora.dropout)
            asked = [spec(task, bench, setting, candidate, seed) for seed in task.search.seeds]
            stored: list[StoredRun] = []
            try:
                stored += (runs.get_or_run(each, bench) for each in asked)
                value = mean_validation_loss(stored)
            except Diverged as error:  # said in the table, never chosen; the search goes on
                trial.set_user_attr(NOTE, str(error))
                value = math.inf
            trial.set_user_attr("runs", [run.key for run in stored])
            print(f"{setting}: {describe(candidate)}: validation {value:.4f}", flush=True)
            return value

        study(task, bench, setting).work(task.search.trials, objective)


def mean_validation_loss(stored: Sequence[StoredRun]) -> float:
    """Cross-entropy in nats of the image-only models on validation, averaged over runs."""
    return float(np.mean([validation_loss(run.predictions("validation")) for run in stored]))


def validation_loss(predictions: pd.DataFrame) -> float:
    """Mean negative log probability of the true class, from raw predictions."""
    scores = log_softmax(predictions.filter(like=LOGIT).to_numpy(np.float64), axis=1)
    return float(-scores[np.arange(len(scores)), predictions["label"]].mean())


def trial_table(task: Task, studies: Mapping[SearchedSetting, SharedStudy]) -> pd.DataFrame:
    """One row a trial: setting, number, rank, alpha, targets, lambda, validation, runs.

    A trial that diverged has infinite validation; then a column `note` says of which what diverged.
    Each setting's first `trials` are in it, so that a longer study gives no setting an advantage.
    """
    rows = []
    for setting, one in studies.items():
        for number, trial in enumerate(one.finished()[: task.search.trials]):
            candidate = candidate_of(trial.params, task.profile.lora.dropout)
            rows.append({
                "setting": setting,
                "number": number,
                "rank": candidate.lora.rank,
                "alpha": candidate.lora.alpha,
                "targets": candidate.lora_targets,
                "lambda": candidate.distillation_weight,
                "validation": trial.value,
                "runs": " ".join(trial.user_attrs["runs"]),
                NOTE: trial.user_attrs.get(NOTE),
            })  # fmt: skip
    columns = ["setting", "number", "rank", "alpha", "targets", "lambda", "validation", "runs"]
    noted = [NOTE] if any(row[NOTE] for row in rows) else []
    return pd.DataFrame(rows, columns=[*columns, *noted]).astype({"lambda": float})


def _work_together(task: Task, processes: int) -> None:
    """Several processes on the same studies; a user's mistake in one is raised here."""
    threads = paths.threads() or max(1, (os.cpu_count() or 1) // processes)
    context = get_context("spawn")  # CUDA and threads do not survive a fork
    said: SimpleQueue[Mistake] = context.SimpleQueue()
    workers = [
        context.Process(target=_worker, args=(task, threads, said), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if not said.empty():
        raise ClipItError(*said.get())


def _worker(task: Task, threads: int, said: SimpleQueue[Mistake]) -> None:
    """`work` in a process of its own; what else goes wrong is printed by multiprocessing."""
    torch.set_num_threads(threads)
    try:
        work(task, Workbench(task.profile))
    except ClipItError as error:
        said.put((error.what, error.where, error.fix))
        sys.exit(2)
