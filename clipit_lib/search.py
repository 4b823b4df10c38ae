"""`python -m clipit_lib search`: adapters and lambda of one cell, kept for the whole profile."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd
import yaml
from filelock import FileLock
from pydantic import TypeAdapter

from clipit_lib.encoders import vision
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text
from clipit_lib.search_space import describe
from clipit_lib.search_trials import SETTINGS, STUDIES, Task, search
from clipit_lib.settings import (
    Chosen,
    FoundWith,
    Lora,
    Profile,
    Search,
    Searched,
    SearchedSetting,
    load_profile,
    read_searched,
    searched_path,
)

HEADER = (
    "# Written by `python -m clipit_lib search` and read with the profile of this name.\n"
    "# Delete a data set to go back to the profile's own values.\n"
)


def main(arguments: list[str]) -> None:
    """Search LoRA rank, scale, targets and lambda on validation, or show what was found."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib search", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--dataset", help="a data set of the profile")
    parser.add_argument("--backbone", help="the backbone that is adapted in the trials")
    parser.add_argument("--trials", type=_positive, default=Search().trials, help="a setting")
    parser.add_argument("--processes", type=_positive, default=1, help="trials at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(Search().seeds))
    parser.add_argument("--show", action="store_true", help="print the chosen values only")
    options = parser.parse_args(arguments)
    profile = load_profile(options.profile)
    if options.show:
        print(chosen_text(profile))
        return
    if options.dataset is None or options.backbone is None:
        parser.error("--dataset and --backbone are needed")
    profile.data_settings(options.dataset)
    vision.entry(options.backbone)
    _check_writable(profile.name)
    asked = Search(trials=options.trials, seeds=tuple(dict.fromkeys(options.seeds)))
    task = Task(profile, options.dataset, options.backbone, asked)
    print(budget_text(task))
    for one in profile.searched.get(task.dataset, {}).values():
        if one.found_with.backbone != task.backbone:
            print(f"This replaces the values found with {one.found_with.backbone}.")
            break
    trials = search(task, options.processes)
    keep(task, trials)
    print(chosen_text(load_profile(options.profile)))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _check_writable(name: str) -> None:
    """Say before the first trial, not after the last, that the choice cannot be kept."""
    folder = searched_path(name).parent
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / f".{name}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ClipItError(
            f"cannot write here ({error.strerror})",
            folder,
            "Give write permission: chosen values become part of the profile",
        ) from error


def budget_text(task: Task) -> str:
    """What every setting gets, in words."""
    asked, profile = task.search, task.profile
    return (
        f"{' and '.join(SETTINGS)} get {asked.trials} trials each on {task.dataset}, "
        f"{task.backbone}, over seeds {_listed(asked.seeds)} (evaluation: {_listed(profile.seeds)})"
        ". A trial's value is validation cross-entropy; no test prediction is looked at. Lambda "
        "has no effect without text and is not sampled for lora_only."
    )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def keep(task: Task, trials: pd.DataFrame) -> None:
    """Write the trials as csv under results, and the best of each setting into the profile."""
    csv = trials.to_csv(index=False, float_format="%.6g")
    write_text(task.folder / f"{task.name}.csv", csv)
    keep_chosen(task, chosen(task, trials))


def keep_chosen(task: Task, best: dict[SearchedSetting, Chosen]) -> None:
    """Put chosen values beside those of other data sets in `profiles/searched/PROFILE.yaml`."""
    path = searched_path(task.profile.name)
    with FileLock(task.folder / STUDIES / "chosen.lock"):
        found: Searched = read_searched(path) | {task.dataset: best}
        values = TypeAdapter(Searched).dump_python(found, mode="json", exclude_none=True)
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
                backbone=task.backbone,
                trials=len(own),
                seeds=task.search.seeds,
                validation=float(f"{row['validation']:.6g}"),
            ),
        )
    return best


def chosen_text(profile: Profile) -> str:
    """The chosen values of a profile, one line a data set and setting."""
    lines = [
        f"{dataset}, {setting}: {describe(one)} (validation {one.found_with.validation:.4f}, best "
        f"of {one.found_with.trials} trials, {one.found_with.backbone}, "
        f"seeds {_listed(one.found_with.seeds)})"
        for dataset, settings in profile.searched.items()
        for setting, one in settings.items()
    ]
    own = f"rank {profile.lora.rank}, alpha {profile.lora.alpha}, lambda "
    none = f"profile {profile.name}: nothing searched; {own}{profile.distillation_weight:g}"
    return "\n".join(lines) or none
