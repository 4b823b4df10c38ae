"""Attention with plain linear layers, in place of `nn.MultiheadAttention`.

`nn.MultiheadAttention` reads its projections as bare parameters, so an adapter on them is never
called; peft works around this by adding adapters to the weights at each call, and adds those of
the output projection twice (seen in peft 0.21.2). With linear layers an adapter is an adapter.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

APART = ("q_proj", "k_proj", "v_proj")


class ExplicitAttention(nn.Module):
    """Computes what the given attention computes, from the same weights.

    Query, key and value share one layer `in_proj` where the source keeps them in one parameter;
    where keys have a width of their own (attention poolers), they are three: APART.
    """

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if source.bias_k is not None or source.add_zero_attn:
            raise NotImplementedError("attention with added keys")
        self.heads, self.batch_first, self.dropout = (
            source.num_heads, source.batch_first, source.dropout
        )  # fmt: skip
        self.fused = source.in_proj_weight is not None
        if self.fused:
            self.in_proj = _linear(source.in_proj_weight, source.in_proj_bias)
        else:
            for name, bias in zip(APART, _thirds(source.in_proj_bias), strict=True):
                setattr(self, name, _linear(getattr(source, f"{name}_weight"), bias))
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """[b, l, width] (or [l, b, width]) to the same shape; weights are never returned.

        Args:
            attn_mask: [l, s], or [b * heads, l, s] with the heads of an image side by side.
        """
        if key_padding_mask is not None:
            raise NotImplementedError("a padding mask of its own")
        q, k, v = (self._split(part) for part in self._projected(query, key, value))
        if attn_mask is not None:
            # In a boolean mask True hides here, and shows in scaled_dot_product_attention.
            attn_mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask.to(q.dtype)
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (-1, self.heads))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (output if self.batch_first else output.transpose(0, 1)), None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if not self.fused:
            inputs = zip(APART, (query, key, value), strict=True)
            return tuple(getattr(self, name)(tokens) for name, tokens in inputs)
        if query is key and key is value:
            parts: tuple[Tensor, ...] = self.in_proj(query).chunk(3, dim=-1)
            return parts
        return tuple(
            self.in_proj(tokens).chunk(3, dim=-1)[third]
            for third, tokens in enumerate((query, key, value))
        )

    def _split(self, tokens: Tensor) -> Tensor:
        """[b, heads, l, width of a head]"""
        rows = tokens if self.batch_first else tokens.transpose(0, 1)
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _linear(weight: Any, bias: Any) -> nn.Linear:
    """A layer that holds these very parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


def _thirds(bias: nn.Parameter | None) -> tuple[nn.Parameter | None, ...]:
    if bias is None:
        return (None, None, None)
    return tuple(nn.Parameter(part.clone()) for part in bias.detach().chunk(3))


def make_attention_explicit(model: nn.Module) -> None:
    """Replace every `nn.MultiheadAttention` in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(parent, name, ExplicitAttention(child))
