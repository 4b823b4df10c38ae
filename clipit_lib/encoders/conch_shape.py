"""CONCH's shape from timm's and open_clip's parts, without its package: to count, time and plan.

Written after `conch/open_clip_custom` of its repository: the same parts under the same names. The
weights are random, and stay so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip.transformer import AttentionalPooler, MultimodalTransformer, TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of CONCH; others make a small one for tests."""

    image_size: int = 448
    patch_size: int = 16
    layers: int = 12
    width: int = 768
    heads: int = 12
    embedding: int = 512
    pooler_heads: int = 8
    caption_queries: int = 256
    context: int = 128
    vocabulary: int = 32007


class Visual(nn.Module):
    """The image half: a ViT whose tokens are pooled by attention, for contrast and for captions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = VisionTransformer(
            img_size=shape.image_size, patch_size=shape.patch_size, embed_dim=shape.width,
            depth=shape.layers, num_heads=shape.heads, num_classes=0, dynamic_img_size=True,
        )  # fmt: skip
        width, embedding = shape.width, shape.embedding
        self.attn_pool_contrast = AttentionalPooler(embedding, width, shape.pooler_heads, 1)
        self.ln_contrast = nn.LayerNorm(embedding)
        self.proj_contrast = nn.Parameter(width**-0.5 * torch.randn(embedding, embedding))
        queries = shape.caption_queries
        self.attn_pool_caption = AttentionalPooler(width, width, shape.pooler_heads, queries)
        self.ln_caption = nn.LayerNorm(width)

    def forward_no_head(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.ln_contrast(self._contrast(self.trunk.forward_features(images)))
        return pooled

    def forward_project(self, pooled: Tensor) -> Tensor:
        return pooled @ self.proj_contrast

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding [b, 512] and the tokens for captions [b, 256, 768]."""
        tokens = self.trunk.forward_features(images)
        embedding = self.forward_project(self.ln_contrast(self._contrast(tokens)))
        return embedding, self.ln_caption(self.attn_pool_caption(tokens))

    def _contrast(self, tokens: Tensor) -> Tensor:
        pooled: Tensor = self.attn_pool_contrast(tokens)[:, 0]
        return pooled


class Conch(nn.Module):
    """Image half, text half and the decoder of captions."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        self.text = TextTransformer(
            # open_clip adds the position of CLS, CONCH counts it in.
            context_length=shape.context - 1, vocab_size=shape.vocabulary, width=shape.width,
            heads=shape.heads, layers=shape.layers, output_dim=shape.embedding, embed_cls=True,
            output_tokens=True,
        )  # fmt: skip
        self.visual = Visual(shape)
        self.text_decoder = MultimodalTransformer(
            shape.width, shape.layers, shape.heads, shape.context, output_dim=shape.vocabulary
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.66))
        self.pad_id = 0

    def encode_text(self, ids: Tensor, normalize: bool = True) -> Tensor:
        """Ids [b, 128] to [b, 512]; the last position makes room for CLS."""
        embedding: Tensor = self.text(ids[:, :-1])[0]
        return nn.functional.normalize(embedding, dim=-1) if normalize else embedding
