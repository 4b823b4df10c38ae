"""Which run to deploy: chosen by validation, never by test; it needs an image and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.evaluation import LOGIT, balanced_accuracy
from clipit_lib.names import label
from clipit_lib.runs import StoredRun

DEPLOYABLE = ("unimodal", "lora_only", "clip_it")  # no control that was given wrong text
GROUP = ["backbone", "setting"]


@dataclass(frozen=True)
class Choice:
    """The run to deploy for a data set.

    Attributes:
        run: the best seed of the best backbone and setting.
        candidates: one row a run: backbone, setting, seed, validation (balanced accuracy,
            percent), nats (validation cross-entropy), run.
    """

    run: StoredRun
    candidates: pd.DataFrame

    @property
    def validation(self) -> float:
        """Balanced validation accuracy of the run, in percent."""
        own = self.candidates.set_index("run")["validation"]
        return float(own[self.run.key])


def choose(stored: Sequence[StoredRun], dataset: str) -> Choice:
    """The backbone and setting with the best mean over seeds, then its best seed.

    Both by balanced accuracy on validation; of equals the lower cross-entropy, then the first.

    Raises:
        ClipItError: no unimodal, lora_only or clip_it run of this data set.
    """
    runs = [run for run in stored if run.spec.dataset == dataset and run.spec.setting in DEPLOYABLE]
    if not runs:
        raise ClipItError(
            f"no run of {dataset} to deploy", "study own", f"Run one of {', '.join(DEPLOYABLE)}"
        )
    candidates = pd.DataFrame([_row(run) for run in runs])
    means = candidates.groupby(GROUP, sort=False)[["validation", "nats"]].mean().reset_index()
    backbone, setting = _best(means)[GROUP]
    seeds = candidates[(candidates[GROUP] == [backbone, setting]).all(axis=1)]
    key = _best(seeds)["run"]
    return Choice(next(run for run in runs if run.key == key), candidates)


def _best(rows: pd.DataFrame) -> pd.Series:
    # Stable, so that of equal rows the first is taken; rounded, so that equal means are equal.
    order = rows.round({"validation": 9, "nats": 9})
    order = order.sort_values(["validation", "nats"], ascending=[False, True], kind="stable")
    return rows.loc[order.index[0]]


def _row(run: StoredRun) -> dict[str, object]:
    held = run.predictions("validation")
    scores = log_softmax(held.filter(like=LOGIT).to_numpy(dtype=float), axis=1)
    own = scores[np.arange(len(held)), held["label"].to_numpy()]
    return {
        "backbone": run.spec.backbone,
        "setting": run.spec.setting,
        "seed": run.spec.seed,
        "validation": balanced_accuracy(held),
        "nats": -float(own.mean()),
        "run": run.key,
    }


def candidate_table(choice: Choice) -> pd.DataFrame:
    """To read: one row a backbone and setting, mean over seeds on validation."""
    grouped = choice.candidates.groupby(GROUP, sort=False)
    means = grouped[["validation", "nats"]].mean().reset_index()
    return means.assign(seeds=grouped.size().to_numpy()).rename(
        columns={"validation": "validation balanced accuracy (%)", "nats": "validation nats"}
    )


def command(run: StoredRun) -> str:
    """The command that classifies images by a run, to be called in the repository."""
    folder, here = run.folder, paths.repository()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return f"python -m clipit_lib predict {shlex.quote(str(shown))} image.png"


def choice_words(choice: Choice) -> str:
    """The choice, what it rests on, and how to call it, as Markdown."""
    spec, test = choice.run.spec, balanced_accuracy(choice.run.predictions())
    ways = len(choice.candidates.drop_duplicates(GROUP))
    doubt = "".join(f"\n\n**Doubtful**: {note}." for note in choice.run.notes)
    return (
        f"For {spec.dataset}, deploy **{label(spec.setting)} on {spec.backbone}, seed "
        f"{spec.seed}**: of {ways} ways it has the best mean over seeds on validation, and of its "
        f"seeds this one ({choice.validation:.1f}%; as the best of {len(choice.candidates)} runs "
        f"that is too good by some luck). On test, looked at after the choice, it has {test:.1f}% "
        f"balanced accuracy. It reads an image and no text:\n\n```sh\n"
        f"{command(choice.run)}\n```{doubt}"
    )
