"""CONCH's shape from timm's and open_clip's parts, without its package: to count, time and plan.

Written after `conch/open_clip_custom` of its repository: the same parts, names and no weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import AttentionalPooler, MultimodalTransformer, TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clipit_lib.encoders import registry, weights
from clipit_lib.encoders.clips import CONCH_POSITIONS, CONCH_SPARE, split_conch
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import Held
from clipit_lib.settings import StandInTraining

SIZE, WIDTH = 448, 512


class Visual(nn.Module):
    """The image half: a ViT whose tokens are pooled by attention, for contrast and for captions."""

    def __init__(self, layers: int, width: int, heads: int, patch: int, queries: int) -> None:
        super().__init__()
        self.trunk = VisionTransformer(
            img_size=SIZE, patch_size=patch, embed_dim=width, depth=layers, num_heads=heads,
            num_classes=0, dynamic_img_size=True,
        )  # fmt: skip
        self.attn_pool_contrast = AttentionalPooler(WIDTH, width, 8, 1)
        self.ln_contrast = nn.LayerNorm(WIDTH)
        self.proj_contrast = nn.Parameter(width**-0.5 * torch.randn(WIDTH, WIDTH))
        self.attn_pool_caption = AttentionalPooler(width, width, 8, queries)
        self.ln_caption = nn.LayerNorm(width)

    def forward_no_head(self, images: Tensor) -> Any:
        tokens = self.trunk.forward_features(images)
        return self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])

    def forward_project(self, pooled: Tensor) -> Tensor:
        return pooled @ self.proj_contrast

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding [b, 512] and the tokens for captions [b, 256, 768]."""
        tokens = self.trunk.forward_features(images)
        pooled = self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])
        return self.forward_project(pooled), self.ln_caption(self.attn_pool_caption(tokens))


class Conch(nn.Module):
    """Image half, text half and the decoder of captions; other sizes make a small one for tests."""

    def __init__(
        self, layers: int = 12, width: int = 768, heads: int = 12, patch: int = 16,
        queries: int = 256, vocabulary: int = 32007,
    ) -> None:  # fmt: skip
        super().__init__()
        self.text = TextTransformer(
            # open_clip adds the position of CLS, CONCH counts it in.
            CONCH_POSITIONS - 1, vocabulary, width, heads, layers, output_dim=WIDTH,
            embed_cls=True, output_tokens=True,
        )  # fmt: skip
        self.visual = Visual(layers, width, heads, patch, queries)
        self.text_decoder = MultimodalTransformer(
            width, layers, heads, CONCH_POSITIONS, output_dim=vocabulary
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.66))
        self.pad_id = 0

    def encode_text(self, ids: Tensor, normalize: bool = True) -> Tensor:
        """Ids [b, 128] to [b, 512]; the last position makes room for CLS."""
        embedding: Tensor = self.text(ids[:, :-1])[0]
        return F.normalize(embedding, dim=-1) if normalize else embedding


def untrained_backbone(
    name: str, side: int | None, stand_in: StandInTraining | None, held: Held | None = None,
    depth: int | None = None,
) -> VisionEncoder:  # fmt: skip
    """As `registry.build_backbone`, which does not know CONCH's shape.

    Raises:
        ClipItError: the weights `held` are of another model; of CONCH they are only compared.
    """
    row = registry.entry(name)
    if row.library != "conch":
        return registry.build_backbone(name, side, stand_in, held, depth=depth)
    model = Conch(depth or 12)
    if held is not None:
        weights.check_fit(model, held, CONCH_SPARE)
    tower, _ = split_conch(model)
    return VisionEncoder(
        name, tower.eval(), row.transform(side), tower.num_features, row.image_targets,
        registry.UNTRAINED,
    )  # fmt: skip
