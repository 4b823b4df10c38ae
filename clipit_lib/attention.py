"""Self-attention with plain linear layers, in place of `nn.MultiheadAttention`.

`nn.MultiheadAttention` reads its projections as bare parameters, so an adapter on them is never
called; peft works around this by adding adapters to the weights at each call, and adds those of
the output projection twice (seen in peft 0.21.2). With linear layers an adapter is an adapter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ExplicitAttention(nn.Module):
    """Computes what the given self-attention computes, from the same weights."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if source.in_proj_weight is None or source.bias_k is not None:
            raise NotImplementedError("only self-attention with one fused projection")
        width, bias = source.embed_dim, source.in_proj_bias is not None
        self.heads, self.batch_first, self.dropout = (
            source.num_heads, source.batch_first, source.dropout
        )  # fmt: skip
        self.in_proj = nn.Linear(width, 3 * width, bias=bias)
        self.in_proj.weight = source.in_proj_weight
        self.in_proj.bias = source.in_proj_bias
        self.out_proj = nn.Linear(width, width, bias=bias)
        self.out_proj.weight, self.out_proj.bias = source.out_proj.weight, source.out_proj.bias

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """[b, l, width] (or [l, b, width]) to the same shape; weights are never returned."""
        tokens = query if self.batch_first else query.transpose(0, 1)
        parts = self.in_proj(tokens).unflatten(-1, (3, self.heads, -1))  # [b, l, 3, heads, w]
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask  # True hides here, and shows in scaled_dot_product_attention
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (output if self.batch_first else output.transpose(0, 1)), None


def make_attention_explicit(model: nn.Module) -> None:
    """Replace every `nn.MultiheadAttention` in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(parent, name, ExplicitAttention(child))
