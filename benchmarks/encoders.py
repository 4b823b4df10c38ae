"""Encoders with random weights: a time does not depend on what has been learned."""

from __future__ import annotations

import open_clip

from clipit_lib.cost import published
from clipit_lib.encoders import backbones, open_clip_models
from clipit_lib.encoders.image_halves import UNTRAINED
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.encoders.vision import VisionEncoder

SIDE = 64
VOCABULARY = 49408  # of the tokenizer that ships with open_clip


def vision(name: str) -> VisionEncoder:
    """A backbone of the registry; the phantom's take patches of SIDE pixels."""
    encoder = backbones.untrained(name, SIDE, None)
    encoder.model.eval()
    return encoder


def phantom_retriever() -> ClipEncoder:
    """The phantom's CLIP: a ViT of 4 blocks of width 96, patches of 8 pixels, at 64 pixels."""
    model = open_clip_models.build_phantom_clip(SIDE).eval()
    return open_clip_models.wrap("phantom_clip", model, UNTRAINED)


def vit_b32_retriever() -> ClipEncoder:
    """QuiltNet's architecture, a ViT-B/32 at 224 pixels with a text tower of 77 tokens."""
    model = open_clip_models.build_published("quiltnet")
    return open_clip_models.wrap("quiltnet", model, UNTRAINED)


def conch_sized_retriever() -> ClipEncoder:
    """Both towers of the size that `cost.published` counts for CONCH."""
    text = published.TEXT | {"vocab_size": VOCABULARY}
    model = open_clip.CLIP(published.TEXT_WIDTH, published.VISION, text).eval()
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.set_model_preprocess_cfg(model, statistics)
    return open_clip_models.wrap("conch_sized", model, UNTRAINED)
