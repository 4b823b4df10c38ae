"""The pilot's stand-in retriever: EfficientNet-Lite2 and MiniLM joined by two projections.

It replaces a histology CLIP where none can be had. Both towers stay frozen; only the projections
are trained, contrastively, on a data set's retriever split with captions from class descriptions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from clipit_lib.compute import device
from clipit_lib.divergence import Stage, place
from clipit_lib.encoders import packages, vision
from clipit_lib.encoders.image_tower import BACKBONE, TARGETS, ImageTower, part
from clipit_lib.encoders.image_tower import build as build_image_tower
from clipit_lib.encoders.store import State
from clipit_lib.encoders.tokens import Tokenizer
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.losses import supervised_contrastive
from clipit_lib.progress import progress
from clipit_lib.reports.descriptions import class_captions
from clipit_lib.settings import StandInTraining

TEXT_TARGETS = r"bert\.encoder\.layer\.\d+\..*\.(query|key|value|dense)"


class TextTower(nn.Module):
    """MiniLM, mean of its token states, projected: ids [b, context] to [b, width]."""

    def __init__(self, bert: nn.Module, hidden: int, pad: int, width: int) -> None:
        super().__init__()
        self.bert, self.pad = bert, pad
        self.projection = nn.Linear(hidden, width)

    def states(self, ids: Tensor) -> Tensor:
        """Mean token state, [b, hidden]; positions that are padding everywhere are not computed."""
        mask = (ids != self.pad).long()
        longest = int(mask.sum(dim=1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        mean: Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return mean

    def forward(self, ids: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.states(ids))
        return projected


class Towers(nn.Module):
    """Both towers and the logarithm of the contrastive scale."""

    def __init__(self, image: ImageTower, text: TextTower) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # ln(1 / 0.07), as CLIP starts

    def load_projections(self, state: State) -> None:
        self.image.load_projection(state)
        self.text.projection.load_state_dict(part(state, "text."))


def build(settings: StandInTraining) -> Towers:
    """Both frozen towers with untrained projections."""
    model_folder = packages.folder(packages.MINILM) / "model"
    bert = AutoModel.from_pretrained(model_folder, local_files_only=True)
    image = build_image_tower(settings.width)
    text = TextTower(bert, bert.config.hidden_size, bert.config.pad_token_id, settings.width)
    return Towers(image, text)


def tokenizer(settings: StandInTraining) -> Tokenizer:
    """MiniLM's word-piece tokenizer."""
    pieces = AutoTokenizer.from_pretrained(packages.folder(packages.MINILM) / "model")

    def encode(text: str) -> list[int]:
        ids: list[int] = pieces.encode(text, add_special_tokens=False, verbose=False)
        return ids

    return Tokenizer(
        encode, pieces.cls_token_id, pieces.sep_token_id, pieces.pad_token_id,
        settings.context_length,
    )  # fmt: skip


def wrap(towers: Towers, weights_hash: str, settings: StandInTraining) -> ClipEncoder:
    """The trained towers as a retriever."""
    transform = vision.transform(BACKBONE, None)
    return ClipEncoder(
        "stand_in", towers.image, towers.text, tokenizer(settings), transform, settings.width,
        TARGETS, TEXT_TARGETS, weights_hash, stand_in=True,
    )  # fmt: skip


def train(
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
    towers = build(settings).to(device()).eval()
    rng = np.random.default_rng(settings.seed)
    captions = [class_captions(text, settings.captions_per_class, rng) for text in class_texts]
    images = _image_states(towers.image.backbone, pixels)
    texts = _text_states(towers.text, tokenizer(settings), captions)
    trained = nn.ModuleList([towers.image.projection, towers.text.projection])
    parameters = [*trained.parameters(), towers.log_scale]
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
            image = F.normalize(towers.image.projection(images[torch.from_numpy(rows)]), dim=-1)
            text = F.normalize(towers.text.projection(chosen), dim=-1)
            scale = towers.log_scale.exp().clamp(max=100.0)
            loss = supervised_contrastive(image, text, scale, group.to(image.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
            when = place(step, steps, epoch + 1, settings.epochs)
            stage.check({"loss": values[-1]}, when, rate, epoch + step > 1)
        history.append(float(np.mean(values)))
    stage.check_tensors("the learned weights", parameters, "after the last step", rate)
    state = {f"image.{k}": v.cpu() for k, v in towers.image.projection.state_dict().items()}
    state |= {f"text.{k}": v.cpu() for k, v in towers.text.projection.state_dict().items()}
    return state, {"loss": history, "notes": stage.doubts(history[0], history[-1])}


@torch.no_grad()
def _image_states(backbone: nn.Module, pixels: np.ndarray) -> Tensor:
    transform = vision.transform(BACKBONE, None)
    blocks = [
        backbone(transform(torch.tensor(pixels[i : i + 64])).to(device()))
        for i in progress(range(0, len(pixels), 64), "embed retriever split", "batch")
    ]
    return torch.cat(blocks)


@torch.no_grad()
def _text_states(tower: TextTower, words: Tokenizer, captions: list[list[str]]) -> Tensor:
    states = [tower.states(words.windows(each, "truncate").ids.to(device())) for each in captions]
    return torch.stack(states)
