"""How the encoders that a profile trains on the spot come to be trained."""

from __future__ import annotations

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
    if name == "stand_in":
        return _stand_in(profile)
    settings = profile.pretraining

    def train() -> tuple[weights.State, dict[str, Any]]:
        from companion.phantom import training

        assert settings is not None
        if name in training.CLIP_PAIRS:
            return training.train_clip(name, settings)
        return training.train_vision(name, settings)

    return weights.get_or_train(sources_of_profile(profile).recipe(name), train)


def _stand_in(profile: Profile) -> dict[str, Any]:
    settings = profile.stand_in

    def train() -> tuple[weights.State, dict[str, Any]]:
        from companion import stand_in
        from companion.crc5 import CLASS_TEXTS, retriever_patches

        assert settings is not None
        data = profile.data_settings(settings.dataset)
        if not isinstance(data, Crc5Data):
            raise ClipItError(
                f"{settings.dataset} has no retriever split", "stand_in.dataset", "Name a crc5 set"
            )
        pixels, labels = retriever_patches(settings.side)
        return stand_in.train_stand_in(settings, pixels, labels, CLASS_TEXTS)

    return weights.get_or_train(sources_of_profile(profile).recipe("stand_in"), train)
