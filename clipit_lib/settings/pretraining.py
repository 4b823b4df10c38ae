"""Settings of the encoders that are trained on the spot."""

from __future__ import annotations

from clipit_lib.settings.base import Positive, Rate, Seed, Strict


def trained_here(encoder: str) -> bool:
    """Whether an encoder of this name is trained on the spot."""
    return encoder.startswith("phantom_") or encoder == "stand_in"


class PhantomPretraining(Strict):
    """How the phantom's own encoders are trained, on its own pretraining patches."""

    images: Positive
    clip_epochs: Positive
    vision_epochs: Positive
    side: Positive = 64
    batch_size: Positive = 128
    learning_rate: Rate = 1e-3
    seed: Seed = 0


class StandInTraining(Strict):
    """How the stand-in retriever is trained: projections that join EfficientNet-Lite2 and MiniLM.

    `dataset` names the data set whose retriever split is used, read at `side` pixels;
    `context_length` counts tokens.
    """

    dataset: str
    side: Positive = 128
    epochs: Positive = 30
    captions_per_class: Positive = 100
    width: Positive = 128
    batch_size: Positive = 256
    learning_rate: Rate = 1e-3
    context_length: Positive = 128
    seed: Seed = 0
