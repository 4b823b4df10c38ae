"""Encoders with random weights: a time does not depend on what has been learned."""

from __future__ import annotations

from dataclasses import replace

import open_clip

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import clips, registry
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.registry import UNTRAINED
from clipit_lib.encoders.vision import OPENAI_CLIP, VisionEncoder
from companion import cost

SIDE = 64
VOCABULARY = 49408  # of the tokenizer that ships with open_clip


def vision(name: str) -> VisionEncoder:
    """A backbone of the registry; the phantom's take patches of SIDE pixels."""
    encoder = registry.build_backbone(name, SIDE, None)
    encoder.model.eval()
    return encoder


def phantom_retriever() -> ClipEncoder:
    """The phantom's CLIP: a ViT of 4 blocks of width 96, patches of 8 pixels, at 64 pixels."""
    return _retriever(
        "phantom_clip", clips.build_open_clip(registry.entry("phantom_clip"), SIDE), SIDE
    )


def vit_b32_retriever() -> ClipEncoder:
    """QuiltNet's architecture, a ViT-B/32 at 224 pixels with a text tower of 77 tokens."""
    return _retriever("quiltnet", clips.build_open_clip(registry.entry("quiltnet"), None), 224)


def conch_sized_retriever() -> ClipEncoder:
    """Both towers of the size that `cost` counts for CONCH."""
    text = cost.TEXT | {"vocab_size": VOCABULARY}
    model = open_clip.CLIP(cost.TEXT_WIDTH, cost.PRINTED_VISION, text)
    return _retriever("conch_sized", model, cost.SIZE)


def _retriever(name: str, model: open_clip.CLIP, size: int) -> ClipEncoder:
    image, text = clips.split_open_clip(model.eval())
    tokenizer = replace(clips.open_clip_tokenizer(), context_length=model.context_length)
    row = registry.entry("clip", clip=True)
    return ClipEncoder(
        name, image, text, tokenizer, Transform(size, *OPENAI_CLIP), image.num_features,
        row.image_targets, row.text_targets, UNTRAINED, stand_in=False,
    )  # fmt: skip
