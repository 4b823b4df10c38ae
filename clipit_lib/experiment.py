"""What happens in one run, from its specification to raw predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from clipit_lib import lora, text_stage
from clipit_lib.baselines import as_tensors, linear_probe
from clipit_lib.compute import seeded
from clipit_lib.data.contract import PatchDataset, Split
from clipit_lib.encoders.embeddings import image_embeddings
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.evaluation import predictions_frame
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.settings import RunSpec
from clipit_lib.targets import FixedTargets, MovingTargets, Targets
from clipit_lib.tasks import ImageTask, Patches, predict_logits
from clipit_lib.training import History, fit
from clipit_lib.workbench import Workbench

State = dict[str, Tensor]
TEXT_WIDTH_WITHOUT_TEXT = 512  # the width of CONCH, so that the branch is as large as in the paper


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: learned tensors, the course of training, raw predictions."""

    state: State
    history: History
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Labels:
    """Rows and labels of what is learned from and chosen by, after subsampling and noise."""

    train: np.ndarray
    train_labels: Tensor
    validation: np.ndarray
    validation_labels: Tensor


def perform(spec: RunSpec, bench: Workbench) -> Outcome:
    """Train and predict; the test split is read once, by an image-only model, at the end."""
    dataset = bench.dataset(spec.dataset)
    encoder = bench.backbone(spec.backbone, spec.normalisation)
    labels = choose_labels(spec, dataset)
    head, history = _probe(spec, dataset, encoder, labels)
    if spec.adaptation == "none" and spec.pairing is None:
        model: nn.Module = VisionClassifier(encoder.model, encoder.width, len(dataset.classes))
        model.vision_head = head
    else:
        model, history = _adapt(spec, bench, dataset, encoder, labels, head)
    model.eval()
    frames = [_predict(model, dataset, encoder, split) for split in ("validation", "test")]
    return Outcome(learned_state(model, spec), history, pd.concat(frames, ignore_index=True))


def choose_labels(spec: RunSpec, dataset: PatchDataset) -> Labels:
    """Take `labels_per_class` training patches of each class and flip a share of all labels.

    Flips reach training and validation alike, as they would in life; never the test split.
    """
    rng = np.random.default_rng([spec.seed, 1])
    train, validation = dataset.indices("train"), dataset.indices("validation")
    if spec.labels_per_class is not None:
        of_class = [train[dataset.labels[train] == c] for c in range(len(dataset.classes))]
        kept = [rng.permutation(rows)[: spec.labels_per_class] for rows in of_class]
        train = np.sort(np.concatenate(kept))
    noisy = [
        torch.from_numpy(_flip(dataset.labels[rows], len(dataset.classes), spec.label_noise, rng))
        for rows in (train, validation)
    ]
    return Labels(train, noisy[0], validation, noisy[1])


def _flip(labels: np.ndarray, classes: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a share of the labels by another class, drawn evenly from the other classes."""
    flipped = rng.random(len(labels)) < share
    other = (labels + rng.integers(1, classes, size=len(labels))) % classes
    return np.where(flipped, other, labels).astype(np.int64)


def _probe(
    spec: RunSpec, dataset: PatchDataset, encoder: VisionEncoder, labels: Labels
) -> tuple[nn.Linear, History]:
    features = {
        split: image_embeddings(
            encoder.model, encoder.weights_hash, encoder.transform, dataset, split
        )
        for split in ("train", "validation")
    }
    position = np.searchsorted(dataset.indices("train"), labels.train)
    return linear_probe(
        as_tensors(features["train"][position], labels.train_labels),
        as_tensors(features["validation"], labels.validation_labels),
        len(dataset.classes),
        spec.probe,
        spec.seed,
    )


def _adapt(
    spec: RunSpec,
    bench: Workbench,
    dataset: PatchDataset,
    encoder: VisionEncoder,
    labels: Labels,
    head: nn.Linear,
) -> tuple[nn.Module, History]:
    """Stage two: adapt the backbone, with or without the text branch, from the probe's head."""
    protocol, training = spec.protocol, spec.training
    assert protocol is not None and training is not None
    classes = len(dataset.classes)
    text = _text(spec, bench, dataset, labels)
    with seeded(spec.seed):
        prepare_backbone(encoder.model, spec, encoder.lora_targets)
        if spec.pairing is None:
            model: nn.Module = VisionClassifier(encoder.model, encoder.width, classes)
        else:
            width = TEXT_WIDTH_WITHOUT_TEXT if text is None else text.features.shape[1]
            model = ClipIt(
                encoder.model, encoder.width, classes, width,
                protocol.unit_distilled, protocol.fusion_start,
            )  # fmt: skip
    model.vision_head.load_state_dict(head.state_dict())  # type: ignore[union-attr]
    targets, tower = None, None
    if text is not None:
        if protocol.text_stage == "fine_tuned":
            model.text_head.load_state_dict(text.head)  # type: ignore[union-attr]
        targets, tower = text.targets, text.tower
    task = ImageTask(
        model,
        Patches(dataset.pixels, labels.train, labels.train_labels, encoder.transform),
        Patches(dataset.pixels, labels.validation, labels.validation_labels, encoder.transform),
        training.augment,
        "double_softmax" if protocol.double_softmax else "cross_entropy",
        targets,
        spec.distillation_weight or 0.0,
    )
    return model, fit(task, training, spec.seed, protocol.checkpoint, tower)


def prepare_backbone(backbone: nn.Module, spec: RunSpec, targets: str) -> None:
    """Freeze, adapt or free the backbone, as the run asks."""
    if spec.adaptation == "lora":
        assert spec.lora is not None and spec.protocol is not None
        lora.inject(backbone, targets, spec.lora, spec.protocol.lora_targets)
    else:
        backbone.requires_grad_(spec.adaptation == "full")


@dataclass(frozen=True)
class Text:
    """What stage two takes from the text: features to size the branch, head, targets."""

    features: Tensor
    head: State
    targets: Targets
    tower: nn.Module | None


def _text(spec: RunSpec, bench: Workbench, dataset: PatchDataset, labels: Labels) -> Text | None:
    if spec.pairing is None or spec.pairing.reports == "none":
        return None
    corpus, protocol = bench.corpus(spec.dataset), spec.protocol
    assert protocol is not None and spec.text_stage is not None and spec.lora is not None
    train = paired_reports(spec, bench, "train")
    chosen = train[np.searchsorted(dataset.indices("train"), labels.train)]
    validation = paired_reports(spec, bench, "validation")
    stage = text_stage.get_or_train(
        spec, bench.clip, corpus,
        (torch.from_numpy(chosen), labels.train_labels),
        (torch.from_numpy(validation), labels.validation_labels),
        len(dataset.classes),
    )  # fmt: skip
    distinct, report = np.unique(chosen, return_inverse=True)
    if protocol.moving_target:
        tower = text_stage.tuned_tower(bench.clip, spec, stage)
        texts = [corpus.texts[i] for i in distinct]
        windows = bench.clip.tokenizer.windows(texts, spec.text_stage.long_text)
        moving = MovingTargets(tower, windows, torch.from_numpy(report))
        return Text(stage.features, stage.head, moving, tower)
    fixed = FixedTargets(stage.features[torch.from_numpy(distinct)], torch.from_numpy(report))
    return Text(stage.features, stage.head, fixed, None)


def paired_reports(spec: RunSpec, bench: Workbench, split: Split) -> np.ndarray:
    """Index of the report that each patch of a split is paired with, [m] int64."""
    assert spec.pairing is not None
    if spec.pairing.reports == "random":
        rng = np.random.default_rng([spec.seed, 2])
        count = len(bench.dataset(spec.dataset).indices(split))
        return rng.integers(len(bench.corpus(spec.dataset)), size=count)
    return bench.pairs(spec.dataset, split, spec.pairing.rank).reports[:, -1]


def learned_state(model: nn.Module, spec: RunSpec) -> State:
    """Adapters and heads; the whole backbone only where all of it was trained."""
    whole = spec.adaptation == "full"
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if whole or not name.startswith("backbone.") or "lora_" in name
    }


def _predict(
    model: nn.Module, dataset: PatchDataset, encoder: VisionEncoder, split: Split
) -> pd.DataFrame:
    rows = dataset.indices(split)
    labels = torch.from_numpy(dataset.labels[rows])
    logits = predict_logits(model, Patches(dataset.pixels, rows, labels, encoder.transform))
    samples = dataset.samples.iloc[rows]
    return predictions_frame(
        samples["id"].tolist(), samples["group"].tolist(), labels.numpy(), logits.numpy(), split
    )
