"""The run store: each run is one folder, whole or absent, named by its specification's hash."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from clipit_lib import parallel, paths
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, written_beside
from clipit_lib.inputs import Inputs
from clipit_lib.predictions import LOGIT, Outcome
from clipit_lib.run import perform
from clipit_lib.settings import Descent, RunSpec
from clipit_lib.training import Stage

SPEC, CARD, MODEL = "spec.json", "card.json", "model.safetensors"
PREDICTIONS, HISTORY, DONE = "predictions.parquet", "history.csv", "done.json"
AGAIN = "Delete the folder of this run and run again"
VERSIONS = ("torch", "timm", "peft", "open_clip_torch", "transformers", "numpy")


@dataclass(frozen=True)
class StoredRun:
    """A finished run on disk."""

    folder: Path
    spec: RunSpec

    @property
    def key(self) -> str:
        return self.folder.name

    def predictions(self, split: str = "test") -> pd.DataFrame:
        """Raw predictions of one split: sample, group, label, one logit column a class."""
        with whole(self.folder / PREDICTIONS, AGAIN):
            frame = pd.read_parquet(self.folder / PREDICTIONS)
        return frame[frame["split"] == split].reset_index(drop=True)

    def history(self) -> pd.DataFrame:
        """One row a look at validation."""
        with whole(self.folder / HISTORY, AGAIN):
            return pd.read_csv(self.folder / HISTORY)

    def done(self) -> dict[str, Any]:
        """Seconds, peak memory, number of processes, versions and notes of the run."""
        with whole(self.folder / DONE, AGAIN):
            value: dict[str, Any] = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        return value

    @property
    def notes(self) -> tuple[str, ...]:
        """What makes its course doubtful, in plain words."""
        return tuple(self.done().get("notes", ()))


def find(profile: str, key: str) -> StoredRun | None:
    """A finished run by its key, or None."""
    folder = paths.runs(profile) / key
    return read(folder) if (folder / DONE).exists() else None


def read(folder: Path) -> StoredRun:
    """Open a run folder.

    Raises:
        ClipItError: it is no finished run, or its specification is damaged.
    """
    if not (folder / DONE).exists():
        raise ClipItError(
            "no finished run here", folder, "Name a folder below results/<profile>/runs/"
        )
    with whole(folder / SPEC, AGAIN):
        spec = RunSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))
    return StoredRun(folder, spec)


def stored(profile: str) -> Iterator[StoredRun]:
    """All finished runs of a profile, by key."""
    for done in sorted(paths.runs(profile).glob(f"[0-9a-f]*/{DONE}")):
        yield read(done.parent)


def get_or_run(spec: RunSpec, inputs: Inputs) -> StoredRun:
    """The stored run of this specification; it is run first if it is not there.

    Two jobs that ask for the same run do it once. A kill leaves a whole run or none. The processes
    of one launch all call this; they train together, and the main one writes.

    Raises:
        Diverged: its training or its predictions are not finite; nothing is stored.
    """
    folder = inputs.runs / spec.key

    def trained() -> tuple[Outcome, float]:
        begin = time.monotonic()
        outcome = perform(spec, inputs)
        _check(outcome, spec)
        return outcome, time.monotonic() - begin

    parallel.make_once(
        folder / DONE,
        trained,
        lambda made: _write(folder, spec, inputs, *made),
        folder,
        folder.with_name(f".{spec.key}.lock"),
    )
    return read(folder)


def _check(outcome: Outcome, spec: RunSpec) -> None:
    """Refuse predictions that are not finite, by the stage that made them."""
    settings: Descent = spec.probe
    key = "probe"
    if spec.training is not None:
        key, settings = "training", spec.training
    elif spec.text is not None and spec.text_only:
        key, settings = "text_stage", spec.text.training
    trained = spec.training is not None or spec.contrastive is None
    logits = torch.tensor(outcome.predictions.filter(like=LOGIT).to_numpy())
    Stage.of_run(spec, "prediction", key).check_tensors(
        "the logits", [logits], "after training", settings.learning_rate, trained
    )


def _write(folder: Path, spec: RunSpec, inputs: Inputs, outcome: Outcome, seconds: float) -> None:
    dataset = inputs.dataset(spec.dataset)
    card = {"classes": dataset.classes, "class_texts": dataset.class_texts,
            "licence": dataset.licence, "limits": dataset.limits,
            "weights": inputs.trained(spec)}  # fmt: skip
    done = {
        "key": spec.key,
        "seconds": round(seconds, 2),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "processes": parallel.processes().num_processes,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "notes": outcome.notes,
    }
    with written_beside(folder) as temporary:
        temporary.mkdir()
        (temporary / SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
        (temporary / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
        save_file(outcome.state, temporary / MODEL, metadata={"spec": spec.model_dump_json()})
        outcome.predictions.to_parquet(temporary / PREDICTIONS, compression="zstd", index=False)
        pd.DataFrame(outcome.history).to_csv(temporary / HISTORY, index=False)
        (temporary / DONE).write_text(json.dumps(done, indent=1), encoding="utf-8")
