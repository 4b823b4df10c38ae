"""Backbones to classify with: the vision registry's, or the image tower of a CLIP."""

from __future__ import annotations

from dataclasses import replace

import torch

from clipit_lib.data.transforms import Transform
from clipit_lib.encoders import packages, store, vision
from clipit_lib.encoders import weights as published_weights
from clipit_lib.encoders.image_halves import HALVES, UNTRAINED, image_half
from clipit_lib.encoders.sources import Sources
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.files import digest
from clipit_lib.settings import StandInTraining, known

# Which CLIPs have an image tower that can be loaded without their text tower.
STAND_IN = "stand_in"
PHANTOM_CLIPS = ("phantom_clip", "phantom_clip_noisy", "phantom_clip_generic")
IMAGE_TOWERS = (*PHANTOM_CLIPS, STAND_IN, *HALVES)


def check(name: str) -> None:
    """Raises ClipItError if no backbone has this name; the message lists the known ones."""
    known(name, (*vision.VISION, *IMAGE_TOWERS), "backbone", "clipit_lib/encoders/")


def namesake(name: str) -> str | None:
    """The paper's model that a backbone stands for, if any."""
    return vision.VISION[name].namesake if name in vision.VISION else None


def weights_hash(name: str, sources: Sources) -> str:
    """A name of the weights: what they are trained from, or a digest of their file.

    Raises:
        ClipItError: the file is not there.
    """
    check(name)
    if name == STAND_IN:
        frozen = packages.weights_hash(vision.entry(_stand_in_backbone()).weights)
        return digest(sources.recipe(name).key, frozen)
    if name in PHANTOM_CLIPS:
        return sources.recipe(name).key
    if name in HALVES:
        return published_weights.weights_hash(name, sources)
    return vision.weights_hash(name, sources)


def load(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
    """Load a backbone with its weights.

    Raises:
        ClipItError: unknown name, or its weights are missing.
    """
    check(name)
    if name not in IMAGE_TOWERS:
        return vision.load(name, sources, normalisation)
    weights = weights_hash(name, sources)
    if name == STAND_IN:
        encoder = _stand_in(sources.stand_in, store.load(sources.recipe(name)))
    elif name in PHANTOM_CLIPS:
        assert sources.side is not None
        encoder = _phantom_clip(name, sources.side, store.load(sources.recipe(name)))
    else:
        encoder = image_half(name, published_weights.locate(name, sources))
    encoder = replace(encoder, weights_hash=weights)
    if normalisation != "own":
        mean, std = vision.STATISTICS[normalisation]
        return replace(encoder, transform=Transform(encoder.transform.size, mean, std))
    return encoder


def untrained(name: str, side: int | None, stand_in: StandInTraining | None) -> VisionEncoder:
    """A backbone's architecture, to count or time it before anything is trained.

    Args:
        side: of the phantom's patches in pixels.
    """
    check(name)
    if name == STAND_IN:
        return _stand_in(stand_in, None)
    if name in PHANTOM_CLIPS:
        return _phantom_clip(name, side or 64, None)
    if name in HALVES:
        return image_half(name, None)
    model = vision.build(name, side)
    width: int = model.num_features  # type: ignore[assignment]
    targets = vision.entry(name).lora_targets
    return VisionEncoder(name, model, vision.transform(name, side), width, targets, UNTRAINED)


def _phantom_clip(name: str, side: int, state: store.State | None) -> VisionEncoder:
    from clipit_lib.encoders import open_clip_models

    model = open_clip_models.build_phantom_clip(side)
    if state is not None:
        model.load_state_dict(state)
    clip = open_clip_models.wrap(name, model.eval(), UNTRAINED)
    return VisionEncoder(
        name, clip.image_tower, clip.transform, clip.width, clip.image_targets, UNTRAINED
    )


def _stand_in(settings: StandInTraining | None, state: store.State | None) -> VisionEncoder:
    from clipit_lib.encoders import image_tower

    assert settings is not None
    tower = image_tower.build(settings.width)
    if state is not None:
        tower.load_projection(state)
    tower.to(memory_format=torch.channels_last)
    transform = vision.transform(image_tower.BACKBONE, None)
    return VisionEncoder(
        STAND_IN, tower.eval(), transform, settings.width, image_tower.TARGETS, UNTRAINED
    )


def _stand_in_backbone() -> str:
    from clipit_lib.encoders import image_tower

    return image_tower.BACKBONE
