"""Gradient checkpointing: keep a block's input only, and compute the block again when needed."""

from __future__ import annotations

from typing import Any

from torch import nn

from clipit_lib.errors import ClipItError


def checkpoint_gradients(model: nn.Module) -> None:
    """Turn it on, block by block, in an image tower of timm, open_clip, CONCH or transformers.

    Gradients stay the same; a training step costs one more forward pass and far less memory (see
    `cost.memory`). All four libraries use PyTorch's way without re-entrance, which also works where
    the first block is given nothing that requires a gradient, as under LoRA.

    Raises:
        ClipItError: no part of the model knows how.
    """
    for part in model.modules():
        module: Any = part
        # CONCH's own switch only logs what goes wrong; the ViT inside it has one too.
        if hasattr(module, "set_grad_checkpointing") and not hasattr(module, "trunk"):
            module.set_grad_checkpointing(True)
            return
        if getattr(module, "supports_gradient_checkpointing", False):
            # The first is its name from transformers 5 on.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            getattr(module, next(n for n in names if hasattr(module, n)))({"use_reentrant": False})
            return
    raise ClipItError(
        "this model has no gradient checkpointing",
        type(model).__name__,
        "Train it without, with a smaller batch",
    )
