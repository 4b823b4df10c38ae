"""Several processes that train one run together, as `accelerate launch` starts them.

Each holds the whole model and makes the same draws. Of a batch of images each computes its share of
the loss, and gradients are averaged; a task that shares nothing is computed whole by each process
and is right too. With one process everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.files import locked

Value = TypeVar("Value")
PATIENCE = timedelta(days=2)  # some wait for as long as others embed, or another launch trains


def processes() -> PartialState:
    """This process among those of its launch; the first call makes its GPU the current one."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def share(batch: int) -> tuple[Int[Tensor, " s"], float]:
    """Positions in a batch that this process computes, and what their mean loss is to be times.

    The mean over processes is then the mean over the batch, whatever the sizes of the shares.
    """
    count = processes().num_processes
    own = torch.arange(batch)[processes().process_index :: count]
    return (own, len(own) * count / batch) if len(own) else (torch.zeros(1, dtype=torch.long), 0.0)


def interleaved(own: Float[Tensor, "s ..."], total: int) -> Float[Tensor, "n ..."]:
    """What all processes computed of the rows `process_index::num_processes`, in order."""
    count = processes().num_processes
    if count == 1:
        return own
    padded = own.new_zeros(-(-total // count), *own.shape[1:])
    padded[: len(own)] = own
    parts: Tensor = gather(padded)
    return parts.unflatten(0, (count, -1)).transpose(0, 1).flatten(0, 1)[:total]


def start_alike(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the main one's weights."""
    if processes().num_processes > 1:
        for parameter in parameters:
            parameter.data.copy_(broadcast(parameter.data.contiguous()))


def mean(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in one exchange."""
    if processes().num_processes == 1:
        return
    found = list(tensors)
    means = reduce(torch.cat([each.flatten() for each in found]), "mean")
    for each, part in zip(found, means.split([each.numel() for each in found]), strict=True):
        each.copy_(part.view_as(each))


def from_main(value: Value) -> Value:
    """The main process's value, for all."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def make_once(
    sign: Path, make: Callable[[], Value], keep: Callable[[Value], None],
    target: Path | None = None, lock: Path | None = None,
) -> None:  # fmt: skip
    """Make and keep what is not there yet; of several jobs that ask for it one does it.

    The processes of a launch all call this: they make it together, and the main one keeps it.

    Args:
        sign: the file that says it is there.
        target: what `keep` writes, if it is not `sign`; `lock` as in `files.locked`.
    """
    if from_main(sign.exists()):
        return
    main = processes().is_main_process
    with locked(target or sign, lock) if main else nullcontext():
        if not from_main(sign.exists()):  # the others wait here for the lock
            made = make()
            if main:
                keep(made)
        processes().wait_for_everyone()
