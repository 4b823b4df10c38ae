"""How the encoders that a profile trains on the spot come to be trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.encoders import clips, registry, weights
from clipit_lib.encoders.encoder import Tokenizer
from clipit_lib.encoders.weights import Recipe, State
from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest, kept, progress
from clipit_lib.settings import StandInTraining
from clipit_lib.training import Stage, descend
from companion.crc5 import CLASS_TEXTS, Crc5Data, class_captions, retriever_patches
from companion.losses import supervised_contrastive
from companion.profile import Profile, sources_of_profile


def get_or_train(name: str, profile: Profile) -> dict[str, Any]:
    """Train and keep an encoder unless that is done; return its card (history, weights hash).

    Raises:
        ClipItError: the profile trains no encoder of this name.
    """
    if name not in profile.trained_encoders:
        raise ClipItError(
            f"no encoder {name!r} is trained here",
            f"profile {profile.name}",
            f"Trained here: {', '.join(profile.trained_encoders) or 'none'}",
        )
    train = partial(_stand_in, profile) if name == "stand_in" else partial(_phantom, name, profile)
    return trained_once(sources_of_profile(profile).recipe(name), train)


def trained_once(
    recipe: Recipe, train: Callable[[], tuple[State, dict[str, Any]]]
) -> dict[str, Any]:
    """Train and keep an encoder unless it is there; return its card.

    Args:
        train: returns the state dict and a history worth showing.
    """

    def write(folder: Path) -> None:
        state, history = train()
        folder.mkdir()
        model = folder / weights.TRAINED_MODEL
        save_file({k: v.contiguous() for k, v in state.items()}, model)
        made = {"weights_hash": file_digest(model)[:16], "history": history}
        card = json.dumps({**recipe.asked, **made}, indent=1)
        (folder / weights.TRAINED_CARD).write_text(card, encoding="utf-8")

    kept(recipe.folder, write)
    return weights.read_card(recipe)


def _phantom(name: str, profile: Profile) -> tuple[weights.State, dict[str, Any]]:
    from companion.phantom import training

    assert profile.pretraining is not None
    train = training.train_clip if name in training.CLIP_PAIRS else training.train_vision
    return train(name, profile.pretraining)


def _stand_in(profile: Profile) -> tuple[weights.State, dict[str, Any]]:
    settings = profile.stand_in
    assert settings is not None
    if not isinstance(profile.data_settings(settings.dataset), Crc5Data):
        raise ClipItError(
            f"{settings.dataset} has no retriever split", "stand_in.dataset", "Name a crc5 set"
        )
    pixels, labels = retriever_patches(settings.side)
    return train_stand_in(settings, pixels, labels, CLASS_TEXTS)


# -- The pilot's stand-in retriever: two projections, trained contrastively.


def train_stand_in(
    settings: StandInTraining, pixels: np.ndarray, labels: np.ndarray, class_texts: tuple[str, ...]
) -> tuple[State, dict[str, Any]]:
    """Fit the projections on the retriever split.

    Args:
        pixels: [n, s, s, 3] uint8; labels: [n]; class_texts: one a class.

    Raises:
        Diverged: a loss or a learned weight is not finite.
    """
    stage = Stage("training", "stand_in", f"stand_in, seed {settings.seed}")
    torch.manual_seed(settings.seed)
    image_tower, text_tower = clips.build_stand_in(settings)
    for tower in (image_tower, text_tower):
        tower.to(device()).eval()
    log_scale = nn.Parameter(torch.tensor(2.66, device=device()))  # ln(1 / 0.07), as CLIP starts
    rng = np.random.default_rng(settings.seed)
    captions = [class_captions(text, settings.captions_per_class, rng) for text in class_texts]
    images = _image_states(image_tower.backbone, pixels)
    texts = _text_states(text_tower, clips.stand_in_tokenizer(settings), captions)
    images_to, texts_to = image_tower.projection, text_tower.projection
    learned = [*images_to.parameters(), *texts_to.parameters(), log_scale]
    optimiser = torch.optim.AdamW(learned, lr=settings.learning_rate, weight_decay=0.05, fused=True)
    steps = max(1, len(labels) // settings.batch_size)
    values = np.zeros((settings.epochs, steps))

    def batches(_: int) -> list[np.ndarray]:
        return np.array_split(rng.permutation(len(labels)), steps)

    def loss(rows: np.ndarray) -> dict[str, Tensor]:
        group = torch.from_numpy(labels[rows])
        chosen = texts[group, torch.from_numpy(rng.integers(texts.shape[1], size=len(rows)))]
        image = F.normalize(images_to(images[torch.from_numpy(rows)]), dim=-1)
        text = F.normalize(texts_to(chosen), dim=-1)
        scale = log_scale.exp().clamp(max=100.0)
        return {"contrastive": supervised_contrastive(image, text, scale, group.to(image.device))}

    def after(epoch: int, step: int, _: int, losses: dict[str, float]) -> None:
        values[epoch, step - 1] = losses["contrastive"]

    name = "train stand_in"
    descend(learned, optimiser, settings.epochs, batches, loss, stage, after=after, name=name)
    history = [float(np.mean(row)) for row in values]
    state = {f"image.{k}": v.cpu() for k, v in images_to.state_dict().items()}
    state |= {f"text.{k}": v.cpu() for k, v in texts_to.state_dict().items()}
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
