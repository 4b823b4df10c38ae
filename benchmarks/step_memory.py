"""Memory of a LoRA training step, played through with tensors that have a shape but no values.

Every operation of the forward and the backward pass is carried out on PyTorch's fake tensors, and
the bytes of all tensors that are alive are added up: the largest sum is what the step needs beyond
the weights. So attention, gradients of adapters, casts to bfloat16 and blocks that are computed
again are in it by themselves. Not in it: PyTorch's own context on a GPU (about 0.5 GB), workspaces
of its kernels, and what its allocator leaves unused (a tenth or two).
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipit_lib import lora
from clipit_lib.compute import autocast
from clipit_lib.encoders.vision import VisionEncoder, checkpoint_gradients
from clipit_lib.settings import Lora

ADAM = 2  # moments a trained number has


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one training step.

    Attributes:
        weights: of the frozen backbone, float32.
        learned: the adapters with their gradients and Adam's moments, float32.
        activations: the most that is alive at once besides, the batch of images included (and
            gradients of adapters where they are alive then, so the total is a little too large).
    """

    weights: int
    learned: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.activations


def training_memory(
    encoder: VisionEncoder,
    settings: Lora,
    batch: int,
    precision: Literal["no", "bf16"] = "no",
    checkpointing: bool = False,
) -> TrainingMemory:
    """What a LoRA step on a backbone needs; nothing is computed, and the encoder stays as it is.

    Args:
        encoder: with or without weights, as of `registry.build_backbone` on the device `meta`.
        checkpointing: with `checkpoint_gradients`.
    """
    model = copy.deepcopy(encoder.model).to("meta")
    with torch.device("meta"):
        lora.inject(model, encoder.lora_targets, settings)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - learned
    if checkpointing:
        checkpoint_gradients(model)
    size = encoder.transform.size
    most = peak_activations(model, (batch, 3, size, size), precision)
    return TrainingMemory(4 * frozen, 4 * (2 + ADAM) * learned, most)


def peak_activations(
    model: nn.Module, shape: tuple[int, ...], precision: Literal["no", "bf16"] = "no"
) -> int:
    """Most bytes alive at once in a forward and backward pass, weights left out.

    Args:
        shape: of the input, float32.
    """
    fake = copy.deepcopy(model).to("meta").train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake.to_empty(device="cpu")
        alive = _Alive([*fake.parameters(), *fake.buffers()])
        # As on a GPU, whatever attention is made of on this machine.
        with alive, sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            inputs = torch.empty(shape)
            with autocast(precision):
                output = fake(inputs)
            output.float().sum().backward()
    return alive.most


class _Alive(TorchDispatchMode):
    """Adds up the memory of tensors while they are alive.

    PyTorch's own `MemTracker` fails where a parameter is frozen, and under LoRA most are.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_leaves(result) if isinstance(x, Tensor)):
            key, size = storage._cdata, storage.nbytes()
            if key not in self._seen:
                self._seen.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._remove, key, size)
        return result

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
