"""Runs of the survival study: all folds of one setting and seed, kept in a store of their own."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from clipit_lib import kernels, paths
from clipit_lib.compute import device, seeded
from clipit_lib.divergence import Stage
from clipit_lib.encoders import clip
from clipit_lib.encoders.tokens import LongText
from clipit_lib.files import canonical_json, digest, locked, whole, written_beside
from clipit_lib.inputs import Inputs
from clipit_lib.settings import Strict, SurvivalSettings, known
from clipit_lib.settings.survival import SlideTraining
from clipit_lib.survival.cohort import Cohort
from clipit_lib.survival.model import ClipItSurvival, Unimodal
from clipit_lib.survival.opening import settings_of
from clipit_lib.survival.text import corpus_of, text_targets
from clipit_lib.survival.training import (
    FoldTask,
    PaddedSlides,
    predict,
    split_rows,
)
from clipit_lib.training import fit
from clipit_lib.workbench import Workbench

SETTINGS = ("unimodal", "clip_it/architecture_only", "clip_it")
SPEC, PREDICTIONS, HISTORY, DONE = "spec.json", "predictions.csv", "history.csv", "done.json"
AGAIN = "Delete the folder of this run and run again"
VERSIONS = ("torch", "torchsurv", "numpy")


class SurvivalSpec(Strict):
    """Everything that can change the result of one run; its hash is the run's key.

    What a setting does not use is None, so that it cannot change its key.
    """

    version: int = 2
    kernels: str
    setting: str
    seed: int
    cohort_hash: str
    folds: int
    hidden: int
    dropout: float
    training: SlideTraining
    validation: float
    text_width: int | None = None
    distillation_weight: float | None = None
    corpus: str | None = None
    corpus_hash: str | None = None
    retriever: str | None = None
    retriever_hash: str | None = None
    long_text: LongText | None = None

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        return digest(canonical_json(self.model_dump(mode="json", exclude_none=True)))


@dataclass(frozen=True)
class SurvivalRun:
    """A finished run on disk."""

    folder: Path
    spec: SurvivalSpec

    @property
    def key(self) -> str:
        return self.folder.name

    def predictions(self) -> pd.DataFrame:
        """One row a slide: slide, time, event, fold, log_risk (by the model that never saw it)."""
        with whole(self.folder / PREDICTIONS, AGAIN):
            return pd.read_csv(self.folder / PREDICTIONS, dtype={"slide": str})

    def history(self) -> pd.DataFrame:
        """One row a fold and epoch: fold, epoch, cox, distillation, validation."""
        with whole(self.folder / HISTORY, AGAIN):
            return pd.read_csv(self.folder / HISTORY)

    def done(self) -> dict[str, Any]:
        """Seconds, versions and notes of the run."""
        with whole(self.folder / DONE, AGAIN):
            value: dict[str, Any] = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        return value


def resolve(bench: Workbench, cohort: Cohort, setting: str, seed: int) -> SurvivalSpec:
    """The specification of one run.

    Raises:
        ClipItError: an unknown setting; no survival section; the encoders are not trained yet;
            bags without retriever embeddings, for other settings than unimodal.
    """
    known(setting, SETTINGS, "setting", f"profile {bench.profile.name}, survival")
    settings: SurvivalSettings = settings_of(bench.profile)
    fields: dict[str, Any] = {
        "kernels": kernels.level(),
        "setting": setting,
        "seed": seed,
        "cohort_hash": cohort.content_hash,
        **{
            name: getattr(settings, name)
            for name in ("folds", "hidden", "dropout", "training", "validation")
        },
    }
    if setting != "unimodal":
        fields["text_width"] = cohort.text_width
    if setting == "clip_it":
        fields |= {
            "distillation_weight": settings.distillation_weight,
            "corpus": settings.corpus,
            "corpus_hash": corpus_of(bench.profile).content_hash,
            "retriever": bench.profile.retriever,
            "retriever_hash": clip.weights_hash(bench.profile.retriever, bench.sources),
            "long_text": bench.profile.text_stage.long_text,
        }
    return SurvivalSpec(**fields)


def get_or_run(spec: SurvivalSpec, bench: Workbench, cohort: Cohort) -> SurvivalRun:
    """The stored run of this specification; it is run first if it is not there.

    Two processes that ask for the same run do it once. A kill leaves a whole run or none.
    """
    folder = paths.results(bench.profile.name) / "survival_runs" / spec.key
    if not (folder / DONE).exists():
        with locked(folder, folder.with_name(f".{spec.key}.lock")):
            if not (folder / DONE).exists():
                begin = time.monotonic()
                made = perform(spec, bench, cohort)
                _write(folder, spec, *made, time.monotonic() - begin)
    return SurvivalRun(folder, spec)


def perform(
    spec: SurvivalSpec, inputs: Inputs, cohort: Cohort
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Hold out each fold once; return predictions of all slides, courses, what is doubtful in them.

    Raises:
        Diverged: the training of a fold, or a risk that it predicts, is not finite.
    """
    slides, targets = PaddedSlides.of(cohort), None
    if spec.setting == "clip_it":
        assert spec.retriever is not None and spec.corpus is not None
        assert spec.long_text is not None
        targets = text_targets(inputs, cohort, spec.retriever, spec.corpus, spec.long_text)
    log_risk, courses = np.full(len(cohort), np.nan), []
    notes: tuple[str, ...] = ()
    for fold in cohort.folds:
        train, validation, held = split_rows(cohort, fold, spec.validation, spec.seed)
        weight = spec.distillation_weight or 0.0
        with seeded(1000 * spec.seed + fold):  # initial weights and dropout
            model = build(spec, cohort.width)
            task = FoldTask(model, slides, train, validation, targets, weight)
            of = f"{spec.setting}, seed {spec.seed}, without fold {fold}"
            stage = Stage("survival", "survival.training", of)
            course = fit(task, spec.training, spec.seed, stage=stage)
        risk = predict(model, slides, torch.from_numpy(held).to(device())).cpu()
        rate = spec.training.learning_rate
        stage.check_tensors("the predicted risks", [risk], "after the last step", rate)
        log_risk[held] = risk.numpy()
        courses.append(pd.DataFrame(course).assign(fold=fold))
        notes += course.notes
    predictions = cohort.clinical.assign(log_risk=log_risk)
    return predictions, pd.concat(courses, ignore_index=True), notes


def build(spec: SurvivalSpec, width: int) -> nn.Module:
    """The model of a setting with random weights; those of the visual branch are always first."""
    if spec.text_width is None:
        return Unimodal(width, spec.hidden, spec.dropout)
    return ClipItSurvival(width, spec.text_width, spec.hidden, spec.dropout)


def _write(
    folder: Path,
    spec: SurvivalSpec,
    predictions: pd.DataFrame,
    history: pd.DataFrame,
    notes: tuple[str, ...],
    took: float,
) -> None:
    done = {
        "key": spec.key,
        "seconds": round(took, 2),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "notes": notes,
    }
    with written_beside(folder) as temporary:
        temporary.mkdir()
        (temporary / SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
        predictions.to_csv(temporary / PREDICTIONS, index=False)
        history.to_csv(temporary / HISTORY, index=False)
        (temporary / DONE).write_text(json.dumps(done, indent=1), encoding="utf-8")
