"""Where and how tensors are computed: device, precision, seeded blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["no", "bf16"]

# The same numbers again on the same machine. On a GPU a few operations have no such algorithm: a
# run of days shall say so and go on.
# (`torch.use_deterministic_algorithms` is the same, but imports the compiler: two seconds.)
torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
# It costs time, and all memory is written.
torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
torch.backends.mkldnn.deterministic = True  # type: ignore[assignment]


def device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision) -> AbstractContextManager[None]:
    """Mixed precision in the forward pass; weights and their updates stay float32."""
    return nullcontext() if precision == "no" else torch.autocast(device().type, torch.bfloat16)


def stacked(blocks: Iterable[Tensor], count: int) -> Tensor:
    """Blocks [b, ...] one below the other, [count, ...].

    Copied as they come: kept, they would tear apart the memory of the large tensors between them.
    """
    rows: Tensor | None = None
    begin = 0
    for block in blocks:
        if rows is None:
            rows = block.new_empty(count, *block.shape[1:])
        rows[begin : begin + len(block)] = block
        begin += len(block)
    assert rows is not None and begin == count
    return rows


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's own generator seeded within the block and restored after it.

    For layers, whose initialisation takes no generator.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
