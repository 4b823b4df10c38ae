"""Text features to be distilled: fixed after stage one (the paper) or still moving (the code)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.encoders.tokens import TokenWindows, embed_windows


@runtime_checkable
class Targets(Protocol):
    """Text features to be distilled into the images of some training rows: [b, e]."""

    def begin(self, epoch: int) -> None: ...

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class FixedTargets:
    """Features [m, e] of the distinct reports, computed once; `report` [n] says whose."""

    features: Float[Tensor, "m e"]
    report: Int[Tensor, " n"]

    def begin(self, epoch: int) -> None:
        """Nothing changes."""

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.features[self.report[rows]].to(device())


class RedrawnTargets:
    """Features [epochs, m, e] that differ from epoch to epoch: words are dropped anew each time."""

    def __init__(self, features: Float[Tensor, "epochs m e"], report: Int[Tensor, " n"]) -> None:
        self.features, self.report = features, report
        self.now = features[0]

    def begin(self, epoch: int) -> None:
        self.now = self.features[epoch]

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.now[self.report[rows]].to(device())


class ReassignedTargets:
    """Features [m, e] of all reports; which one a patch gets, [epochs, n], changes each epoch."""

    def __init__(self, features: Float[Tensor, "m e"], report: Int[Tensor, "epochs n"]) -> None:
        self.features, self.report = features, report
        self.now = report[0]

    def begin(self, epoch: int) -> None:
        self.now = self.report[epoch]

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.features[self.now[rows]].to(device())


@dataclass(frozen=True)
class MovingTargets:
    """Features from a text tower that keeps learning; a batch encodes its distinct reports once."""

    tower: nn.Module
    windows: TokenWindows
    report: Int[Tensor, " n"]

    def begin(self, epoch: int) -> None:
        """Its tower moves by itself."""

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        distinct, back = self.report[rows].unique(return_inverse=True)
        return embed_windows(self.tower, self.windows.select(distinct))[back.to(device())]
