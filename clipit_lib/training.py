"""One training loop for every setting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clipit_lib import parallel
from clipit_lib.compute import autocast, device
from clipit_lib.model import train_mode
from clipit_lib.progress import progress
from clipit_lib.settings import Descent

State = dict[str, Tensor]
History = list[dict[str, float]]


class Task(ABC):
    """What is trained on what.

    Attributes:
        model: its parameters that require a gradient are learned and kept.
        rows: number of training rows.
    """

    model: nn.Module
    rows: int

    def begin(self, epoch: int) -> None:  # noqa: B027
        """Called before each epoch, counted from 0; most have nothing to change."""

    @abstractmethod
    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Named parts of the loss of a batch of training rows [b]; their sum is minimised.

        Of several processes each is given the whole batch, see `parallel`.
        """

    def notes(self) -> dict[str, float]:
        """What else to write down at a look at validation; it is not minimised."""
        return {}

    @abstractmethod
    def validate(self) -> float:
        """Cross-entropy on validation, in nats; no text is read where the model reads none."""


def fit(
    task: Task, settings: Descent, seed: int, keep: str = "best", extra: nn.Module | None = None
) -> History:
    """Minimise a task's loss with Adam and leave the kept weights in `task.model`.

    Called by all processes of a launch, whose weights stay the same.

    Args:
        keep: `best` restores the weights with the lowest validation cross-entropy, `last` none.
        extra: a further module to learn that is not deployed (a moving target's text tower).

    Returns:
        One row a look at validation: epoch, the mean of each loss part since the last, validation.
    """
    modules = nn.ModuleList([task.model] if extra is None else [task.model, extra])
    modules.to(device())
    learned = [p for p in modules.parameters() if p.requires_grad]
    parallel.start_alike(learned)
    optimiser = torch.optim.Adam(
        learned, settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, round(task.rows / settings.batch_size))
    looks = _looks(steps, settings.checks_per_epoch)
    best = Best(task.model)
    history: History = []
    epochs = range(settings.epochs)
    main = parallel.processes().is_main_process
    for epoch in progress(epochs, "train", "epoch") if main else epochs:
        train_mode(modules)
        task.begin(epoch)
        order = torch.randperm(task.rows, generator=generator)
        seen: list[dict[str, float]] = []
        for step, rows in enumerate(order.tensor_split(steps), start=1):
            with autocast(settings.precision):
                parts = task.loss(task.model, rows, generator)
            optimiser.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            parallel.average_gradients(learned)
            nn.utils.clip_grad_norm_(learned, settings.gradient_clip)
            optimiser.step()
            seen.append({name: value.item() for name, value in parts.items()})
            if step in looks:
                row = {"epoch": epoch + step / steps, **_means(seen), **task.notes()}
                history.append(row | {"validation": _look(task, modules, settings, best)})
                seen = []
    if keep == "best":
        best.restore()
    modules.eval()
    return history


class Best:
    """The learned weights at the lowest validation cross-entropy so far."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.value = model, float("inf")
        self.state = self._copy()

    def offer(self, value: float) -> None:
        if value < self.value:
            self.value, self.state = value, self._copy()

    def restore(self) -> None:
        self.model.load_state_dict(self.state, strict=False)

    def _copy(self) -> State:
        learned = ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)
        return {name: p.detach().clone() for name, p in learned}


def _look(task: Task, modules: nn.Module, settings: Descent, best: Best) -> float:
    modules.eval()
    with autocast(settings.precision):
        value = parallel.from_main(task.validate())
    train_mode(modules)
    best.offer(value)
    return value


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _looks(steps: int, per_epoch: int) -> set[int]:
    return {max(1, round(steps * (i + 1) / per_epoch)) for i in range(per_epoch)}
