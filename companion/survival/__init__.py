"""Survival runs: specification, store, results and their words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import companion.survival.model as model
from clipit_lib import kernels
from clipit_lib.compute import device, seeded
from clipit_lib.encoders import registry
from clipit_lib.encoders.encoder import LongText
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, whole
from clipit_lib.inputs import Inputs
from clipit_lib.runs import AGAIN, HISTORY, Stored, get_or_make, software
from clipit_lib.settings import Strict, known
from clipit_lib.training import Stage, fit
from companion import paths
from companion.profile import SlideTraining, Workbench
from companion.statistics import Interval, word
from companion.survival.cohort import PATIENT, Cohort, settings_of
from companion.survival.model import METRICS

# -- Runs of the survival study: all folds of one setting and seed, kept in a store of their own.

NAMES = {
    "unimodal": "unimodal",
    "clip_it/architecture_only": "architecture only",
    "clip_it": "CLIP-IT",
}
SETTINGS = tuple(NAMES)
MARGIN = 0.01  # of the C-index and the iAUC: less is equivalent to none
PREDICTIONS = "predictions.csv"
VERSIONS = ("torch", "torchsurv", "numpy")
Made = tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]


class SurvivalSpec(Strict):
    """Everything that can change the result of one run; its hash is the run's key.

    What a setting does not use is None, so that it cannot change its key.
    """

    version: int = 2
    depth: int | None = None
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


class SurvivalRun(Stored[SurvivalSpec]):
    """The risks that one setting and seed predicts; its history is by fold and epoch."""

    specification = SurvivalSpec

    def predictions(self) -> pd.DataFrame:
        """One row a row of `Cohort.clinical`, with log_risk by the model that never saw it."""
        names = dict.fromkeys(("slide", PATIENT), str)  # "007" and "NA" are names
        with whole(self.folder / PREDICTIONS, AGAIN):
            return pd.read_csv(self.folder / PREDICTIONS, dtype=names, keep_default_na=False)


def folder_of(results: Path, key: str) -> Path:
    """Where a folder of results keeps a survival run."""
    return results / "survival_runs" / key


def resolve(bench: Workbench, cohort: Cohort, setting: str, seed: int) -> SurvivalSpec:
    """The specification of one run.

    Raises:
        ClipItError: an unknown setting; no survival section; the encoders are not trained yet;
            bags without retriever embeddings, for other settings than unimodal.
    """
    known(setting, SETTINGS, "setting", f"profile {bench.profile.name}, survival")
    settings, profile = settings_of(bench.profile), bench.profile
    text = {} if setting == "unimodal" else {"text_width": cohort.retriever[0].shape[1]}
    if setting == "clip_it":
        text |= {
            "distillation_weight": settings.distillation_weight,
            "corpus": settings.corpus,
            "corpus_hash": bench.named_corpus(settings.corpus).content_hash,
            "retriever": profile.retriever,
            "retriever_hash": registry.weights_hash(profile.retriever, bench.sources, text=True),
            "long_text": profile.text_stage.long_text,
        }
    return SurvivalSpec(
        kernels=kernels.level(), depth=profile.depth, setting=setting, seed=seed,
        cohort_hash=cohort.content_hash,
        folds=settings.folds, hidden=settings.hidden, dropout=settings.dropout,
        training=settings.training, validation=settings.validation, **text,
    )  # fmt: skip


def get_or_run(spec: SurvivalSpec, bench: Workbench, cohort: Cohort) -> SurvivalRun:
    """The stored run of this specification; it is run first if it is not there."""

    def write(folder: Path, made: Made) -> dict[str, Any]:
        predictions, history, notes = made
        predictions.to_csv(folder / PREDICTIONS, index=False)
        history.to_csv(folder / HISTORY, index=False)
        return {**software(VERSIONS), "notes": notes}

    folder = folder_of(paths.results(bench.profile.name), spec.key)
    return get_or_make(SurvivalRun, folder, spec, lambda: perform(spec, bench, cohort), write)


def perform(spec: SurvivalSpec, inputs: Inputs, cohort: Cohort) -> Made:
    """Hold out each fold once; return predictions of all slides, courses, what is doubtful in them.

    Raises:
        ClipItError: nothing can be compared within any fold, or no event is left to train on.
        Diverged: the training of a fold, or a risk that it predicts, is not finite.
    """
    of_any_risk = fold_metrics(cohort.clinical.assign(log_risk=0.0))
    for metric in METRICS:
        if of_any_risk[metric].isna().all():
            what = f"{METRICS[metric]} is defined in no fold: {NOT_DEFINED}"
            fix = "Give times that differ within a fold, or fewer folds"
            raise ClipItError(what, "clinical table", fix)
    slides, targets, width = model.PaddedSlides.of(cohort), None, cohort.bags[0].features.shape[1]
    if spec.setting == "clip_it":
        assert spec.retriever and spec.corpus and spec.long_text
        reports, texts = model.pairs(inputs, cohort, spec.retriever, spec.corpus, spec.long_text)
        targets = model.padded(reports).to(device()), torch.from_numpy(texts).to(device())
    log_risk, courses = np.full(len(cohort), np.nan), []
    notes: tuple[str, ...] = ()
    splits = [model.split_rows(cohort, f, spec.validation, spec.seed) for f in cohort.folds]
    for fold, (train, validation, held) in zip(cohort.folds, splits, strict=True):
        with seeded(1000 * spec.seed + fold):  # initial weights and dropout
            network = model.SurvivalModel(width, spec.hidden, spec.dropout, spec.text_width)
            weight = spec.distillation_weight or 0.0
            task = model.FoldTask(network, slides, train, validation, targets, weight)
            of = f"{spec.setting}, seed {spec.seed}, without fold {fold}"
            stage = Stage("survival", "survival.training", of)
            course = fit(task, spec.training, spec.seed, stage=stage)
        risk = model.predict(network, slides, torch.from_numpy(held).to(device())).cpu()
        rate = spec.training.learning_rate
        stage.check_tensors("the predicted risks", [risk], "after the last step", rate)
        log_risk[held] = risk.numpy()
        courses.append(pd.DataFrame(course).assign(fold=fold))
        notes += course.notes
    return cohort.clinical.assign(log_risk=log_risk), pd.concat(courses, ignore_index=True), notes


# -- Table 8 from stored predictions: metrics by fold, means and gains, predicted halves.


def fold_metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a fold: fold, c_index, iauc of the slides that the model never saw."""
    rows = [
        (predictions["fold"].iloc[held[0]], *model.metrics(predictions.iloc[held], weights)[:, 0])
        for held, weights in model.held_out(predictions)
    ]
    return pd.DataFrame(rows, columns=["fold", *METRICS])


def run_table(runs: Sequence[SurvivalRun]) -> pd.DataFrame:
    """One row a fold, setting and seed: fold, setting, seed, c_index, iauc, run."""
    parts = [
        fold_metrics(run.predictions()).assign(
            setting=run.spec.setting, seed=run.spec.seed, run=run.key
        )
        for run in runs
    ]
    return pd.concat(parts, ignore_index=True)[["fold", "setting", "seed", *METRICS, "run"]]


def planted_metrics(cohort: Cohort) -> pd.DataFrame | None:
    """`fold_metrics` of a phantom's planted hazard, which only chance can beat; None if real."""
    if cohort.planted is None:
        return None
    return fold_metrics(cohort.clinical.assign(log_risk=cohort.planted))


def intervals(runs: Sequence[SurvivalRun], table: pd.DataFrame, draws: int) -> pd.DataFrame:
    """One row a metric and quantity: metric, setting, over, value, low, high.

    `over` is empty for the mean of a setting; otherwise the value is the gain of the setting over
    it. Means are over folds and seeds, intervals 95% (see `model.bootstrap`).
    """
    settings = list(dict.fromkeys(run.spec.setting for run in runs))
    frames = {s: [run.predictions() for run in runs if run.spec.setting == s] for s in settings}
    drawn = model.bootstrap(frames, draws)
    means = table.groupby("setting")[list(METRICS)].mean().stack()
    pairs = [(setting, "") for setting in settings]
    pairs += [("clip_it", setting) for setting in settings if setting != "clip_it"]
    rows = []
    for metric, (setting, over) in product(METRICS, pairs):
        value, values = means[setting, metric], drawn[setting, metric]
        if over:
            value, values = value - means[over, metric], values - drawn[over, metric]
        rows.append((metric, setting, over, value, *np.nanpercentile(values, [2.5, 97.5])))
    return pd.DataFrame(rows, columns=["metric", "setting", "over", "value", "low", "high"])


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


# -- Table 8 to read, beside the paper's, and the result in words.

# Means over five folds of the paper's Table 8; its values by fold are not available to us.
PAPER = {
    "unimodal": {"c_index": 0.609, "iauc": 0.634},
    "clip_it": {"c_index": 0.661, "iauc": 0.699},
}
PAPER_GAIN = {"c_index": 0.052, "iauc": 0.066}  # of CLIP-IT over unimodal, as printed
NOT_DEFINED = "no event is seen there before the time of another"


def folds_of(table: pd.DataFrame, metric: str) -> tuple[list[int], list[int]]:
    """The folds in which a metric is defined, which its means are over, and the others."""
    defined = table[metric].notna().groupby(table["fold"]).any()
    return defined.index[defined].tolist(), defined.index[~defined].tolist()


def summary_table(table: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Table 8 to read: folds (means over seeds) and means, ours and the paper's."""
    rows = []
    for metric in METRICS:
        means = table.pivot_table(index="setting", columns="fold", values=metric, dropna=False)
        folds = means.map("{:.3f}".format).replace("nan", "not defined")
        for _, row in limits[(limits["metric"] == metric) & (limits["over"] == "")].iterrows():
            setting = str(row["setting"])
            printed = PAPER.get(setting)
            rows.append({
                "metric": METRICS[metric],
                "setting": NAMES[setting],
                **{f"fold {fold}": value for fold, value in folds.loc[setting].items()},
                "mean [95%]": f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                "paper's mean": f"{printed[metric]:.3f}" if printed else "no such row",
            })  # fmt: skip
    return pd.DataFrame(rows)


def sentences(
    table: pd.DataFrame, limits: pd.DataFrame, split: pd.DataFrame, planted: pd.DataFrame | None
) -> str:
    """`run_table`, `intervals`, `halves` and `planted_metrics` in words, as a Markdown list."""
    said = []
    for metric, _, over, value, low, high in limits[limits["over"] != ""].itertuples(index=False):
        sure = Interval(value, low, high)
        said.append(
            f"- {METRICS[metric]}: {NAMES['clip_it']} over {NAMES[over]} {value:+.3f} "
            f"[{low:+.3f}, {high:+.3f}]: **{word(sure, sure, MARGIN)}**."
        )
        if over == "unimodal":
            gain = f"{PAPER_GAIN[metric]:+.3f}"
            said[-1] += f" The paper's is {gain}, on real slides, without an interval."
    for metric in METRICS:
        defined, others = (", ".join(map(str, folds)) for folds in folds_of(table, metric))
        if others:
            said.append(
                f"- {METRICS[metric]} is not defined in fold {others}: {NOT_DEFINED}. Its "
                f"means and intervals are over fold {defined}."
            )
    said.append(f"- Predicted halves of CLIP-IT: log-rank p = {model.logrank(split):.2g}.")
    if planted is not None:
        c_index, iauc = planted[list(METRICS)].mean()
        said.append(
            f"- The planted risk itself reaches C-index {c_index:.3f} and iAUC {iauc:.3f}: chance "
            "in the times of events leaves no more to predict."
        )
    return "\n".join(said)
