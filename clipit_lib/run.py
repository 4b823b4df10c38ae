"""One run, from its specification to raw predictions: the probe, stage one, stage two."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib import lora, prompts, text
from clipit_lib.compute import device, seeded
from clipit_lib.data.patches import PatchDataset
from clipit_lib.encoders.embeddings import image_embeddings
from clipit_lib.encoders.vision import VisionEncoder, checkpoint_gradients
from clipit_lib.inputs import Inputs, Labels, choose_labels, with_unlabelled
from clipit_lib.model import ClipIt, build_model
from clipit_lib.predictions import Outcome, predicted
from clipit_lib.settings import Probe, RunSpec
from clipit_lib.training import (
    FeatureTask,
    History,
    ImageTask,
    MovingTargets,
    Patches,
    Stage,
    Targets,
    fit,
    predict_logits,
)

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
    if spec.branch == "text_only":
        return text.perform_text(spec, inputs)
    dataset = inputs.dataset(spec.dataset)
    encoder = inputs.backbone(spec.backbone, spec.normalisation)
    labels = choose_labels(spec, dataset)
    labelled = spec.labels_per_class, spec.label_noise, spec.noise_to, spec.validation_per_class
    of = spec.dataset, encoder.weights_hash, *labelled, spec.normalisation, spec.probe, spec.seed
    read = spec, dataset, encoder, labels
    head, course, said = inputs.once(("probe", *of), lambda: probe(*read))
    notes, stage_one, targets = course.notes, None, None
    if spec.target == "soft_labels":
        labels, doubts = text.soft_labels(spec, inputs, labels, said)
        notes += doubts
    elif spec.text is not None:  # equations 1 and 2: which text is whose, and its features
        seen = with_unlabelled(spec, dataset, labels)
        stage_one, targets = text.for_stage_two(spec, inputs, labels, seen["train"].at)
        notes, labels = notes + stage_one.notes, seen
    model = assembled(spec, encoder, len(dataset.classes), head, stage_one)
    if spec.training is not None:  # equations 3 and 4
        floor = min(row["validation"] for row in course)
        course = stage_two(spec, dataset, encoder, labels, model, targets, floor)
        notes += course.notes
    model.to(device()).eval()
    predictions = predicted(
        dataset,
        lambda split: predict_logits(model, Patches.of(dataset, split, encoder.transform)).numpy(),
    )
    state = {  # adapters and heads; the whole backbone only where all of it was trained
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if spec.adaptation == "full" or not name.startswith("backbone.") or "lora_" in name
    }
    return Outcome(state, course, predictions, notes)


def probe(
    spec: RunSpec, dataset: PatchDataset, encoder: VisionEncoder, labels: Labels
) -> tuple[nn.Linear, History, Float[Tensor, "n c"]]:
    """The unimodal baseline of Table 1, where all others start; its answers to training patches."""
    made_by = encoder.model, encoder.weights_hash, encoder.transform, dataset
    train, validation = (
        (torch.from_numpy(image_embeddings(*made_by, split)[chosen.at]), chosen.labels)
        for split, chosen in labels.items()
    )
    stage = Stage("the probe", "probe", f"{spec.dataset}, {spec.backbone}, seed {spec.seed}")
    asked = len(dataset.classes), spec.probe, spec.seed, stage
    head, course = linear_probe(train, validation, *asked)
    return head, course, head(train[0]).softmax(dim=-1).detach()


def linear_probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    validation: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
    classes: int, settings: Probe, seed: int, stage: Stage,
) -> tuple[nn.Linear, History]:  # fmt: skip
    """A linear head on frozen features, chosen on validation."""
    with seeded(seed):
        head = nn.Linear(train[0].shape[1], classes)
    history = fit(FeatureTask(head, train, validation), settings, seed, stage=stage)
    return head.cpu(), history


def assembled(
    spec: RunSpec, encoder: VisionEncoder, classes: int, head: nn.Linear,
    stage_one: text.TextFeatures | None,
) -> nn.Module:  # fmt: skip
    """The classifier a run asks for: its backbone adapted, the probe's head and h_t put in."""
    own_head = None
    with seeded(spec.seed):
        if spec.training is not None:
            assert spec.protocol is not None
            own_head = spec.protocol.vision_head
            encoder.model.requires_grad_(spec.adaptation == "full")
            if spec.adaptation == "lora":
                assert spec.lora is not None
                which = spec.protocol.lora_targets
                lora.inject(encoder.model, encoder.lora_targets, spec.lora, which)
            if spec.training.gradient_checkpointing:
                checkpoint_gradients(encoder.model)
            if spec.training.compiled:
                encoder.model.compile(dynamic=True)
        width = TEXT_WIDTH_WITHOUT_TEXT if stage_one is None else stage_one.features.shape[-1]
        model = build_model(spec, encoder.model, encoder.width, classes, width)
    if own_head != "random_adapted":
        model.vision_head.load_state_dict(head.state_dict())  # type: ignore[union-attr]
    if own_head is not None:
        assert spec.lora is not None
        with seeded(spec.seed):
            lora.adapt_head(model, spec.lora)
    if stage_one is not None and stage_one.head and isinstance(model, ClipIt):
        model.text_head.load_state_dict(stage_one.head)
    return model


def stage_two(
    spec: RunSpec, dataset: PatchDataset, encoder: VisionEncoder, labels: Labels, model: nn.Module,
    targets: Targets | MovingTargets | None, floor: float,
) -> History:  # fmt: skip
    """Adapt the backbone, with or without the text branch, from the probe's head (eq. 3 and 4).

    It should improve on `floor`, the probe's validation cross-entropy in nats, or where looks read
    a part of validation, on its own start there.
    """
    protocol, training = spec.protocol, spec.training
    assert protocol is not None and training is not None
    train, held = Patches.chosen(dataset, labels, encoder.transform, training.looks_at)
    weight, double = spec.distillation_weight or 0.0, protocol.double_softmax
    asked = training.augment, double, targets, weight, spec.smoothing or 0.0, spec.mixup
    task = ImageTask(model, train, held, *asked)
    whole = len(held.rows) == len(labels["validation"].rows)
    start, said = (floor, "the probe") if whole else (None, "the untrained start")
    stage = Stage.of_run(spec, "stage two", "training", said)
    tower = targets.tower if isinstance(targets, MovingTargets) else None
    how = protocol.checkpoint, tower, stage, start, spec.averaged
    with seeded(spec.seed):  # dropout
        history = fit(task, training, spec.seed, *how)
    if protocol.vision_head is not None:
        lora.fold_head(model)
    return history
