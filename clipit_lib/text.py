"""Stage one: the text encoder and its head learn the classes (equation 2)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipit_lib import lora, parallel, paths
from clipit_lib.compute import device, seeded
from clipit_lib.data.patches import Split
from clipit_lib.data.reports import CLASS_TEXT, drop_from_all, lose_letters
from clipit_lib.encoders.encoder import ClipEncoder, TokenWindows, embed_texts, embed_windows
from clipit_lib.files import whole, written_beside
from clipit_lib.inputs import (
    SPLITS,
    Inputs,
    Labels,
    PairedTexts,
    choose_labels,
    nearest,
    paired_reports,
    paired_texts,
    redrawn_reports,
)
from clipit_lib.model import TextHead
from clipit_lib.pairing import effective_number
from clipit_lib.predictions import Outcome, predicted
from clipit_lib.settings import RunSpec, TextSpec
from clipit_lib.training import BLOCK, MovingTargets, Stage, Targets, Task, fit


class TextClassifier(nn.Module):
    """f_t and h_t of equation 2: token windows of m texts to logits [m, c]."""

    def __init__(self, tower: nn.Module, text_width: int, classes: int) -> None:
        super().__init__()
        self.tower, self.head = tower, TextHead(text_width, classes)

    def forward(self, windows: TokenWindows) -> Float[Tensor, "m c"]:
        logits: Tensor = self.head(embed_windows(self.tower, windows))
        return logits


@dataclass(eq=False)
class ReportTask(Task):
    """Equation 2, gathered by distinct report: sum over r, c of n_rc CE(h_t(f_t(r)), c) / N.

    N patches that share M reports give the same objective in M text passes instead of N.

    Args:
        counts: [m, c] training patches of class c that are paired with report r.
        validation_counts: the same for validation.
        redraw: windows to learn from, by epoch, if they change; validation reads whole texts.
    """

    model: TextClassifier
    windows: TokenWindows
    counts: Float[Tensor, "m c"]
    validation_counts: Float[Tensor, "m c"]
    double_softmax: bool = False
    redraw: Callable[[int], TokenWindows] | None = None

    def __post_init__(self) -> None:
        self.used, self.read = torch.nonzero(self.counts.sum(dim=1)).flatten(), self.windows
        self.counts, self.rows = self.counts[self.used], len(self.used)

    def begin(self, epoch: int) -> None:
        if self.redraw is not None:
            self.read = self.redraw(epoch)

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        # Batches share the objective: weights of an epoch's batches sum to the number of rows.
        weights = self.counts[rows] * (self.rows / len(rows) / self.counts.sum())
        logits = model(self.read.select(self.used[rows]))
        if self.double_softmax:
            logits = logits.float().softmax(dim=-1)
        return {"classification": weighted_cross_entropy(logits, weights.to(device()))}

    @torch.inference_mode()
    def validate(self) -> float:
        used = torch.nonzero(self.validation_counts.sum(dim=1)).flatten()
        counts = self.validation_counts[used]
        logits = torch.cat([self.model(self.windows.select(part)) for part in used.split(BLOCK)])
        return float(weighted_cross_entropy(logits.cpu(), counts / counts.sum()))


def weighted_cross_entropy(
    logits: Float[Tensor, "m c"], weights: Float[Tensor, "m c"]
) -> Float[Tensor, ""]:
    """Sum over reports and classes of weight times negative log-probability, in nats."""
    return -(weights * logits.float().log_softmax(dim=-1)).sum()


# -- Stage one: fine-tune the text encoder on paired reports, then fix its features (eq. 2).


PREFIX, NOTES = "head.", "notes"
STAGE_TWO = 1000  # more than any number of epochs of stage one


@dataclass(frozen=True)
class TextFeatures:
    """What stage one leaves: unit-length features of all reports by the fine-tuned text encoder,
    weights of h_t, the encoder's adapters, and what makes the course doubtful, in plain words.
    """

    features: Float[Tensor, "m e"]
    head: dict[str, Tensor]
    adapters: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def stage_one(
    spec: TextSpec, inputs: Inputs, labels: Labels, splits: tuple[Split, ...] = SPLITS[:2]
) -> tuple[PairedTexts, TextFeatures]:
    """The texts of a run (of `splits`, train and validation among them) and what stage one left."""
    paired = as_released(spec, inputs, paired_texts(spec, inputs, splits))
    path = paths.cache() / "text_stage" / f"{spec.key}.safetensors"
    train = partial(_train, spec, inputs, labels, paired)
    parallel.make_once(path, train, partial(_write, path))
    return paired, _read(path)


def as_released(spec: TextSpec, inputs: Inputs, paired: PairedTexts) -> PairedTexts:
    """What the protocol's switches do to the paired texts; nothing under the paper's."""
    if (share := spec.class_text_share) is not None:
        assert spec.class_texts is not None
        data = inputs.dataset(spec.dataset)
        close = nearest(spec, inputs, "train", 1).similarities
        chosen = paired.chosen["train"].copy()
        low = close[:, 0] < np.quantile(close[:, 0], share)
        # In training only: the label in words in place of the least similar reports.
        chosen[low] = len(paired.texts) + data.labels[data.indices("train")][low]
        texts = (*paired.texts, *(CLASS_TEXT.format(text) for text in spec.class_texts))
        paired = PairedTexts(texts, paired.chosen | {"train": chosen})
    if spec.letters_lost:
        paired = PairedTexts(tuple(map(lose_letters, paired.texts)), paired.chosen)
    return paired


def _read(path: Path) -> TextFeatures:
    with whole(path, "Delete this file and run again"):
        state = load_file(path)
        with safe_open(path, "pt") as opened:
            notes = json.loads((opened.metadata() or {}).get(NOTES, "[]"))
        features = state.pop("features")
    head = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    adapters = {k: v for k, v in state.items() if not k.startswith(PREFIX)}
    return TextFeatures(features, head, adapters, tuple(notes))


def _write(path: Path, result: TextFeatures) -> None:
    head = {PREFIX + name: value for name, value in result.head.items()}
    tensors = {"features": result.features, **head, **result.adapters}
    with written_beside(path) as temporary:
        save_file(tensors, temporary, metadata={NOTES: json.dumps(result.notes)})


def _train(spec: TextSpec, inputs: Inputs, labels: Labels, paired: PairedTexts) -> TextFeatures:
    settings, texts = spec.training, paired.texts
    clip, classes = inputs.retriever(spec.retriever), len(inputs.dataset(spec.dataset).classes)
    if spec.stage == "ignored":  # the retriever's own features, and no head to pass on
        features = embed_texts(clip.text_tower, clip.tokenizer, texts, settings.long_text)
        return TextFeatures(features.float().clone(), {}, {})
    with seeded(spec.seed):  # initial weights and dropout
        tower = _adapted(clip, spec)
        model = TextClassifier(tower, clip.width, classes)
        counts, held = (
            pair_counts(torch.from_numpy(paired.chosen[split][at]), learned, len(texts), classes)
            for split, (_, at, learned) in labels.items()
        )
        windows = clip.tokenizer.windows(texts, settings.long_text)
        redraw = None if spec.word_dropout is None else partial(_dropped, spec, clip, texts)
        task = ReportTask(model, windows, counts, held, spec.double_softmax, redraw)
        stage = Stage.of_run(spec, "stage one", "text_stage")
        course = fit(task, settings, spec.seed, stage=stage)
    features = embed_texts(tower, clip.tokenizer, texts, settings.long_text)
    rate = settings.learning_rate
    stage.check_tensors("the reports' features", [features], "after the last step", rate)
    head = {name: value.cpu().clone() for name, value in model.head.state_dict().items()}
    return TextFeatures(features.float().clone(), head, lora.adapters(tower), course.notes)


def _adapted(clip: ClipEncoder, spec: TextSpec) -> nn.Module:
    """A copy of the text encoder: with fresh adapters, or frozen as it is."""
    tower = copy.deepcopy(clip.text_tower)
    if spec.lora is None:
        return tower.requires_grad_(False)
    lora.inject(tower, clip.text_targets, spec.lora, spec.lora_targets)
    return tower


def _dropped(spec: TextSpec, clip: ClipEncoder, texts: tuple[str, ...], epoch: int) -> TokenWindows:
    """Windows of texts that have lost words, anew in each epoch."""
    assert spec.word_dropout is not None
    left = drop_from_all(texts, spec.word_dropout, spec.seed, epoch)
    return clip.tokenizer.windows(left, spec.training.long_text)


@torch.inference_mode()
def dropped_features(
    spec: TextSpec, clip: ClipEncoder, tower: nn.Module, texts: tuple[str, ...],
    distinct: Int[Tensor, " m"], epoch: int,
) -> Float[Tensor, "m e"]:  # fmt: skip
    """Features of the texts `distinct` after words were dropped anew for this epoch."""
    # Other draws than those that stage one learned from.
    windows = _dropped(spec, clip, texts, STAGE_TWO + epoch)
    parts = (windows.select(part) for part in distinct.split(BLOCK))
    return torch.cat([embed_windows(tower, part).cpu() for part in parts]).clone()


def tuned_tower(spec: TextSpec, clip: ClipEncoder, stage: TextFeatures) -> nn.Module:
    """A copy of the text encoder with its adapters put back, ready to learn on."""
    with seeded(spec.seed):
        tower = _adapted(clip, spec)
    tower.load_state_dict(stage.adapters, strict=False)
    return tower


def pair_counts(
    reports: Int[Tensor, " n"], labels: Int[Tensor, " n"], count: int, classes: int
) -> Float[Tensor, "m c"]:
    """How many patches of each class are paired with each report."""
    table = torch.zeros(count, classes)
    return table.index_put_((reports, labels), torch.ones(len(labels)), accumulate=True)


# -- What stage two takes from the text.


def other_targets(spec: TextSpec, inputs: Inputs, at: np.ndarray, kind: str) -> Targets:
    """In place of the text, of unit length and its width; none is read.

    Args:
        at: positions [n] in the training split.
        kind: `image`, the retriever's own embedding of each patch; `noise`, a direction of its own
            for each, drawn by the seed once; `image_centroids`, one of k centroids of the former,
            where k is the effective number of reports of the pairing: as few as hub reports give.
    """
    embeddings = inputs.image_embeddings(spec.dataset, "train", spec.retriever)
    if kind == "noise":
        rng = np.random.default_rng([spec.seed, 8])
        embeddings = rng.standard_normal(embeddings.shape, np.float32)
    images = F.normalize(torch.from_numpy(embeddings[at]), dim=-1)
    if kind != "image_centroids":
        return Targets(images, torch.arange(len(images)))
    from sklearn.cluster import KMeans  # slow to import, and seldom needed

    count = max(1, round(effective_number(paired_reports(spec, inputs, "train"))))
    clusters = KMeans(min(count, len(images)), n_init=4, random_state=spec.seed)
    cluster = clusters.fit_predict(images.numpy())
    means = torch.from_numpy(clusters.cluster_centers_).float()
    return Targets(F.normalize(means, dim=-1), torch.from_numpy(cluster).long())


def for_stage_two(
    spec: RunSpec, inputs: Inputs, labels: Labels, at: np.ndarray
) -> tuple[TextFeatures, Targets | MovingTargets]:
    """What stage one left of the labels, and the targets of the training patches [n] that stage
    two sees: their reports after that, or what another control has in their place.
    """
    asked, training = spec.text, spec.training
    assert asked is not None and training is not None and spec.protocol is not None
    if spec.target is not None:
        others = other_targets(asked, inputs, at, spec.target)
        return TextFeatures(others.features, {}, {}), others
    paired, stage = stage_one(asked, inputs, labels)
    psi = torch.from_numpy(paired.chosen["train"][at])
    if not (spec.protocol.moving_target or asked.word_dropout):
        if asked.pairing.reports == "redrawn":
            psi = torch.from_numpy(redrawn_reports(asked, inputs, training.epochs)[:, at])
        return stage, Targets(stage.features, psi)
    clip = inputs.retriever(asked.retriever)
    tower = tuned_tower(asked, clip, stage)
    if spec.protocol.moving_target:
        windows = clip.tokenizer.windows(paired.texts, asked.training.long_text)
        return stage, MovingTargets(tower, windows, psi)
    tower.to(device()).eval()
    distinct, report = psi.unique(return_inverse=True)
    drop = partial(dropped_features, asked, clip, tower, paired.texts, distinct)
    return stage, Targets(torch.stack([*map(drop, range(training.epochs))]), report)


def soft_labels(
    spec: RunSpec, inputs: Inputs, labels: Labels, said: Float[Tensor, "n c"]
) -> tuple[Labels, tuple[str, ...]]:
    """Labels to learn from, mixed with what a teacher says of each patch: (y + lambda p) /
    (1 + lambda), [n, c]; and the notes of stage one. Not of the paper: generalised distillation
    (Lopez-Paz et al. 2016) by the text classifier, with the text as privileged information; where
    no text is read, self-distillation by what the run's own probe has `said`.
    """
    train, weight, notes = labels["train"], spec.distillation_weight, tuple[str, ...]()
    assert weight is not None
    if spec.text is not None:
        paired, stage = stage_one(spec.text, inputs, labels)
        said = classified(stage, said.shape[1]).softmax(dim=-1)
        said, notes = said[torch.from_numpy(paired.chosen["train"][train.at])], stage.notes
    soft = (F.one_hot(train.labels, said.shape[1]) + weight * said) / (1 + weight)
    return labels | {"train": train._replace(labels=soft)}, notes


@torch.inference_mode()
def classified(stage: TextFeatures, classes: int) -> Float[Tensor, "m c"]:
    """Logits of h_t for each text."""
    head = TextHead(stage.features.shape[1], classes)
    head.load_state_dict(stage.head)
    logits: Tensor = head(stage.features)
    return logits


# -- The text classifier of stage one as a run of its own: what the paired text alone knows.


def perform_text(spec: RunSpec, inputs: Inputs) -> Outcome:
    """h_t(f_t(text of each patch)) on validation and test (equation 2; Table 6, Figure 4).

    A test patch is paired as a training patch is: by its image, without its label.
    """
    assert spec.text is not None
    dataset = inputs.dataset(spec.dataset)
    paired, stage = stage_one(spec.text, inputs, choose_labels(spec, dataset), SPLITS)
    logits = classified(stage, len(dataset.classes)).numpy()
    predictions = predicted(dataset, lambda split: logits[paired.chosen[split]])
    state = {f"text_head.{name}": value for name, value in stage.head.items()}
    state |= {f"text_tower.{name}": value for name, value in stage.adapters.items()}
    return Outcome(state, [], predictions, stage.notes)
