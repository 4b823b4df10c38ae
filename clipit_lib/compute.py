"""Where and how tensors are computed: device, precision, seeded blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

# The same numbers again on the same machine. On a GPU a few operations have no such algorithm: a
# run of days shall say so and go on.
# (`torch.use_deterministic_algorithms` is the same, but imports the compiler: two seconds.)
torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
# It costs time, and all memory is written.
torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
torch.backends.mkldnn.deterministic = True  # type: ignore[assignment]
if torch.cuda.is_available():  # of what is not bfloat16, TF32: float32's range, products of 11 bits
    torch.set_float32_matmul_precision("high")


def device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_device(tensor: Tensor) -> Tensor:
    """On the accelerator, without waiting for what it computes; on a CPU the tensor itself."""
    if device().type == "cpu" or tensor.is_cuda:
        return tensor
    return tensor.pin_memory().to(device(), non_blocking=True)


def autocast(precision: Literal["no", "bf16"]) -> AbstractContextManager[None]:
    """Mixed precision in the forward pass; weights and their updates stay float32."""
    return nullcontext() if precision == "no" else torch.autocast(device().type, torch.bfloat16)


def stacked(blocks: Iterable[Tensor], count: int) -> Tensor:
    """Blocks [b, ...] one below the other, [count, ...]; the last may be smaller.

    Copied as they come: kept, they would tear apart the memory of the large tensors between them.
    """
    each = iter(blocks)
    first = next(each)
    rows = first.new_empty(count, *first.shape[1:])
    for place, block in zip(rows.split(len(first)), chain([first], each), strict=True):
        place.copy_(block)
    return rows


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's own generator seeded within the block and restored after it.

    For layers, whose initialisation takes no generator.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
