"""The run store: each run is one folder, whole or absent, named by its specification's hash."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pandas as pd
import torch
from safetensors.torch import save_file

from clipit_lib import parallel, paths
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, written_beside
from clipit_lib.inputs import Inputs
from clipit_lib.predictions import LOGIT, Outcome
from clipit_lib.run import perform
from clipit_lib.settings import Descent, RunSpec, Strict
from clipit_lib.training import Stage

SPEC, HISTORY, DONE = "spec.json", "history.csv", "done.json"  # of every kind of run
CARD, MODEL, PREDICTIONS = "card.json", "model.safetensors", "predictions.parquet"
AGAIN = "Delete the folder of this run and run again"
VERSIONS = ("torch", "timm", "peft", "open_clip_torch", "transformers", "numpy")
Spec = TypeVar("Spec", bound=Strict)
Made = TypeVar("Made")

# -- The store of any kind of run.


@dataclass(frozen=True)
class Stored(Generic[Spec]):
    """A finished run on disk; a kind of run says what its specification is."""

    specification: ClassVar[type[Strict]]
    folder: Path
    spec: Spec

    @property
    def key(self) -> str:
        return self.folder.name

    def history(self) -> pd.DataFrame:
        """One row a look at validation."""
        with whole(self.folder / HISTORY, AGAIN):
            return pd.read_csv(self.folder / HISTORY)

    def done(self) -> dict[str, Any]:
        """Seconds, versions and notes of the run, and what else its kind keeps."""
        with whole(self.folder / DONE, AGAIN):
            value: dict[str, Any] = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        return value

    @property
    def notes(self) -> tuple[str, ...]:
        """What makes its course doubtful, in plain words."""
        return tuple(self.done().get("notes", ()))


Run = TypeVar("Run", bound=Stored[Any])


def read_run(kind: type[Run], folder: Path) -> Run:
    """Open a run folder.

    Raises:
        ClipItError: it is no finished run, or its specification is damaged.
    """
    if not (folder / DONE).exists():
        fix = "Name a folder below results/<profile>/runs/"
        raise ClipItError("no finished run here", folder, fix)
    with whole(folder / SPEC, AGAIN):
        text = (folder / SPEC).read_text(encoding="utf-8")
        return kind(folder, kind.specification.model_validate_json(text))


def find_run(kind: type[Run], folder: Path) -> Run | None:
    """The run in this folder, or None if there is no finished one."""
    return read_run(kind, folder) if (folder / DONE).exists() else None


def get_or_make(
    kind: type[Run], folder: Path, spec: Strict, make: Callable[[], Made],
    write: Callable[[Path, Made], dict[str, Any]],
) -> Run:  # fmt: skip
    """The run in `folder`, named by its key; it is made and written first if it is not there.

    A kill leaves a whole run or none. For several jobs and processes see `parallel.make_once`.

    Args:
        write: puts what was made beside the specification; returns what done.json adds.
    """

    def timed() -> tuple[Made, float]:
        begin = time.monotonic()
        return make(), time.monotonic() - begin

    def keep(made: tuple[Made, float]) -> None:
        with written_beside(folder) as temporary:
            temporary.mkdir()
            (temporary / SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
            added = write(temporary, made[0])
            now = datetime.now(UTC).isoformat(timespec="seconds")
            done = {"key": folder.name, "finished": now, "seconds": round(made[1], 2), **added}
            (temporary / DONE).write_text(json.dumps(done, indent=1), encoding="utf-8")

    lock = folder.with_name(f".{folder.name}.lock")
    parallel.make_once(folder / DONE, timed, keep, folder, lock)
    return read_run(kind, folder)


def software(packages: Iterable[str]) -> dict[str, Any]:
    """For `done`: the versions of Python and of what computed the run."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "versions": versions}


# -- Runs of patch classifiers.


class StoredRun(Stored[RunSpec]):
    """A patch classifier with its raw predictions."""

    specification = RunSpec

    def predictions(self, split: str = "test") -> pd.DataFrame:
        """Raw predictions of one split: sample, group, label, one logit column a class."""
        with whole(self.folder / PREDICTIONS, AGAIN):
            frame = pd.read_parquet(self.folder / PREDICTIONS)
        return frame[frame["split"] == split].reset_index(drop=True)


def read(folder: Path) -> StoredRun:
    """Open the folder of a patch classifier, see `read_run`."""
    return read_run(StoredRun, folder)


def find(profile: str, key: str) -> StoredRun | None:
    """A finished run by its key, or None."""
    return find_run(StoredRun, paths.runs(profile) / key)


def stored(profile: str) -> Iterator[StoredRun]:
    """All finished runs of a profile, by key."""
    for done in sorted(paths.runs(profile).glob(f"[0-9a-f]*/{DONE}")):
        yield read(done.parent)


def get_or_run(spec: RunSpec, inputs: Inputs) -> StoredRun:
    """The stored run of this specification; it is run first if it is not there.

    Raises:
        Diverged: its training or its predictions are not finite; nothing is stored.
    """

    def write(folder: Path, outcome: Outcome) -> dict[str, Any]:
        dataset = inputs.dataset(spec.dataset)
        card = {"classes": dataset.classes, "class_texts": dataset.class_texts,
                "licence": dataset.licence, "limits": dataset.limits,
                "weights": inputs.trained(spec)}  # fmt: skip
        (folder / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
        save_file(outcome.state, folder / MODEL, metadata={"spec": spec.model_dump_json()})
        outcome.predictions.to_parquet(folder / PREDICTIONS, compression="zstd", index=False)
        pd.DataFrame(outcome.history).to_csv(folder / HISTORY, index=False)
        return {
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "processes": parallel.processes().num_processes,
            **software(VERSIONS),
            "notes": outcome.notes,
        }

    def trained() -> Outcome:
        outcome = perform(spec, inputs)
        told = spec.text.training if spec.text and spec.branch == "text_only" else None
        stages: dict[str, Descent | None] = {"training": spec.training, "text_stage": told}
        key, settings = next(((k, v) for k, v in stages.items() if v), ("probe", spec.probe))
        logits = torch.tensor(outcome.predictions.filter(like=LOGIT).to_numpy())
        Stage.of_run(spec, "prediction", key).check_tensors(
            "the logits", [logits], "after training", settings.learning_rate,
            moved=spec.training is not None or spec.contrastive is None,
        )  # fmt: skip
        return outcome

    return get_or_make(StoredRun, inputs.runs / spec.key, spec, trained, write)
