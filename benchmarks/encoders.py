"""Encoders with random weights: a time does not depend on what has been learned."""

from __future__ import annotations

import open_clip

from clipit_lib.encoders import clips, registry
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.registry import UNTRAINED
from clipit_lib.encoders.vision import VisionEncoder
from companion.cost import models

SIDE = 64
VOCABULARY = 49408  # of the tokenizer that ships with open_clip


def vision(name: str) -> VisionEncoder:
    """A backbone of the registry; the phantom's take patches of SIDE pixels."""
    encoder = registry.untrained_backbone(name, SIDE, None)
    encoder.model.eval()
    return encoder


def phantom_retriever() -> ClipEncoder:
    """The phantom's CLIP: a ViT of 4 blocks of width 96, patches of 8 pixels, at 64 pixels."""
    model = clips.build_phantom_clip(SIDE).eval()
    return clips.wrap_open_clip("phantom_clip", model, UNTRAINED)


def vit_b32_retriever() -> ClipEncoder:
    """QuiltNet's architecture, a ViT-B/32 at 224 pixels with a text tower of 77 tokens."""
    model = clips.build_published("quiltnet")
    return clips.wrap_open_clip("quiltnet", model, UNTRAINED)


def conch_sized_retriever() -> ClipEncoder:
    """Both towers of the size that `cost.models` counts for CONCH."""
    text = models.TEXT | {"vocab_size": VOCABULARY}
    model = open_clip.CLIP(models.TEXT_WIDTH, models.PRINTED_VISION, text).eval()
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.set_model_preprocess_cfg(model, statistics)
    return clips.wrap_open_clip("conch_sized", model, UNTRAINED)
