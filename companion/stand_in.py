"""How the pilot's stand-in retriever is trained: two projections, contrastively."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.encoders import clips, registry
from clipit_lib.encoders.encoder import Tokenizer
from clipit_lib.encoders.weights import State
from clipit_lib.files import progress
from clipit_lib.losses import supervised_contrastive
from clipit_lib.settings import StandInTraining
from clipit_lib.training import Stage, doubtful_place
from companion.crc5 import class_captions


def train_stand_in(
    settings: StandInTraining, pixels: np.ndarray, labels: np.ndarray, class_texts: tuple[str, ...]
) -> tuple[State, dict[str, Any]]:
    """Fit the projections on the retriever split.

    Args:
        pixels: [n, s, s, 3] uint8; labels: [n]; class_texts: one a class.

    Raises:
        Diverged: a loss or a learned weight is not finite.
    """
    stage, rate = (
        Stage("training", "stand_in", f"stand_in, seed {settings.seed}"),
        settings.learning_rate,
    )
    torch.manual_seed(settings.seed)
    image_tower, text_tower = clips.build_stand_in(settings)
    for tower in (image_tower, text_tower):
        tower.to(device()).eval()
    log_scale = nn.Parameter(torch.tensor(2.66, device=device()))  # ln(1 / 0.07), as CLIP starts
    rng = np.random.default_rng(settings.seed)
    captions = [class_captions(text, settings.captions_per_class, rng) for text in class_texts]
    images = _image_states(image_tower.backbone, pixels)
    texts = _text_states(text_tower, clips.stand_in_tokenizer(settings), captions)
    trained = nn.ModuleList([image_tower.projection, text_tower.projection])
    parameters = [*trained.parameters(), log_scale]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=0.05, fused=True
    )
    history = []
    steps = max(1, len(labels) // settings.batch_size)
    for epoch in progress(range(settings.epochs), "train stand_in", "epoch"):
        values = []
        batches = np.array_split(rng.permutation(len(labels)), steps)
        for step, rows in enumerate(batches, start=1):
            group = torch.from_numpy(labels[rows])
            chosen = texts[group, torch.from_numpy(rng.integers(texts.shape[1], size=len(rows)))]
            image = F.normalize(image_tower.projection(images[torch.from_numpy(rows)]), dim=-1)
            text = F.normalize(text_tower.projection(chosen), dim=-1)
            scale = log_scale.exp().clamp(max=100.0)
            loss = supervised_contrastive(image, text, scale, group.to(image.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
            when = doubtful_place(step, steps, epoch + 1, settings.epochs)
            stage.check({"loss": values[-1]}, when, rate, epoch + step > 1)
        history.append(float(np.mean(values)))
    stage.check_tensors("the learned weights", parameters, "after the last step", rate)
    state = {f"image.{k}": v.cpu() for k, v in image_tower.projection.state_dict().items()}
    state |= {f"text.{k}": v.cpu() for k, v in text_tower.projection.state_dict().items()}
    return state, {"loss": history, "notes": stage.doubts(history[0], history[-1])}


@torch.no_grad()
def _image_states(backbone: nn.Module, pixels: np.ndarray) -> Tensor:
    transform = registry.entry(registry.STAND_IN).transform(None)
    blocks = [
        backbone(transform(torch.tensor(pixels[i : i + 64])).to(device()))
        for i in progress(range(0, len(pixels), 64), "embed retriever split", "batch")
    ]
    return torch.cat(blocks)


@torch.no_grad()
def _text_states(
    tower: clips.StandInTextTower, words: Tokenizer, captions: list[list[str]]
) -> Tensor:
    states = [tower.states(words.windows(each, "truncate").ids.to(device())) for each in captions]
    return torch.stack(states)
