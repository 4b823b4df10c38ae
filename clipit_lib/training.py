"""One training loop for every setting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clipit_lib import parallel
from clipit_lib.compute import autocast, device
from clipit_lib.divergence import Stage, place
from clipit_lib.model import train_mode
from clipit_lib.progress import progress
from clipit_lib.settings import Descent

State = dict[str, Tensor]
Row = dict[str, float]
SCORE = "validation cross-entropy"


class History(list[Row]):
    """One row a look at validation, and what makes the course doubtful, in plain words."""

    notes: tuple[str, ...] = ()


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
    task: Task,
    settings: Descent,
    seed: int,
    keep: str = "best",
    extra: nn.Module | None = None,
    stage: Stage | None = None,
    start: float | None = None,
) -> History:
    """Minimise a task's loss with Adam and leave the kept weights in `task.model`.

    Called by all processes of a launch, whose weights stay the same.

    Args:
        keep: `best` restores the weights with the lowest validation cross-entropy, `last` none.
        extra: a further module to learn that is not deployed (a moving target's text tower).
        stage: names the descent where something is said of it.
        start: validation cross-entropy, in nats, that every look should improve on; by default
            the task's own is computed before the first step. No weights depend on it.

    Returns:
        One row a look at validation: epoch, the mean of each loss part since the last, validation.

    Raises:
        Diverged: a loss, a gradient, a look at validation or a learned weight is not finite.
    """
    stage, rate = stage or Stage(), settings.learning_rate
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
    history = History()
    if start is None:
        start = _look(task, modules, settings)
        stage.check({SCORE: start}, "before the first step", rate, moved=False)
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
            losses = torch.stack(list(parts.values()))
            losses.sum().backward()
            parallel.average_gradients(learned)
            norm = nn.utils.clip_grad_norm_(learned, settings.gradient_clip)
            optimiser.step()
            # One transfer from the device, after the step is on its way.
            *values, size = torch.cat([losses.detach(), norm[None]]).tolist()
            seen.append(dict(zip(parts, values, strict=True)))
            when = place(step, steps, epoch + 1, settings.epochs)
            said = {f"{name} loss": value for name, value in seen[-1].items()}
            stage.check(said | {"gradient's norm": size}, when, rate, epoch + step > 1)
            if step in looks:
                row = {"epoch": epoch + step / steps, **_means(seen), **task.notes()}
                value = _look(task, modules, settings)
                stage.check({SCORE: value}, when, rate)
                best.offer(value)
                history.append(row | {"validation": value})
                seen = []
    if keep == "best":
        best.restore()
    stage.check_tensors("the learned weights", learned, "after the last step", rate)
    modules.eval()
    # Whole epochs are compared, which have the same rows; looks where there is one epoch only.
    whole = len(looks) if settings.epochs > 1 else 1
    part = next(iter(parts))
    first, last = (_means(rows)[part] for rows in (history[:whole], history[-whole:]))
    kept = history if keep == "best" else history[-1:]
    history.notes = stage.doubts(first, last, [row["validation"] for row in kept], start)
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


def _look(task: Task, modules: nn.Module, settings: Descent) -> float:
    modules.eval()
    with autocast(settings.precision):
        value = parallel.from_main(task.validate())
    train_mode(modules)
    return value


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _looks(steps: int, per_epoch: int) -> set[int]:
    return {max(1, round(steps * (i + 1) / per_epoch)) for i in range(per_epoch)}
