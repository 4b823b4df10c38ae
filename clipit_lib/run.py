"""What happens in one run, from its specification to raw predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib import lora, prompts
from clipit_lib import model as variants
from clipit_lib import text as text_run
from clipit_lib import text as text_stage
from clipit_lib.compute import device, seeded
from clipit_lib.controls import image_targets, redrawn_reports
from clipit_lib.data.patches import PatchDataset, Split
from clipit_lib.encoders.embeddings import image_embeddings
from clipit_lib.encoders.vision import VisionEncoder, checkpoint_gradients
from clipit_lib.inputs import Inputs, Labels, choose_labels
from clipit_lib.predictions import Outcome, State, raw_predictions
from clipit_lib.settings import Probe, RunSpec, TextSpec
from clipit_lib.training import (
    FeatureTask,
    FixedTargets,
    History,
    ImageTask,
    MovingTargets,
    Patches,
    ReassignedTargets,
    RedrawnTargets,
    Stage,
    Targets,
    fit,
    predict_logits,
)

# -- The unimodal baseline: a linear probe on the frozen backbone.


def linear_probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    validation: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
    classes: int,
    settings: Probe,
    seed: int,
    stage: Stage | None = None,
) -> tuple[nn.Linear, History]:
    """A linear head on frozen features, chosen on validation.

    It is the baseline of Table 1, and where LoRA-only and CLIP-IT start their h_v.
    """
    with seeded(seed):
        head = nn.Linear(train[0].shape[1], classes)
    history = fit(FeatureTask(head, train, validation), settings, seed, stage=stage)
    return head.cpu(), history


def as_tensors(features: object, labels: object) -> tuple[Tensor, Tensor]:
    """NumPy features [n, d] and labels [n] as tensors."""
    return torch.as_tensor(features), torch.as_tensor(labels)


# -- What happens in one run, from its specification to raw predictions.


TEXT_WIDTH_WITHOUT_TEXT = 512  # the width of CONCH, so that the branch is as large as in the paper


def perform(spec: RunSpec, inputs: Inputs) -> Outcome:
    """Train and predict; the test split is read once, by an image-only model, at the end.

    (Except by what is no image-only model: a CLIP with prompts, the text classifier.)

    Raises:
        ClipItError: an input is not what the run was specified with, see `Inputs.check`.
    """
    inputs.check(spec)
    if spec.contrastive is not None:
        return prompts.perform_contrastive(spec, inputs)
    if spec.text_only:
        return text_run.perform_text(spec, inputs)
    dataset = inputs.dataset(spec.dataset)
    encoder = inputs.backbone(spec.backbone, spec.normalisation)
    labels = choose_labels(spec, dataset)
    head, history = _probe(spec, dataset, encoder, labels)
    notes = history.notes
    if spec.adaptation == "none" and spec.branch is None:
        model = variants.build_model(spec, encoder.model, encoder.width, len(dataset.classes), None)
        model.vision_head = head
    else:
        floor = min(row["validation"] for row in history)
        model, history, doubts = _adapt(spec, inputs, dataset, encoder, labels, head, floor)
        notes += doubts
    model.to(device()).eval()
    frames = [_predict(model, dataset, encoder, split) for split in ("validation", "test")]
    predictions = pd.concat(frames, ignore_index=True)
    return Outcome(learned_state(model, spec), history, predictions, notes)


def _probe(
    spec: RunSpec, dataset: PatchDataset, encoder: VisionEncoder, labels: Labels
) -> tuple[nn.Linear, History]:
    features = {
        split: image_embeddings(
            encoder.model, encoder.weights_hash, encoder.transform, dataset, split
        )
        for split in ("train", "validation")
    }
    train = np.searchsorted(dataset.indices("train"), labels.train)
    held = np.searchsorted(dataset.indices("validation"), labels.validation)
    return linear_probe(
        as_tensors(features["train"][train], labels.train_labels),
        as_tensors(features["validation"][held], labels.validation_labels),
        len(dataset.classes),
        spec.probe,
        spec.seed,
        Stage.of_run(spec, "the probe", "probe"),
    )


def _adapt(
    spec: RunSpec,
    inputs: Inputs,
    dataset: PatchDataset,
    encoder: VisionEncoder,
    labels: Labels,
    head: nn.Linear,
    floor: float,
) -> tuple[nn.Module, History, tuple[str, ...]]:
    """Stage two: adapt the backbone, with or without the text branch, from the probe's head.

    Args:
        floor: the probe's validation cross-entropy, in nats: what adapting should improve on.

    Returns:
        The model, its course, and what makes that or stage one's course doubtful.
    """
    protocol, training = spec.protocol, spec.training
    assert protocol is not None and training is not None
    classes = len(dataset.classes)
    text = None if spec.text is None else _text(spec, spec.text, inputs, labels)
    with seeded(spec.seed):
        prepare_backbone(encoder.model, spec, encoder.lora_targets)
        width = TEXT_WIDTH_WITHOUT_TEXT if text is None else text.width
        model = variants.build_model(spec, encoder.model, encoder.width, classes, width)
    if training.gradient_checkpointing:
        checkpoint_gradients(encoder.model)
    if protocol.vision_head != "random_adapted":
        model.vision_head.load_state_dict(head.state_dict())  # type: ignore[union-attr]
    if protocol.vision_head is not None:
        assert spec.lora is not None
        with seeded(spec.seed):
            lora.adapt_head(model, spec.lora)
    targets, tower = None, None
    if text is not None:
        if text.head and variants.takes_text_head(model):
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
    # The probe's value is known; a look of its own would cost a whole pass over validation.
    stage = Stage.of_run(spec, "stage two", "training", "the probe")
    history = fit(task, training, spec.seed, protocol.checkpoint, tower, stage, floor)
    if protocol.vision_head is not None:
        lora.fold_head(model)
    return model, history, (() if text is None else text.notes) + history.notes


def prepare_backbone(backbone: nn.Module, spec: RunSpec, targets: str) -> None:
    """Freeze, adapt or free the backbone, as the run asks."""
    if spec.adaptation == "lora":
        assert spec.lora is not None and spec.protocol is not None
        lora.inject(backbone, targets, spec.lora, spec.protocol.lora_targets)
    else:
        backbone.requires_grad_(spec.adaptation == "full")


@dataclass(frozen=True)
class Text:
    """What stage two takes from the text: its width, the head h_t, targets, stage one's doubts."""

    width: int
    head: State
    targets: Targets
    tower: nn.Module | None
    notes: tuple[str, ...] = ()


def _text(spec: RunSpec, asked: TextSpec, inputs: Inputs, labels: Labels) -> Text:
    if spec.target is not None:
        found = image_targets(asked, inputs, labels, spec.target == "image_centroids")
        return Text(found.features.shape[1], {}, found, None)
    assert spec.protocol is not None and spec.training is not None
    clip = inputs.retriever(asked.retriever)
    paired, stage = text_stage.stage_one(asked, inputs, labels)
    position = np.searchsorted(inputs.dataset(spec.dataset).indices("train"), labels.train)
    distinct, report = np.unique(paired.chosen["train"][position], return_inverse=True)
    rows, width = torch.from_numpy(report), stage.features.shape[1]
    if spec.protocol.moving_target:
        tower = text_stage.tuned_tower(clip, asked, stage)
        texts = [paired.texts[i] for i in distinct]
        windows = clip.tokenizer.windows(texts, asked.training.long_text)
        moving = MovingTargets(tower, windows, rows)
        return Text(width, stage.head, moving, tower, stage.notes)
    if asked.word_dropout:
        drawn = [
            text_stage.dropped_features(clip, asked, stage, paired, distinct, epoch)
            for epoch in range(spec.training.epochs)
        ]
        anew = RedrawnTargets(torch.stack(drawn), rows)
        return Text(width, stage.head, anew, None, stage.notes)
    if asked.pairing.reports == "redrawn":
        drawn_reports = redrawn_reports(asked, inputs, spec.training.epochs)[:, position]
        reassigned = ReassignedTargets(stage.features, torch.from_numpy(drawn_reports))
        return Text(width, stage.head, reassigned, None, stage.notes)
    fixed = FixedTargets(stage.features[torch.from_numpy(distinct)], rows)
    return Text(width, stage.head, fixed, None, stage.notes)


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
    return raw_predictions(dataset, split, logits.numpy())
