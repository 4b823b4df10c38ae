"""One run, from its specification to raw predictions: the probe, stage one, stage two."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib import lora, prompts, text
from clipit_lib.compute import device, seeded
from clipit_lib.data.patches import PatchDataset, Split
from clipit_lib.encoders.embeddings import image_embeddings
from clipit_lib.encoders.vision import VisionEncoder, checkpoint_gradients
from clipit_lib.inputs import Inputs, Labels, choose_labels
from clipit_lib.model import ClipIt, build_model
from clipit_lib.predictions import Outcome, State, raw_predictions
from clipit_lib.settings import Probe, RunSpec
from clipit_lib.training import FeatureTask, History, ImageTask, Patches, Stage, fit, predict_logits

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
        return text.perform_text(spec, inputs)
    dataset = inputs.dataset(spec.dataset)
    encoder = inputs.backbone(spec.backbone, spec.normalisation)
    labels = choose_labels(spec, dataset)
    head, course = probe(spec, dataset, encoder, labels)
    notes = course.notes
    # Equations 1 and 2: which text is whose, and its features after stage one.
    from_text = None if spec.text is None else text.for_stage_two(spec, inputs, labels)
    model = assembled(spec, encoder, len(dataset.classes), head, from_text)
    if spec.adaptation != "none" or spec.branch is not None:
        floor = min(row["validation"] for row in course)
        course = stage_two(spec, dataset, encoder, labels, model, from_text, floor)
        notes += (() if from_text is None else from_text.notes) + course.notes
    model.to(device()).eval()
    frames = [predicted(model, dataset, encoder, split) for split in ("validation", "test")]
    return Outcome(learned_state(model, spec), course, pd.concat(frames, ignore_index=True), notes)


def probe(
    spec: RunSpec, dataset: PatchDataset, encoder: VisionEncoder, labels: Labels
) -> tuple[nn.Linear, History]:
    """The unimodal baseline of Table 1, and where LoRA only and CLIP-IT start their h_v."""
    features = {
        split: image_embeddings(
            encoder.model, encoder.weights_hash, encoder.transform, dataset, split
        )
        for split in ("train", "validation")
    }
    return linear_probe(
        (torch.from_numpy(features["train"][labels.train_at]), labels.train_labels),
        (torch.from_numpy(features["validation"][labels.validation_at]), labels.validation_labels),
        len(dataset.classes),
        spec.probe,
        spec.seed,
        Stage.of_run(spec, "the probe", "probe"),
    )


def linear_probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    validation: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
    classes: int,
    settings: Probe,
    seed: int,
    stage: Stage | None = None,
) -> tuple[nn.Linear, History]:
    """A linear head on frozen features, chosen on validation."""
    with seeded(seed):
        head = nn.Linear(train[0].shape[1], classes)
    history = fit(FeatureTask(head, train, validation), settings, seed, stage=stage)
    return head.cpu(), history


def assembled(
    spec: RunSpec,
    encoder: VisionEncoder,
    classes: int,
    head: nn.Linear,
    from_text: text.StageTwoText | None,
) -> nn.Module:
    """The classifier a run asks for: its backbone adapted, the probe's head and h_t put in."""
    adapts = spec.adaptation != "none" or spec.branch is not None
    protocol = spec.protocol if adapts else None
    with seeded(spec.seed):
        if spec.adaptation == "lora":
            assert spec.lora is not None and spec.protocol is not None
            targets = encoder.lora_targets
            lora.inject(encoder.model, targets, spec.lora, spec.protocol.lora_targets)
        elif adapts:
            encoder.model.requires_grad_(spec.adaptation == "full")
        width = TEXT_WIDTH_WITHOUT_TEXT if from_text is None else from_text.width
        model = build_model(spec, encoder.model, encoder.width, classes, width)
    if spec.training is not None and spec.training.gradient_checkpointing:
        checkpoint_gradients(encoder.model)
    own_head = None if protocol is None else protocol.vision_head
    if own_head != "random_adapted":
        model.vision_head.load_state_dict(head.state_dict())  # type: ignore[union-attr]
    if own_head is not None:
        assert spec.lora is not None
        with seeded(spec.seed):
            lora.adapt_head(model, spec.lora)
    if from_text is not None and from_text.head and isinstance(model, ClipIt):
        model.text_head.load_state_dict(from_text.head)
    return model


def stage_two(
    spec: RunSpec,
    dataset: PatchDataset,
    encoder: VisionEncoder,
    labels: Labels,
    model: nn.Module,
    from_text: text.StageTwoText | None,
    floor: float,
) -> History:
    """Adapt the backbone, with or without the text branch, from the probe's head (eq. 3 and 4).

    Args:
        floor: the probe's validation cross-entropy, in nats: what adapting should improve on. It
            is known; a look of its own would cost a whole pass over validation.
    """
    protocol, training = spec.protocol, spec.training
    assert protocol is not None and training is not None
    task = ImageTask(
        model,
        Patches(dataset.pixels, labels.train, labels.train_labels, encoder.transform),
        Patches(dataset.pixels, labels.validation, labels.validation_labels, encoder.transform),
        training.augment,
        "double_softmax" if protocol.double_softmax else "cross_entropy",
        None if from_text is None else from_text.targets,
        spec.distillation_weight or 0.0,
    )
    stage = Stage.of_run(spec, "stage two", "training", "the probe")
    tower = None if from_text is None else from_text.tower
    history = fit(task, training, spec.seed, protocol.checkpoint, tower, stage, floor)
    if protocol.vision_head is not None:
        lora.fold_head(model)
    return history


def learned_state(model: nn.Module, spec: RunSpec) -> State:
    """Adapters and heads; the whole backbone only where all of it was trained."""
    whole = spec.adaptation == "full"
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if whole or not name.startswith("backbone.") or "lora_" in name
    }


def predicted(
    model: nn.Module, dataset: PatchDataset, encoder: VisionEncoder, split: Split
) -> pd.DataFrame:
    """Raw predictions on one split, from images alone."""
    rows = dataset.indices(split)
    labels = torch.from_numpy(dataset.labels[rows])
    logits = predict_logits(model, Patches(dataset.pixels, rows, labels, encoder.transform))
    return raw_predictions(dataset, split, logits.numpy())
