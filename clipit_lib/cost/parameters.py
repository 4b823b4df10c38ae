"""How many numbers a model holds, and how many of them a run trains."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Parameters:
    """Counts of single numbers; a shared tensor counts once, statistics of batches not at all."""

    total: int
    trainable: int


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of a model as it stands: adapters count until they are merged."""
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return Parameters(sum(p.numel() for p in parameters), trainable)
