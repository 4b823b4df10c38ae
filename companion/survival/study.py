"""Survival runs: specification, store, results and their words."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from clipit_lib import kernels, paths
from clipit_lib.compute import device, seeded
from clipit_lib.encoders import registry
from clipit_lib.encoders.encoder import LongText
from clipit_lib.files import canonical_json, digest, locked, whole, written_beside
from clipit_lib.inputs import Inputs
from clipit_lib.settings import Strict, known
from clipit_lib.training import Stage, fit
from companion.profile import SlideTraining, SurvivalSettings, Workbench
from companion.survival.cohort import Cohort, settings_of
from companion.survival.model import (
    METRICS,
    ClipItSurvival,
    FoldTask,
    PaddedSlides,
    Unimodal,
    bootstrap,
    concordance,
    corpus_of,
    held_out,
    integrated_auc,
    logrank,
    predict,
    split_rows,
    text_targets,
)

# -- Runs of the survival study: all folds of one setting and seed, kept in a store of their own.


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
            "retriever_hash": registry.weights_hash(
                bench.profile.retriever, bench.sources, text=True
            ),
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


# -- Table 8 from stored predictions: metrics by fold, means and gains, predicted halves.


def fold_metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a fold: fold, c_index, iauc of the slides that the model never saw."""
    rows = []
    for inside, weights in held_out(predictions):
        held = predictions.iloc[inside]
        risk, time, event = (held[name].to_numpy() for name in ("log_risk", "time", "event"))
        rows.append({
            "fold": int(held["fold"].iloc[0]),
            "c_index": concordance(risk, time, event),
            "iauc": integrated_auc(risk, time, event, weights),
        })  # fmt: skip
    return pd.DataFrame(rows)


def run_table(runs: Sequence[SurvivalRun]) -> pd.DataFrame:
    """One row a fold, setting and seed: fold, setting, seed, c_index, iauc, run."""
    parts = [
        fold_metrics(run.predictions()).assign(
            setting=run.spec.setting, seed=run.spec.seed, run=run.key
        )
        for run in runs
    ]
    columns = ["fold", "setting", "seed", *METRICS, "run"]
    return pd.concat(parts, ignore_index=True)[columns]


def planted_metrics(cohort: Cohort) -> pd.DataFrame | None:
    """`fold_metrics` of a phantom's planted hazard, which only chance can beat; None if real."""
    if cohort.planted is None:
        return None
    return fold_metrics(cohort.clinical.assign(log_risk=cohort.planted))


def intervals(runs: Sequence[SurvivalRun], table: pd.DataFrame, draws: int) -> pd.DataFrame:
    """One row a metric and quantity: metric, setting, over, value, low, high.

    `over` is empty for the mean of a setting; otherwise the value is the gain of the setting over
    it. Means are over folds and seeds, intervals 95% (see `resampling`).
    """
    settings = list(dict.fromkeys(run.spec.setting for run in runs))
    frames = {s: [run.predictions() for run in runs if run.spec.setting == s] for s in settings}
    drawn = bootstrap(frames, draws)
    means = table.groupby("setting")[list(METRICS)].mean()
    rows = []
    for metric in METRICS:
        mean, draw = means[metric], {s: drawn[s, metric] for s in settings}
        rows += [(metric, s, "", mean[s], *_limits(draw[s])) for s in settings]
        rows += [
            (metric, "clip_it", s, mean["clip_it"] - mean[s], *_limits(draw["clip_it"] - draw[s]))
            for s in settings
            if s != "clip_it" and "clip_it" in settings
        ]
    return pd.DataFrame(rows, columns=["metric", "setting", "over", "value", "low", "high"])


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def halves(runs: Sequence[SurvivalRun], setting: str) -> pd.DataFrame:
    """Slides split by predicted risk: slide, time, event, fold, high.

    Risks of different folds come from different models and are not comparable. So a slide is
    ranked within its fold, ranks are added over seeds, and the fold is split at their median (of
    slides that tie there, the first of the csv count as lower).
    """
    frames = [run.predictions() for run in runs if run.spec.setting == setting]
    ranks = [frame.groupby("fold")["log_risk"].rank(pct=True) for frame in frames]
    first = frames[0]
    by_fold = sum(ranks[1:], ranks[0]).groupby(first["fold"])
    high = by_fold.rank(method="first") > by_fold.transform("size") / 2
    return first[["slide", "time", "event", "fold"]].assign(high=high)


def halves_p(split: pd.DataFrame) -> float:
    """p of the log-rank test between the halves."""
    time, event, high = (split[name].to_numpy() for name in ("time", "event", "high"))
    return logrank(time, event, high)


# -- Table 8 to read, beside the paper's, and the result in words.


# Means over five folds of the paper's Table 8; its values by fold are not available to us.
PAPER = {
    "unimodal": {"c_index": 0.609, "iauc": 0.634},
    "clip_it": {"c_index": 0.661, "iauc": 0.699},
}
PAPER_GAIN = {"c_index": 0.052, "iauc": 0.066}  # of CLIP-IT over unimodal, as printed
NAMES = {
    "unimodal": "unimodal",
    "clip_it": "CLIP-IT",
    "clip_it/architecture_only": "architecture only",
}
METRIC_NAMES = {"c_index": "C-index", "iauc": "iAUC"}


def summary_table(table: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Table 8 to read: folds (means over seeds) and means, ours and the paper's."""
    rows = []
    for metric in METRICS:
        folds = table.pivot_table(index="setting", columns="fold", values=metric)
        for _, row in limits[(limits["metric"] == metric) & (limits["over"] == "")].iterrows():
            setting = str(row["setting"])
            printed = PAPER.get(setting)
            rows.append({
                "metric": METRIC_NAMES[metric],
                "setting": NAMES[setting],
                **{f"fold {fold}": f"{value:.3f}" for fold, value in folds.loc[setting].items()},
                "mean [95%]": f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                "paper's mean": f"{printed[metric]:.3f}" if printed else "no such row",
            })  # fmt: skip
    return pd.DataFrame(rows)


def sentences(limits: pd.DataFrame, p: float, planted: pd.DataFrame | None) -> str:
    """The result in words, as a Markdown list."""
    said = []
    for _, row in limits[limits["over"] != ""].iterrows():
        metric, over = str(row["metric"]), str(row["over"])
        printed = ""
        if over == "unimodal":
            gain = PAPER_GAIN[metric]
            printed = f" The paper's is {gain:+.3f}, on real slides, without an interval."
        said.append(
            f"- {METRIC_NAMES[metric]}: {NAMES['clip_it']} over {NAMES[over]} {row['value']:+.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}]; {_verdict(row['low'], row['high'])}."
            + printed
        )
    said.append(f"- Predicted halves of {NAMES['clip_it']}: log-rank p = {p:.2g}.")
    if planted is not None:
        c_index, iauc = planted[list(METRICS)].mean()
        said.append(
            f"- The planted risk itself reaches C-index {c_index:.3f} and iAUC {iauc:.3f}: chance "
            "in the times of events leaves no more to predict."
        )
    return "\n".join(said)


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "the interval lies above zero"
    return "the interval lies below zero" if high < 0 else "the interval includes zero"
