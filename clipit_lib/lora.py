"""LoRA: adapters put in by peft, kept as plain tensors, merged without peft."""

from __future__ import annotations

import re
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipit_lib.attention import make_attention_explicit
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Lora

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

    make_attention_explicit(model)
    chosen = r"|".join(map(re.escape, _all_targets(model))) if which == "all" else targets
    if not any(re.fullmatch(chosen, name) for name, _ in model.named_modules()):
        raise ClipItError(
            "no module to adapt", f"LoRA targets {targets!r}", "Mend the encoder's registry entry"
        )
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=chosen
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


def _all_targets(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
        or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]


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

    After this the model costs what the backbone costs. It needs no peft.

    Raises:
        ClipItError: an adapter names a layer that the model does not have.
    """
    weights = dict(model.named_parameters())
    for name in (key for key in state if "lora_A" in key or "lora_embedding_A" in key):
        down, up = state[name].float(), state[name.replace("_A", "_B")].float()
        weight = weights.get(_weight_name(name, weights))
        if weight is None:
            raise ClipItError(
                f"the model has no layer for {name}",
                "adapters",
                "Load them into their own backbone",
            )
        weight.add_((lora.alpha / lora.rank) * _product(up, down, weight).to(weight.dtype))


def _weight_name(adapter: str, weights: dict[str, nn.Parameter]) -> str:
    layer = re.split(r"\.lora_(?:embedding_)?A", adapter)[0]
    # nn.MultiheadAttention keeps query, key and value in one bare parameter `in_proj_weight`.
    bare = f"{layer}_weight"
    return bare if bare in weights else f"{layer}.weight"


def _product(up: Tensor, down: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() == 4:
        return torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    product = up @ down
    return product if product.shape == weight.shape else product.T
