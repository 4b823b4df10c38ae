"""Several processes that train one run together, as `accelerate launch` starts them.

Each holds the whole model and makes the same draws. Of a batch of images each computes its share;
the outputs are put together, so that every process sees the loss of the whole batch, as one
process would, and gradients are averaged. A task that shares nothing is computed by each process
and is right too. With one process everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.files import locked

Value = TypeVar("Value")
PATIENCE = timedelta(days=2)  # some wait for as long as others embed, or another launch trains


def processes() -> PartialState:
    """This process among those of its launch; it is alone if it was not launched with others.

    The first call makes its GPU the current one.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def share(batch: int) -> Int[Tensor, " s"]:
    """Positions in a batch that this process computes: as many in each process, in their order.

    Where they do not go round, the last process gets the first ones again; `gathered` drops these.
    """
    state = processes()
    each = -(-batch // state.num_processes)
    return (torch.arange(each) + each * state.process_index) % batch


def gathered(own: Float[Tensor, "s ..."], batch: int) -> Float[Tensor, "b ..."]:
    """What all processes computed of a batch, in its order; a gradient goes back to its owner."""
    if processes().num_processes == 1:
        return own
    result: Tensor = _Gathered.apply(own, batch)
    return result


class _Gathered(torch.autograd.Function):
    """Forward: gather. Backward: the own part, times the number of processes.

    Every process holds the gradient of the whole loss by all outputs, so nothing is sent back;
    `average_gradients` divides what each has added by the number of processes.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, batch: int) -> Tensor:
        ctx.each = len(own)
        outputs: Tensor = gather(own.contiguous())
        return outputs[:batch]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), state = gradients, processes()
        begin = ctx.each * state.process_index
        mine = gradient[begin : begin + ctx.each]
        own = gradient.new_zeros(ctx.each, *gradient.shape[1:])
        own[: len(mine)] = mine
        return own * state.num_processes, None


def start_alike(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the main one's weights."""
    if processes().num_processes > 1:
        for parameter in parameters:
            parameter.data.copy_(broadcast(parameter.data.contiguous()))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, in one exchange."""
    if processes().num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def from_main(value: Value) -> Value:
    """The main process's value, for all."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def make_once(
    sign: Path,
    make: Callable[[], Value],
    keep: Callable[[Value], None],
    target: Path | None = None,
    lock: Path | None = None,
) -> None:
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
