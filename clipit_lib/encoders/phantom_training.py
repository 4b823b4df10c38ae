"""Train the phantom's own encoders: its CLIP on captions, its backbones without labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.data.phantom.shapes import draw_shapes
from clipit_lib.data.transforms import Transform, augment
from clipit_lib.divergence import Stage, place
from clipit_lib.encoders import open_clip_models, vision
from clipit_lib.encoders.store import State
from clipit_lib.encoders.views import random_view
from clipit_lib.losses import normalised_temperature, supervised_contrastive
from clipit_lib.progress import progress
from clipit_lib.reports.phantom import pretraining_pairs
from clipit_lib.settings import PhantomPretraining

History = dict[str, Any]
Pairs = tuple[np.ndarray, list[str]]
NOISE = 0.5


def patches_with_captions(settings: PhantomPretraining) -> Pairs:
    """What a histology CLIP learns from, in miniature."""
    pixels, captions, _ = pretraining_pairs(settings.images, settings.side, settings.seed)
    return pixels, captions


def patches_with_noisy_captions(settings: PhantomPretraining) -> Pairs:
    """The same patches; a share NOISE of them has the caption of another patch."""
    pixels, captions = patches_with_captions(settings)
    rng = np.random.default_rng([settings.seed, 3])
    moved = rng.permutation(len(captions))[: round(NOISE * len(captions))]
    noisy = list(captions)
    for row, other in zip(moved, np.roll(moved, 1), strict=True):
        noisy[row] = captions[other]
    return pixels, noisy


def shapes_with_captions(settings: PhantomPretraining) -> Pairs:
    """Drawings that have nothing to do with tissue."""
    return draw_shapes(settings.images, settings.side, settings.seed)


CLIP_PAIRS: dict[str, Callable[[PhantomPretraining], Pairs]] = {
    "phantom_clip": patches_with_captions,
    "phantom_clip_noisy": patches_with_noisy_captions,
    "phantom_clip_generic": shapes_with_captions,
}


def train_clip(name: str, settings: PhantomPretraining) -> tuple[State, History]:
    """CLIP's symmetric contrastive loss on (image, caption) pairs that no data set contains.

    Returns the state dict of an open_clip model and the mean loss of each epoch.
    """
    pixels, captions = CLIP_PAIRS[name](settings)
    torch.manual_seed(settings.seed)
    model = open_clip_models.build_phantom_clip(settings.side).to(device())
    words = open_clip_models.tokenizer(model.context_length).windows(captions, "truncate").ids
    transform = Transform(settings.side, *vision.OPENAI_CLIP)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        images = transform(augment(torch.from_numpy(pixels[rows]), generator))
        image = F.normalize(model.encode_image(images.to(device())), dim=-1)
        text = F.normalize(open_clip_models.embed_ids(model, words[rows].to(device())), dim=-1)
        return supervised_contrastive(image, text, model.logit_scale.exp().clamp(max=100.0))

    course = _descend(model, loss, settings, settings.clip_epochs, name)
    return model.state_dict(), course


def train_vision(name: str, settings: PhantomPretraining) -> tuple[State, History]:
    """SimCLR on the pretraining patches: two random views of a patch attract.

    Returns the backbone's state dict (the projector is thrown away) and the loss of each epoch.
    """
    pixels, _, _ = pretraining_pairs(settings.images, settings.side, settings.seed)
    torch.manual_seed(settings.seed)
    backbone = vision.build(name, settings.side)
    width: int = backbone.num_features  # type: ignore[assignment]
    projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
    model = nn.Sequential(backbone, projector).to(device())
    transform = vision.transform(name, settings.side)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        patches = torch.from_numpy(pixels[rows])
        first, second = (
            model(transform(random_view(patches, generator)).to(device())) for _ in range(2)
        )
        return normalised_temperature(first, second)

    course = _descend(model, loss, settings, settings.vision_epochs, name)
    return backbone.state_dict(), course


def _descend(
    model: nn.Module, loss: Any, settings: PhantomPretraining, epochs: int, name: str
) -> History:
    """AdamW with a one-cycle schedule; returns the mean loss of each epoch, and notes on it.

    Raises:
        Diverged: a loss, a gradient or a learned weight is not finite.
    """
    stage = Stage("training", "pretraining", f"{name}, seed {settings.seed}")
    rate = settings.learning_rate
    steps = max(settings.images // settings.batch_size, 1)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=epochs * steps
    )
    shuffle = np.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    model.train()
    history = []
    for epoch in progress(range(epochs), f"train {name}", "epoch"):
        order = shuffle.permutation(settings.images)[: steps * settings.batch_size]
        values = []
        for step, rows in enumerate(np.array_split(order, steps), start=1):
            value = loss(rows, generator)
            optimiser.zero_grad()
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            now, size = torch.stack([value.detach(), norm]).tolist()
            when = place(step, steps, epoch + 1, epochs)
            stage.check({"loss": now, "gradient's norm": size}, when, rate, epoch + step > 1)
            values.append(now)
        history.append(float(np.mean(values)))
    stage.check_tensors("the learned weights", model.parameters(), "after the last step", rate)
    return {"loss": history, "notes": stage.doubts(history[0], history[-1])}
