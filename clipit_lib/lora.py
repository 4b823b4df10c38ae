"""LoRA adapters on linear layers and pointwise convolutions, through peft."""

from __future__ import annotations

import re
import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipit_lib.errors import ClipItError
from clipit_lib.settings import Lora

APART = ("q_proj", "k_proj", "v_proj")


class ExplicitAttention(nn.Module):
    """Computes what the given attention computes, from the same weights, with linear layers.

    `nn.MultiheadAttention` reads its projections as bare parameters, so an adapter on them is never
    called; peft (0.21.2) works around this, and adds those of the output projection twice.
    Query, key and value share one layer `in_proj` where the source keeps them in one parameter;
    where keys have a width of their own (attention poolers), they are three: APART.
    """

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if source.bias_k is not None or source.add_zero_attn:
            raise NotImplementedError("attention with added keys")
        self.heads, self.batch_first = source.num_heads, source.batch_first
        self.dropout, self.fused = source.dropout, source.in_proj_weight is not None
        if self.fused:
            self.in_proj = _linear(source.in_proj_weight, source.in_proj_bias)
        else:
            bias = source.in_proj_bias
            parts = [None] * 3 if bias is None else bias.detach().chunk(3)
            for name, part in zip(APART, parts, strict=True):
                own = None if part is None else nn.Parameter(part.clone())
                setattr(self, name, _linear(getattr(source, f"{name}_weight"), own))
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = False, attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:  # fmt: skip
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

    def _projected(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self.fused:
            named = zip(APART, inputs, strict=True)
            return tuple(getattr(self, name)(tokens) for name, tokens in named)
        if all(tokens is inputs[0] for tokens in inputs):
            parts: tuple[Tensor, ...] = self.in_proj(inputs[0]).chunk(3, dim=-1)
            return parts
        each = enumerate(self.in_proj(tokens).chunk(3, dim=-1) for tokens in inputs)
        return tuple(thirds[place] for place, thirds in each)

    def _split(self, tokens: Tensor) -> Tensor:
        """[b, heads, l, width of a head]"""
        rows = tokens if self.batch_first else tokens.transpose(0, 1)
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _linear(weight: Any, bias: Any) -> nn.Linear:
    """A layer that holds these very parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


# -- LoRA: adapters put in by peft, kept as plain tensors, merged without peft.


State = dict[str, Tensor]
Targets = Literal["attention_mlp", "all"]


def inject(model: nn.Module, targets: str, lora: Lora, which: Targets = "attention_mlp") -> None:
    """Freeze `model` and add adapters in place; only they require a gradient afterwards.

    Args:
        targets: regular expression of module names, the registry's for this encoder.
        which: `all` adapts every linear, plain convolution and embedding instead, as the released
            code does; grouped convolutions are left out, since they cannot be merged.

    Raises:
        ClipItError: nothing in the model matches.
    """
    import peft

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(parent, name, ExplicitAttention(child))
    if which == "all":
        targets = r"|".join(re.escape(n) for n, part in model.named_modules() if _mergeable(part))
    if not any(re.fullmatch(targets, name) for name, _ in model.named_modules()):
        fix = "Fix the encoder's registry entry"
        raise ClipItError("no module to adapt", f"LoRA targets {targets!r}", fix)
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )
    model.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        peft.inject_adapter_in_model(config, model)


def adapt_head(model: nn.Module, lora: Lora) -> None:
    """Freeze `model.vision_head` and let only adapters on it learn, as the released code does."""
    holder = nn.ModuleDict({"vision_head": model.vision_head})  # type: ignore[dict-item]
    inject(holder, "vision_head", lora)
    model.vision_head = holder["vision_head"]


def fold_head(model: nn.Module) -> None:
    """Put the adapters of `model.vision_head` into its weight and leave a plain linear layer."""
    layer: Any = model.vision_head
    layer.merge()
    model.vision_head = layer.get_base_layer()


def _mergeable(part: nn.Module) -> bool:
    plain = isinstance(part, nn.Conv2d) and part.groups == 1
    return plain or isinstance(part, nn.Linear | nn.Embedding)


def adapters(model: nn.Module) -> State:
    """The adapters' tensors by name, detached on the CPU."""
    return {
        name: value.detach().cpu().clone()
        for name, value in model.state_dict().items()
        if "lora_" in name
    }


@torch.no_grad()
def merge(model: nn.Module, state: State, lora: Lora) -> None:
    """Add adapters to the weights of a model that has none injected: W + (alpha / rank) B A.

    Raises:
        ClipItError: an adapter names a layer that the model does not have.
    """
    weights = dict(model.named_parameters())
    for name in (key for key in state if "lora_A" in key or "lora_embedding_A" in key):
        down, up = state[name].float(), state[name.replace("_A", "_B")].float()
        layer = re.split(r"\.lora_(?:embedding_)?A", name)[0]
        # nn.MultiheadAttention keeps query, key and value in one bare parameter `in_proj_weight`.
        weight = weights.get(f"{layer}_weight", weights.get(f"{layer}.weight"))
        if weight is None:
            what, fix = f"the model has no layer for {name}", "Load them into their own backbone"
            raise ClipItError(what, "adapters", fix)
        if weight.dim() == 4:
            product = torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
        else:
            product = up @ down
        product = product if product.shape == weight.shape else product.T  # of an embedding
        weight.add_((lora.alpha / lora.rank) * product.to(weight.dtype))
