"""Stage one: the text encoder and its head learn the classes (equation 2)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipit_lib import lora, parallel, paths
from clipit_lib.compute import device, seeded
from clipit_lib.controls import (
    SPLITS,
    PairedTexts,
    image_targets,
    nearest,
    paired_texts,
    redrawn_reports,
)
from clipit_lib.data.patches import Split
from clipit_lib.data.reports import CLASS_TEXT, drop_from_all, lose_letters
from clipit_lib.encoders.encoder import ClipEncoder, TokenWindows, embed_texts, embed_windows
from clipit_lib.files import whole, written_beside
from clipit_lib.inputs import Inputs, Labels, choose_labels
from clipit_lib.model import TextHead
from clipit_lib.predictions import Outcome, raw_predictions
from clipit_lib.settings import RunSpec, TextSpec
from clipit_lib.training import MovingTargets, Stage, Targets, Task, fit

# -- Learning a text classifier from paired reports (equation 2).


BLOCK = 64


class TextClassifier(nn.Module):
    """f_t and h_t of equation 2: token windows of m texts to logits [m, c]."""

    def __init__(self, tower: nn.Module, text_width: int, classes: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = TextHead(text_width, classes)

    def forward(self, windows: TokenWindows) -> Float[Tensor, "m c"]:
        logits: Tensor = self.head(embed_windows(self.tower, windows))
        return logits


class ReportTask(Task):
    """Equation 2, gathered by distinct report: sum over r, c of n_rc CE(h_t(f_t(r)), c) / N.

    N patches that share M reports give the same objective in M text passes instead of N.

    Args:
        counts: [m, c] training patches of class c that are paired with report r.
        validation_counts: the same for validation.
        redraw: windows to learn from, by epoch, if they change; validation reads whole texts.
    """

    def __init__(
        self,
        model: TextClassifier,
        windows: TokenWindows,
        counts: Float[Tensor, "m c"],
        validation_counts: Float[Tensor, "m c"],
        classification: str = "cross_entropy",
        redraw: Callable[[int], TokenWindows] | None = None,
    ) -> None:
        self.model, self.windows, self.redraw = model, windows, redraw
        self.read = windows
        self.used = torch.nonzero(counts.sum(dim=1)).flatten()
        self.counts, self.validation_counts = counts[self.used], validation_counts
        self.double = classification == "double_softmax"
        self.rows = len(self.used)

    def begin(self, epoch: int) -> None:
        if self.redraw is not None:
            self.read = self.redraw(epoch)

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        windows = self.read.select(self.used[rows])
        # Batches share the objective: weights of an epoch's batches sum to the number of rows.
        weights = self.counts[rows] * (self.rows / len(rows) / self.counts.sum())
        logits = model(windows)
        if self.double:
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
LEARNED: tuple[Split, ...] = ("train", "validation")
STAGE_TWO = 1000  # more than any number of epochs of stage one


@dataclass(frozen=True)
class TextFeatures:
    """What stage one leaves.

    Attributes:
        features: [m, e] unit-length features of all reports by the fine-tuned text encoder.
        head: weights of the text head h_t.
        adapters: the text encoder's adapters.
        notes: what makes its course doubtful, in plain words.
    """

    features: Float[Tensor, "m e"]
    head: dict[str, Tensor]
    adapters: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def stage_one(
    spec: TextSpec, inputs: Inputs, labels: Labels, splits: tuple[Split, ...] = LEARNED
) -> tuple[PairedTexts, TextFeatures]:
    """The texts of a run (of `splits`, train and validation among them) and its stage one."""
    dataset = inputs.dataset(spec.dataset)
    paired = as_released(spec, inputs, paired_texts(spec, inputs, splits))
    train = torch.from_numpy(paired.chosen["train"][labels.train_at]), labels.train_labels
    held = torch.from_numpy(paired.chosen["validation"][labels.validation_at])
    validation = held, labels.validation_labels
    clip, classes = inputs.retriever(spec.retriever), len(dataset.classes)
    return paired, get_or_train_stage_one(spec, clip, paired.texts, train, validation, classes)


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


def get_or_train_stage_one(
    spec: TextSpec,
    clip: ClipEncoder,
    texts: tuple[str, ...],
    train: tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
    validation: tuple[Int[Tensor, " v"], Int[Tensor, " v"]],
    classes: int,
) -> TextFeatures:
    """Fine-tuned features of all texts, from the cache or trained now.

    Args:
        train: (paired text, label) of each training patch; validation likewise.
    """
    path = _path(spec)
    parallel.make_once(
        path,
        lambda: _train(spec, clip, texts, train, validation, classes),
        lambda result: _write(path, result),
    )
    return _read(path)


def _read(path: Path) -> TextFeatures:
    with whole(path, "Delete this file and run again"):
        state = load_file(path)
        with safe_open(path, "pt") as opened:
            notes = json.loads((opened.metadata() or {}).get(NOTES, "[]"))
        features = state.pop("features")
    head = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    adapters = {k: v for k, v in state.items() if not k.startswith(PREFIX)}
    return TextFeatures(features, head, adapters, tuple(notes))


def _path(spec: TextSpec) -> Path:
    return paths.cache() / "text_stage" / f"{spec.key}.safetensors"


def _write(path: Path, result: TextFeatures) -> None:
    head = {PREFIX + name: value for name, value in result.head.items()}
    with written_beside(path) as temporary:
        tensors = {"features": result.features, **head, **result.adapters}
        save_file(tensors, temporary, metadata={NOTES: json.dumps(result.notes)})


def _train(
    spec: TextSpec,
    clip: ClipEncoder,
    texts: tuple[str, ...],
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    classes: int,
) -> TextFeatures:
    settings = spec.training
    windows = clip.tokenizer.windows(texts, settings.long_text)
    if spec.stage == "ignored":
        return _untouched(spec, clip, texts)
    with seeded(spec.seed):
        tower = _adapted(clip, spec)
        model = TextClassifier(tower, clip.width, classes)
    task = ReportTask(
        model,
        windows,
        pair_counts(*train, len(texts), classes),
        pair_counts(*validation, len(texts), classes),
        "double_softmax" if spec.double_softmax else "cross_entropy",
        None if spec.word_dropout is None else lambda epoch: _dropped(spec, clip, texts, epoch),
    )
    stage = Stage.of_run(spec, "stage one", "text_stage")
    course = fit(task, settings, spec.seed, stage=stage)
    model.to(device())
    features = embed_texts(model.tower, clip.tokenizer, texts, settings.long_text)
    rate = settings.learning_rate
    stage.check_tensors("the reports' features", [features], "after the last step", rate)
    head = {name: value.detach().cpu().clone() for name, value in model.head.state_dict().items()}
    adapters = lora.adapters(model.tower)
    return TextFeatures(features.float().clone(), head, adapters, course.notes)


def _adapted(clip: ClipEncoder, spec: TextSpec) -> nn.Module:
    """A copy of the text encoder: with fresh adapters, or frozen as it is."""
    tower = copy.deepcopy(clip.text_tower)
    if spec.lora is None:
        return tower.requires_grad_(False)
    lora.inject(tower, clip.text_targets, spec.lora, spec.lora_targets)
    return tower


def _dropped(spec: TextSpec, clip: ClipEncoder, texts: Sequence[str], epoch: int) -> TokenWindows:
    """Windows of texts that have lost words, anew in each epoch."""
    assert spec.word_dropout is not None
    left = drop_from_all(tuple(texts), spec.word_dropout, spec.seed, epoch)
    return clip.tokenizer.windows(left, spec.training.long_text)


@torch.inference_mode()
def dropped_features(
    clip: ClipEncoder,
    spec: TextSpec,
    stage: TextFeatures,
    paired: PairedTexts,
    distinct: Int[np.ndarray, " m"],
    epoch: int,
) -> Float[Tensor, "m e"]:
    """Features of the texts `distinct` after words were dropped anew for this epoch."""
    tower = tuned_tower(clip, spec, stage).to(device()).eval()
    # Other draws than those that stage one learned from.
    windows = _dropped(spec, clip, paired.texts, STAGE_TWO + epoch)
    parts = torch.from_numpy(distinct).split(64)
    return torch.cat([embed_windows(tower, windows.select(part)).cpu() for part in parts]).clone()


def _untouched(spec: TextSpec, clip: ClipEncoder, texts: tuple[str, ...]) -> TextFeatures:
    """The released code's way: the retriever's own features, and no head to pass on."""
    features = embed_texts(clip.text_tower, clip.tokenizer, texts, spec.training.long_text)
    return TextFeatures(features.float().clone(), {}, {})


def tuned_tower(clip: ClipEncoder, spec: TextSpec, stage: TextFeatures) -> nn.Module:
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


@dataclass(frozen=True)
class StageTwoText:
    """Width of the text features, the head h_t, targets, and what made stage one doubtful.

    `tower` is a text tower that keeps learning (the released code's way), `head` is empty where
    there is none to go on with.
    """

    width: int
    head: dict[str, Tensor]
    targets: Targets | MovingTargets
    tower: nn.Module | None = None
    notes: tuple[str, ...] = ()


def for_stage_two(spec: RunSpec, inputs: Inputs, labels: Labels) -> StageTwoText:
    """The targets of a run: its reports after stage one, or another control's in their place."""
    asked, training = spec.text, spec.training
    assert asked is not None and training is not None and spec.protocol is not None
    if spec.target is not None:
        images = image_targets(asked, inputs, labels, spec.target == "image_centroids")
        return StageTwoText(images.features.shape[-1], {}, images)
    clip = inputs.retriever(asked.retriever)
    paired, stage = stage_one(asked, inputs, labels)
    distinct, report = np.unique(paired.chosen["train"][labels.train_at], return_inverse=True)
    features, rows = stage.features[torch.from_numpy(distinct)], torch.from_numpy(report)
    targets: Targets | MovingTargets = Targets(features, rows)
    tower = None
    if spec.protocol.moving_target:
        tower = tuned_tower(clip, asked, stage)
        texts = [paired.texts[i] for i in distinct]
        windows = clip.tokenizer.windows(texts, asked.training.long_text)
        targets = MovingTargets(tower, windows, rows)
    elif asked.word_dropout:
        epochs = range(training.epochs)
        drawn = [dropped_features(clip, asked, stage, paired, distinct, each) for each in epochs]
        targets = Targets(torch.stack(drawn), rows)
    elif asked.pairing.reports == "redrawn":
        drawn_reports = redrawn_reports(asked, inputs, training.epochs)[:, labels.train_at]
        targets = Targets(stage.features, torch.from_numpy(drawn_reports))
    return StageTwoText(stage.features.shape[1], stage.head, targets, tower, stage.notes)


# -- The text classifier of stage one as a run of its own: what the paired text alone knows.


def perform_text(spec: RunSpec, inputs: Inputs) -> Outcome:
    """h_t(f_t(text of each patch)) on validation and test (equation 2; Table 6, Figure 4).

    A test patch is paired as a training patch is: by its image, without its label.
    """
    assert spec.text is not None
    dataset = inputs.dataset(spec.dataset)
    paired, stage = stage_one(spec.text, inputs, choose_labels(spec, dataset), SPLITS)
    head = TextHead(stage.features.shape[1], len(dataset.classes))
    head.load_state_dict(stage.head)
    with torch.inference_mode():
        logits = head(stage.features).numpy()  # [texts, c]
    frames = [
        raw_predictions(dataset, split, logits[paired.chosen[split]])
        for split in ("validation", "test")
    ]
    state = {f"text_head.{name}": value for name, value in stage.head.items()}
    state |= {f"text_tower.{name}": value for name, value in stage.adapters.items()}
    return Outcome(state, [], pd.concat(frames, ignore_index=True), stage.notes)
