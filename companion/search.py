"""The command `search`: adapters and lambda by validation, at equal budgets."""

from __future__ import annotations

import itertools
import math
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pandas as pd
import torch
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from pydantic import TypeAdapter

from clipit_lib import runs
from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError, Diverged
from clipit_lib.files import canonical_json, digest, held, write_text, written_beside
from clipit_lib.runs import StoredRun
from clipit_lib.settings import Lora, RunSpec
from companion import paths, specs
from companion.measures import cross_entropy
from companion.paper import PROTOCOLS
from companion.profile import (
    Candidate,
    Cells,
    Chosen,
    FoundWith,
    Profile,
    Search,
    SearchedSetting,
    SearchSpace,
    Workbench,
    load_profile,
    read_searched,
    searched_path,
)

# -- An Optuna study in a journal file, which several processes work on.


def open_study(journal: Path, name: str, first: Mapping[str, Any]) -> optuna.Study:
    """Open a study in a journal file, or begin it with the trial `first`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(first))
    return study


def take_up(study: optuna.Study) -> None:
    """Queue the trials that ended processes have left, with their values.

    Another search may be at work on one of them: then its runs are waited for, not made twice.
    """
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL, skip_if_finished=True)
        study.enqueue_trial(left.params)


def do_trials(
    study: optuna.Study,
    sampled: Mapping[str, BaseDistribution],
    seed: int,
    budget: int,
    objective: Callable[[Trial], float],
) -> None:
    """Do trials until `budget` are done or in work anywhere; one that fails is left.

    A value that is not finite counts as infinitely bad.

    Args:
        seed: the sampler is seeded anew for each trial, by how many are taken before it: with one
            process the trials are the same whether or not the study was interrupted.
    """
    states, parent = (TrialState.COMPLETE, TrialState.RUNNING), parent_process()
    while (taken := len(study.get_trials(False, states))) < budget:
        if parent is not None and not parent.is_alive():
            return  # whoever started this process is gone: it begins nothing more
        own = int(digest(str(seed), study.study_name, str(taken)), 16) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=own)
        trial = study.ask(dict(sampled))
        with suppress(UpdateFinishedTrialError):  # a later search has taken it up
            value = objective(trial)
            study.tell(trial, value if math.isfinite(value) else math.inf)


# -- What a search samples, and sampled values as settings.


def distributions(space: SearchSpace, setting: SearchedSetting) -> dict[str, BaseDistribution]:
    """What is sampled. Without text, lambda has no effect and is not."""
    sampled: dict[str, BaseDistribution] = {
        "rank": CategoricalDistribution(space.ranks),
        "scale": CategoricalDistribution(space.scales),
        "targets": CategoricalDistribution(space.lora_targets),
    }
    if setting == "clip_it":
        low, high = space.distillation_weight
        sampled["lambda"] = FloatDistribution(low, high, log=True)
    return sampled


def candidate_of(parameters: Mapping[str, Any], dropout: float) -> Candidate:
    """Sampled values as settings: alpha = scale x rank, lambda to three digits."""
    rank, weight = parameters["rank"], parameters.get("lambda")
    return Candidate(
        lora=Lora(rank=rank, alpha=max(1, round(parameters["scale"] * rank)), dropout=dropout),
        lora_targets=parameters["targets"],
        distillation_weight=None if weight is None else float(f"{weight:.3g}"),
    )


def first_trial(own: Candidate, space: SearchSpace, setting: SearchedSetting) -> dict[str, Any]:
    """A profile's own values, to begin with; what is outside the space is left to the sampler."""
    scale, weight = own.lora.alpha / own.lora.rank, own.distillation_weight
    low, high = space.distillation_weight
    inside = {
        "rank": (own.lora.rank, own.lora.rank in space.ranks),
        "scale": (scale, scale in space.scales),
        "targets": (own.lora_targets, own.lora_targets in space.lora_targets),
        "lambda": (weight, setting == "clip_it" and weight is not None and low <= weight <= high),
    }
    return {name: value for name, (value, held) in inside.items() if held}


def describe(candidate: Candidate) -> str:
    """`rank 8, alpha 4, all, lambda 0.3`."""
    weight, adapters = candidate.distillation_weight, candidate.lora
    end = "" if weight is None else f", lambda {weight:g}"
    return f"rank {adapters.rank}, alpha {adapters.alpha}, {candidate.lora_targets}{end}"


# -- Trials of LoRA rank, scale, targets and lambda, on validation, at equal budgets.
#
# Every setting that is compared gets the same number of trials over the same seeds, none of which
# is a seed of the evaluation. A trial trains one ordinary run a seed. Its value is the validation
# cross-entropy of the image-only model; the choice never looks at a test prediction.

SETTINGS: tuple[SearchedSetting, ...] = get_args(SearchedSetting)
COLUMNS = ("setting", "number", "rank", "alpha", "targets", "lambda", "validation", "runs")
NOTE = "note"  # what diverged, of a trial and in the table
STUDIES = "studies"  # below results/PROFILE/search: journals


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
        what = f"the seeds {shared} are evaluated with"
        raise ClipItError(what, "seeds of the search", "Choose others")
    bench = Workbench(task.profile)
    own = specs.resolve(bench, task.dataset, task.backbone, "clip_it", task.search.seeds[0])
    bench.check(own)  # before the first trial
    studies = {setting: study(task, bench, setting) for setting in SETTINGS}
    for each in studies.values():
        take_up(each)
    if processes == 1:
        work(task, bench=bench)
    else:  # a user's mistake in one of them is raised here
        threads = paths.threads() or max(1, (os.cpu_count() or 1) // processes)
        context = get_context("spawn")  # CUDA and threads do not survive a fork
        with (
            suppress(BrokenProcessPool),  # one was ended: what is missing is said below
            ProcessPoolExecutor(processes, mp_context=context) as pool,
        ):
            list(pool.map(work, [task] * processes, [threads] * processes))
    table = trial_table(task, studies)
    done = table.groupby("setting").size().reindex(SETTINGS, fill_value=0)
    if (done < task.search.trials).any():
        what = f"{done.min()} of {task.search.trials} trials are finished"
        fix = "Another search works on the rest, or a process was ended: run the same command again"
        raise ClipItError(what, task.name, fix)
    return table


def study(task: Task, bench: Workbench, setting: SearchedSetting) -> optuna.Study:
    """The study of one setting. Its name follows from everything that can change a trial."""
    space, profile = task.search.space, task.profile
    own = Candidate(
        lora=profile.lora,
        lora_targets=PROTOCOLS[profile.protocol].lora_targets,
        distillation_weight=profile.distillation_weight,
    )
    keys = [spec(task, bench, setting, own, seed).key for seed in task.search.seeds]
    asked = canonical_json([space.model_dump(mode="json"), task.search.sampler_seed, keys])
    journal = task.folder / STUDIES / f"{task.name}.journal"
    write_text(journal.with_name(".gitignore"), "*\n")
    return open_study(journal, f"{setting}-{digest(asked)}", first_trial(own, space, setting))


def spec(
    task: Task, bench: Workbench, setting: SearchedSetting, candidate: Candidate, seed: int
) -> RunSpec:
    """The run of a candidate; values chosen by an earlier search have no part in it."""
    changes = candidate.fields(PROTOCOLS[task.profile.protocol])
    return specs.resolve(bench, task.dataset, task.backbone, setting, seed, **changes)


def work(task: Task, threads: int | None = None, bench: Workbench | None = None) -> None:
    """What one process does: trials of every setting until none is left to begin."""
    if threads is not None:  # in a process of its own
        torch.set_num_threads(threads)
    asked, bench = task.search, bench or Workbench(task.profile)
    for setting in SETTINGS:

        def objective(trial: Trial, setting: SearchedSetting = setting) -> float:
            candidate = candidate_of(trial.params, task.profile.lora.dropout)
            wanted = [spec(task, bench, setting, candidate, seed) for seed in asked.seeds]
            stored: list[StoredRun] = []
            try:
                stored += (runs.get_or_run(each, bench) for each in wanted)
                losses = [cross_entropy(run.predictions("validation")) for run in stored]
                value = float(np.mean(losses))
            except Diverged as error:  # said in the table, never chosen; the search goes on
                trial.set_user_attr(NOTE, str(error))
                value = math.inf
            trial.set_user_attr("runs", [run.key for run in stored])
            print(f"{setting}: {describe(candidate)}: validation {value:.4f}", flush=True)
            return value

        sampled = distributions(asked.space, setting)
        own = study(task, bench, setting)
        do_trials(own, sampled, asked.sampler_seed, asked.trials, objective)


def trial_table(task: Task, studies: Mapping[SearchedSetting, optuna.Study]) -> pd.DataFrame:
    """One row a trial: setting, number, rank, alpha, targets, lambda, validation, runs.

    A trial that diverged has infinite validation; then a column `note` says of which what diverged.
    Each setting's first `trials` are in it, so that a longer study gives no setting an advantage.
    """
    rows = []
    for setting, one in studies.items():
        done = one.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))  # as they began
        for number, trial in enumerate(done[: task.search.trials]):
            own = candidate_of(trial.params, task.profile.lora.dropout)
            about = (own.lora.rank, own.lora.alpha, own.lora_targets, own.distillation_weight)
            said = (trial.value, " ".join(trial.user_attrs["runs"]), trial.user_attrs.get(NOTE))
            rows.append((setting, number, *about, *said))
    table = pd.DataFrame(rows, columns=[*COLUMNS, NOTE]).astype({"lambda": float})
    return table if table[NOTE].any() else table.drop(columns=NOTE)


# -- `python -m companion search`: adapters and lambda of one cell, kept for the profile.


HEADER = (
    "# Written by `python -m companion search` and read with the profile of this name.\n"
    "# Delete a cell to go back to the profile's own values.\n"
)


def main(options: Namespace) -> None:
    """Search LoRA rank, scale, targets and lambda on validation, or show what was found."""
    profile = load_profile(options.profile)
    if options.show:
        print(chosen_text(profile))
        return
    if options.dataset is None or options.backbone is None:
        what, fix = "no data set or backbone is named", "Add --dataset and --backbone, or --show"
        raise ClipItError(what, "search", fix)
    profile.data_settings(options.dataset)
    registry.entry(options.backbone)
    # Said before the first trial, not after the last: that the choice cannot be kept.
    probe = searched_path(profile.name).with_suffix(".probe")
    fix = "Give write permission: chosen values become part of the profile"
    with written_beside(probe, fix) as temporary:
        temporary.touch()
    probe.unlink()
    asked = Search(trials=options.trials, seeds=tuple(dict.fromkeys(options.seeds)))
    task = Task(profile, options.dataset, options.backbone, asked)
    print(
        f"{' and '.join(SETTINGS)} get {asked.trials} trials each on {task.dataset}, "
        f"{task.backbone}, over seeds {_listed(asked.seeds)} (evaluation: {_listed(profile.seeds)})"
        ". A trial's value is validation cross-entropy; no test prediction is looked at. Lambda "
        "has no effect without text and is not sampled for lora_only."
    )
    trials = search(task, options.processes)
    csv = trials.to_csv(index=False, float_format="%.6g")
    write_text(task.folder / f"{task.name}.csv", csv)
    keep_chosen(task, chosen(task, trials))
    print(chosen_text(load_profile(options.profile)))


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def keep_chosen(task: Task, best: dict[SearchedSetting, Chosen]) -> None:
    """Put chosen values beside those of other cells in `profiles/searched/PROFILE.yaml`."""
    path = searched_path(task.profile.name)
    with held(task.folder / STUDIES / "chosen.lock"):
        found = read_searched(path)
        found.setdefault(task.dataset, {})[task.backbone] = best
        values = TypeAdapter(Cells).dump_python(found, mode="json", exclude_none=True)
        write_text(path, HEADER + yaml.safe_dump(values, sort_keys=False, default_flow_style=None))


def chosen(task: Task, trials: pd.DataFrame) -> dict[SearchedSetting, Chosen]:
    """The trial with the lowest validation cross-entropy of each setting, the first of equals.

    Raises:
        ClipItError: no trial of a setting has a finite one.
    """
    best: dict[SearchedSetting, Chosen] = {}
    for setting in SETTINGS:
        own = trials[trials["setting"] == setting]
        row = own.iloc[int(own["validation"].argmin())]
        if row["validation"] == float("inf"):
            fix = f"Lower the learning rate that {task.folder / task.name}.csv notes"
            raise ClipItError(f"every trial of {setting} diverged", task.name, fix)
        dropout = task.profile.lora.dropout
        best[setting] = Chosen(
            lora=Lora(rank=int(row["rank"]), alpha=int(row["alpha"]), dropout=dropout),
            lora_targets=row["targets"],
            distillation_weight=None if pd.isna(row["lambda"]) else float(row["lambda"]),
            found_with=FoundWith(
                trials=len(own),
                seeds=task.search.seeds,
                validation=float(f"{row['validation']:.6g}"),
            ),
        )
    return best


def chosen_text(profile: Profile) -> str:
    """The values of a profile's cells, one line a data set, backbone and setting."""
    lines = [
        f"{dataset}, {backbone}, {setting}: {describe(one)} ({_found(one.found_with)})"
        for dataset, backbones in profile.cells.items()
        for backbone, settings in backbones.items()
        for setting, one in settings.items()
    ]
    own = f"rank {profile.lora.rank}, alpha {profile.lora.alpha}, lambda "
    none = f"profile {profile.name}: nothing searched; {own}{profile.distillation_weight:g}"
    return "\n".join(lines) or none


def _found(how: FoundWith | None) -> str:
    if how is None:
        return "as the profile says"
    best = f"best of {how.trials} trials, seeds {_listed(how.seeds)}"
    return f"validation {how.validation:.4f}, {best}"
