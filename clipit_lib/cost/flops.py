"""Floating-point operations, counted by PyTorch while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(call: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in `call()`, without gradients.

    A multiply-add counts as two. What fvcore, and so the paper, calls FLOPs are multiply-adds:
    half of this number. Biases, normalisations and activations count nothing.
    """
    counter = FlopCounterMode(display=False)
    # On a CPU the counter does not see fused attention; the plain kernel is matrix products.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return int(counter.get_total_flops())


def flops_per_image(model: nn.Module, size: int, batch: int = 1) -> float:
    """Operations for one of `batch` images [3, size, size].

    What a call does once, whatever the batch, is shared by its images. A model on PyTorch's
    `meta` device is counted without weights and without computing anything.
    """
    images = torch.zeros(batch, 3, size, size, device=next(model.parameters()).device)
    with _frozen(model):
        return count_flops(lambda: model(images)) / batch


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient within the block.

    PyTorch's counter follows gradients of what a layer is given, and fails where that is a
    parameter (the query of an attention pooler).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
