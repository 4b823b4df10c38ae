"""What is said, and stopped, where a descent leaves the finite numbers or leads nowhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipit_lib.errors import Diverged
from clipit_lib.settings import RunSpec, TextSpec

RISE = 1.05  # a mean over few batches may rise by less from the draw of the batches alone


@dataclass(frozen=True)
class Stage:
    """One descent, named for what is said of it.

    Attributes:
        name: in words, such as `stage two`.
        key: the section of a profile that holds its `learning_rate`.
        of: the data set, backbone, setting and seed, or the encoder, that it trains.
        start: what the validation of its start is called.
    """

    name: str = "training"
    key: str = "training"
    of: str = "this model"
    start: str = "the untrained start"

    @staticmethod
    def of_run(
        spec: RunSpec | TextSpec, name: str, key: str, start: str = "the untrained start"
    ) -> Stage:
        """A stage of one run."""
        what = (
            f"{spec.backbone}, {spec.setting}"
            if isinstance(spec, RunSpec)
            else f"reports paired by {spec.retriever}"
        )
        return Stage(name, key, f"{spec.dataset}, {what}, seed {spec.seed}", start)

    def diverged(self, what: str, when: str, rate: float, moved: bool = True) -> Diverged:
        """The one line that stops it; `moved` says whether a step was taken before."""
        fix = f"Lower {self.key}.learning_rate ({rate:g})"
        if self.key == "training":
            fix += ", or that of `training_for` if the data set has its own"
        if not moved:  # no learning rate has had a part in it yet
            fix = "Look for numbers that are not finite in the encoders' weights and the data"
        return Diverged(f"diverged: {what} {when}; nothing is stored", self._where, fix)

    def check(
        self, values: Mapping[str, float], when: str, rate: float, moved: bool = True
    ) -> None:
        """Stop at the first of some named numbers that is not finite.

        Raises:
            Diverged: one is not.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise self.diverged(f"the {name} is {value}", when, rate, moved)

    def check_tensors(
        self, what: str, tensors: Iterable[Tensor], when: str, rate: float, moved: bool = True
    ) -> None:
        """The same of whole tensors, with one transfer from the device.

        Raises:
            Diverged: some number is not finite.
        """
        if not torch.stack([each.detach().isfinite().all() for each in tensors]).all():
            raise self.diverged(f"{what} are not all finite", when, rate, moved)

    def doubts(
        self, first: float, last: float, looks: Sequence[float] = (), start: float = math.inf
    ) -> tuple[str, ...]:
        """What makes a course doubtful that stayed finite, in plain words; () if nothing.

        Args:
            first: mean training loss at the beginning of the course; last: at its end.
            looks: validation cross-entropy in nats of the weights that may be kept.
            start: the same of the start.
        """
        said = []
        if looks and min(looks) >= start:
            said.append(
                f"{self._where}: the best look at validation ({min(looks):.4g} nats) is no better "
                f"than {self.start} ({start:.4g})"
            )
        if last > RISE * first:
            said.append(f"{self._where}: the training loss rose from {first:.4g} to {last:.4g}")
        return tuple(said)

    @property
    def _where(self) -> str:
        return f"{self.name} of {self.of}"


def place(step: int, steps: int, epoch: int, epochs: int) -> str:
    """Where in a descent, counted from 1."""
    return f"at step {step} of {steps} in epoch {epoch} of {epochs}"
