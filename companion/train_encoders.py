"""How the encoders that a profile trains on the spot come to be trained."""

from __future__ import annotations

from functools import partial
from typing import Any

from clipit_lib.encoders import weights
from clipit_lib.errors import ClipItError
from companion.crc5 import Crc5Data
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
    return weights.get_or_train(sources_of_profile(profile).recipe(name), train)


def _phantom(name: str, profile: Profile) -> tuple[weights.State, dict[str, Any]]:
    from companion.phantom import training

    assert profile.pretraining is not None
    train = training.train_clip if name in training.CLIP_PAIRS else training.train_vision
    return train(name, profile.pretraining)


def _stand_in(profile: Profile) -> tuple[weights.State, dict[str, Any]]:
    from companion import stand_in
    from companion.crc5 import CLASS_TEXTS, retriever_patches

    settings = profile.stand_in
    assert settings is not None
    if not isinstance(profile.data_settings(settings.dataset), Crc5Data):
        raise ClipItError(
            f"{settings.dataset} has no retriever split", "stand_in.dataset", "Name a crc5 set"
        )
    pixels, labels = retriever_patches(settings.side)
    return stand_in.train_stand_in(settings, pixels, labels, CLASS_TEXTS)
