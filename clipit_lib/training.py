"""One training loop, what it is given, and what stops it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clipit_lib import parallel
from clipit_lib.compute import autocast, device, on_device, stacked
from clipit_lib.data.patches import PatchDataset, Split, Transform, augment
from clipit_lib.encoders.encoder import TokenWindows, embed_windows
from clipit_lib.errors import Diverged
from clipit_lib.files import progress
from clipit_lib.inputs import Labels
from clipit_lib.losses import cosine_distance, cross_entropy, double_softmax
from clipit_lib.model import train_mode
from clipit_lib.settings import Descent, RunSpec, TextSpec

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
        if isinstance(spec, RunSpec):
            what = f"{spec.backbone}, {spec.setting}"
        else:
            what = f"reports paired by {spec.retriever}"
        return Stage(name, key, f"{spec.dataset}, {what}, seed {spec.seed}", start)

    def check(
        self, values: Mapping[str, float], when: str, rate: float, moved: bool = True
    ) -> None:
        """Stop, as Diverged, at the first of some numbers that is not finite; `moved` by a step."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(f"the {name} is {value}", when, rate, moved)

    def check_tensors(
        self, what: str, tensors: Iterable[Tensor], when: str, rate: float, moved: bool = True
    ) -> None:
        """The same of whole tensors, with one transfer from the device."""
        if not torch.stack([each.detach().isfinite().all() for each in tensors]).all():
            raise self._diverged(f"{what} are not all finite", when, rate, moved)

    def _diverged(self, what: str, when: str, rate: float, moved: bool) -> Diverged:
        fix = f"Lower {self.key}.learning_rate ({rate:g})"
        if self.key == "training":
            fix += ", or that of `training_for` if the data set has its own"
        if not moved:  # no learning rate has had a part in it yet
            fix = "Look for numbers that are not finite in the encoders' weights and the data"
        where = f"{self.name} of {self.of}"
        return Diverged(f"diverged: {what} {when}; nothing is stored", where, fix)

    def doubts(
        self, first: float, last: float, looks: Sequence[float] = (), start: float = math.inf
    ) -> tuple[str, ...]:
        """What makes a course doubtful that stayed finite, in plain words; () if nothing.

        Args:
            first, last: mean training loss at the beginning and at the end.
            looks, start: validation cross-entropy, in nats, of what may be kept and of the start.
        """
        said = []
        if looks and (best := min(looks)) >= start:
            than = f"is no better than {self.start} ({start:.4g})"
            said.append(f"the best look at validation ({best:.4g} nats) {than}")
        if last > RISE * first:
            said.append(f"the training loss rose from {first:.4g} to {last:.4g}")
        return tuple(f"{self.name} of {self.of}: {each}" for each in said)


def place(step: int, steps: int, epoch: int, epochs: int) -> str:
    return f"at step {step} of {steps} in epoch {epoch + 1} of {epochs}"


# -- One training loop for every setting.


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
    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Named parts of the loss of a batch of training rows [b]; their sum is minimised.

        Each of several processes gets the whole batch; it may return its share, see `parallel`.
        """

    def notes(self) -> dict[str, float]:
        """What else to write down at a look at validation; it is not minimised."""
        return {}

    @abstractmethod
    def validate(self) -> float:
        """Cross-entropy on validation, in nats; no text is read where the model reads none."""


def descend(
    learned: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer, epochs: int,
    batches: Callable[[int], Sequence[Any]], loss: Callable[[Any], dict[str, Tensor]],
    stage: Stage, clip: float = math.inf,
    after: Callable[[int, int, list[Row]], None] = lambda *_: None,
    looks: Collection[int] = (), name: str = "train",
) -> None:  # fmt: skip
    """The one loop: each step minimises the sum of a batch's named losses.

    Losses stay on the device until they are read: a step waits for nothing.

    Args:
        batches: those of one epoch, counted from 0.
        clip: largest norm of the gradient.
        after: called with epoch, step (from 1) and the losses since it was called last.
        looks: the steps of an epoch after which it is called, besides the last.

    Raises:
        Diverged: a loss, a gradient or a learned weight is not finite.
    """
    rate = float(optimiser.defaults["lr"])
    main = parallel.processes().is_main_process
    for epoch in progress(range(epochs), name, "epoch") if main else range(epochs):
        steps, unread = batches(epoch), list[Tensor]()
        for step, rows in enumerate(steps, start=1):
            parts = loss(rows)
            optimiser.zero_grad()
            losses = torch.stack(list(parts.values()))
            losses.sum().backward()
            parallel.mean(p.grad for p in learned if p.grad is not None)
            norm = nn.utils.clip_grad_norm_(learned, clip)
            optimiser.step()
            unread.append(torch.cat([losses.detach(), norm[None]]))
            if step not in looks and step < len(steps):
                continue
            table = torch.stack(unread)
            parallel.mean([table])
            seen = list[Row]()
            for at, (*values, size) in enumerate(table.tolist(), start=step + 1 - len(unread)):
                seen.append(dict(zip(parts, values, strict=True)))
                said = {f"{part} loss": value for part, value in seen[-1].items()}
                when = place(at, len(steps), epoch, epochs)
                stage.check(said | {"gradient's norm": size}, when, rate, epoch + at > 1)
            unread.clear()
            after(epoch, step, seen)
    stage.check_tensors("the learned weights", learned, "after the last step", rate)


def fit(
    task: Task, settings: Descent, seed: int, keep: str = "best", extra: nn.Module | None = None,
    stage: Stage | None = None, start: float | None = None, averaged: float | None = None,
) -> History:  # fmt: skip
    """Minimise a task's loss with Adam and leave the kept weights in `task.model`.

    Called by all processes of a launch, whose weights stay the same.

    Args:
        keep: `best` restores the weights with the lowest validation cross-entropy, `last` none.
        extra: a further module to learn that is not deployed (a moving target's text tower).
        start: validation cross-entropy, in nats, that every look should improve on; by default
            the task's own before the first step. No weights depend on it.
        averaged: decay per step of an exponential moving average of what is learned, from the start
            on (Polyak and Juditsky 1992); looks read it and it is kept in place of the weights.

    Returns:
        One row per look at validation: epoch, mean of each loss part since the last, validation.

    Raises:
        Diverged: a loss, a gradient, a look at validation or a learned weight is not finite.
    """
    stage, rate, passes = stage or Stage(), settings.learning_rate, settings.passes or 1
    modules = nn.ModuleList([task.model] if extra is None else [task.model, extra]).to(device())
    learned = [p for p in modules.parameters() if p.requires_grad]
    parallel.start_alike(learned)
    optimiser = torch.optim.Adam(learned, rate, weight_decay=settings.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(seed)
    steps, checks = round(task.rows * passes / settings.batch_size) or 1, settings.checks_per_epoch
    looks = {max(1, round(steps * (i + 1) / checks)) for i in range(checks)}
    mean: list[Tensor] = [*learned]  # without averaging the weights themselves
    if averaged is not None:
        mean, update = [p.detach().clone() for p in learned], get_ema_multi_avg_fn(averaged)
        optimiser.register_step_post_hook(lambda *_: update(mean, learned, None))
    kept, lowest, history = _learned(task.model), math.inf, History()
    if start is None:
        start = _look(task, modules, settings)
        stage.check({SCORE: start}, "before the first step", rate, moved=False)

    def batches(epoch: int) -> Sequence[Tensor]:
        train_mode(modules)
        task.begin(epoch)
        orders = [torch.randperm(task.rows, generator=generator) for _ in range(passes)]
        return torch.cat(orders).tensor_split(steps)

    def loss(rows: Tensor) -> dict[str, Tensor]:
        with autocast(settings.precision):
            return task.loss(task.model, rows, generator)

    def after(epoch: int, step: int, seen: list[Row]) -> None:
        nonlocal kept, lowest
        row = {"epoch": epoch + step / steps, **_means(seen), **task.notes()}
        _exchange(learned, mean)
        value = _look(task, modules, settings)
        stage.check({SCORE: value}, place(step, steps, epoch, settings.epochs), rate)
        if value < lowest:
            kept, lowest = _learned(task.model), value
        _exchange(learned, mean)
        history.append(row | {"validation": value})

    clip = settings.gradient_clip
    descend(learned, optimiser, settings.epochs, batches, loss, stage, clip, after, looks)
    _exchange(learned, mean)
    if keep == "best":
        task.model.load_state_dict(kept, strict=False)
    modules.eval()
    # Whole epochs are compared, which have the same rows; looks where there is one epoch only.
    whole = len(looks) if settings.epochs > 1 else 1
    part = list(history[0])[1]  # after the epoch
    first, last = (_means(rows)[part] for rows in (history[:whole], history[-whole:]))
    may_be_kept = history if keep == "best" else history[-1:]
    history.notes = stage.doubts(first, last, [row["validation"] for row in may_be_kept], start)
    return history


def _look(task: Task, modules: nn.Module, settings: Descent) -> float:
    modules.eval()
    with autocast(settings.precision):
        value = parallel.from_main(task.validate())
    train_mode(modules)
    return value


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what learns."""
    learned = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return {name: p.detach().clone() for name, p in learned}


def _exchange(learned: Iterable[Tensor], mean: Iterable[Tensor]) -> None:
    for own, other in zip(learned, mean, strict=True):
        own.data, other.data = other.data, own.data


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


# -- Text features to be distilled: fixed after stage one (the paper) or still moving (the code).


@dataclass(frozen=True)
class Targets:
    """Text features that do not learn, and which of them each training patch is to predict.

    Attributes:
        features: [m, e], or [epochs, m, e] where words are dropped anew in each epoch.
        report: [n] into m, or [epochs, n] where patches are paired anew in each epoch.
    """

    features: Float[Tensor, "... m e"]
    report: Int[Tensor, "... n"]

    def __call__(self, rows: Tensor, epoch: int) -> Float[Tensor, "b e"]:
        """The features to be distilled into the images of some training rows [b]."""
        features = self.features[epoch] if self.features.ndim == 3 else self.features
        report = self.report[epoch] if self.report.ndim == 2 else self.report
        return on_device(features[report[rows]])


@dataclass(frozen=True)
class MovingTargets:
    """Features from a text tower that keeps learning; a batch encodes its distinct reports once."""

    tower: nn.Module
    windows: TokenWindows
    report: Int[Tensor, " n"]

    def __call__(self, rows: Tensor, epoch: int) -> Float[Tensor, "b e"]:
        distinct, back = self.report[rows].unique(return_inverse=True)
        return embed_windows(self.tower, self.windows.select(distinct))[on_device(back)]


# -- What the training loop is given: images (with or without text targets), or features.


BLOCK = 64


@dataclass(frozen=True)
class Patches:
    """Some rows [m] of a data set's pixels uint8 [n, s, s, 3], with the labels to learn: [m], or
    [m, c] where they are soft.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: Int[Tensor, " m"] | Float[Tensor, "m c"]
    transform: Transform

    @classmethod
    def of(cls, dataset: PatchDataset, split: Split, transform: Transform) -> Patches:
        """All of one split, with the data set's own labels."""
        rows = dataset.indices(split)
        return cls(dataset.pixels, rows, torch.from_numpy(dataset.labels[rows]), transform)

    @classmethod
    def chosen(
        cls, dataset: PatchDataset, labels: Labels, transform: Transform, looks_at: int | None
    ) -> tuple[Patches, Patches]:
        """Those that a run learns from, and those that looks read."""
        train, held = (cls(dataset.pixels, e.rows, e.labels, transform) for e in labels.values())
        return train, held.some(looks_at)

    def some(self, count: int | None) -> Patches:
        """At most so many, of each label its share, the same in every run; all for None."""
        if count is None or len(self.rows) <= count:
            return self
        order = np.lexsort((np.random.default_rng(0).random(len(self.rows)), self.labels.numpy()))
        at = np.sort(order[np.arange(count) * len(order) // count])
        return replace(self, rows=self.rows[at], labels=self.labels[at])

    def batch(
        self, chosen: Tensor, generator: torch.Generator | None = None, share: Tensor | None = None
    ) -> Float[Tensor, "s 3 h w"]:
        """Normalised images of some rows [b], augmented if a generator is given.

        Args:
            share: positions in `chosen` to return; draws are made for all of it, so that they do
                not depend on the number of processes.
        """
        read = on_device(torch.from_numpy(self.pixels[self.rows[chosen.numpy()]]))
        images = read if generator is None else augment(read, generator)
        return self.transform(images if share is None else images[on_device(share)])


@dataclass(eq=False)
class ImageTask(Task):
    """Equation 4: cross-entropy on images, plus lambda times equation 3 where there are targets."""

    model: nn.Module
    train: Patches
    validation: Patches
    augmented: bool
    double_softmax: bool = False  # the released code's cross-entropy
    targets: Targets | MovingTargets | None = None
    distillation_weight: float = 0.0
    smoothing: float = 0.0  # as `mixup` of `RunSpec`
    mixup: float | None = None  # of what is classified; targets are not mixed

    def __post_init__(self) -> None:
        self.rows, self.epoch, self.spreads = len(self.train.rows), 0, list[Tensor]()

    def begin(self, epoch: int) -> None:
        self.epoch = epoch

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        own, share = parallel.share(len(rows))
        drawn = generator if self.augmented else None
        classify: Callable[..., Tensor] = partial(cross_entropy, smoothing=self.smoothing)
        classify = double_softmax if self.double_softmax else classify
        if self.mixup is None:
            output = model(self.train.batch(rows, drawn, own))
            loss = classify(output.logits, on_device(self.train.labels[rows[own]]))
        else:  # one weight per batch, as Zhang et al. (2018); the loss is linear in the labels
            draws = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
            weight, other = draws.beta(self.mixup, self.mixup), draws.permutation(len(rows))
            images, labels = self.train.batch(rows, drawn), on_device(self.train.labels[rows])
            output = model((weight * images + (1 - weight) * images[other])[own])
            first, second = (classify(output.logits, y[own]) for y in (labels, labels[other]))
            loss = weight * first + (1 - weight) * second
        parts = {"classification": share * loss}
        if self.targets is not None and output.distilled is not None:
            target = self.targets(rows, self.epoch)
            self.spreads.append(spread(target))
            distance = cosine_distance(output.distilled, target[on_device(own)])
            parts["distillation"] = share * self.distillation_weight * distance
        return parts

    def notes(self) -> dict[str, float]:
        """How far the targets of a batch lie apart: a moving target may collapse to one point."""
        seen, self.spreads = torch.stack(self.spreads).tolist() if self.spreads else [], []
        return {"target_spread": sum(seen) / len(seen)} if seen else {}

    def validate(self) -> float:
        logits = predict_logits(self.model, self.validation)
        return float(F.cross_entropy(logits, self.validation.labels))


def spread(features: Float[Tensor, "b e"]) -> Float[Tensor, ""]:
    """Total variance of features at unit length: 0 if all are one, at most 1."""
    unit = F.normalize(features.detach().float(), dim=-1)
    return 1 - unit.mean(dim=0).square().sum()


@torch.inference_mode()
def predict_logits(model: nn.Module, patches: Patches) -> Float[Tensor, "m c"]:
    """Logits of an image-only model, on the CPU; called by all processes of a launch."""
    return in_blocks(lambda images: model(images).logits.float(), patches)


def in_blocks(compute: Callable[[Tensor], Tensor], patches: Patches) -> Float[Tensor, "m d"]:
    """What is computed of each image, on the CPU; of several processes each computes its share."""
    state = parallel.processes()
    own = torch.arange(len(patches.rows))[state.process_index :: state.num_processes]
    parts = (compute(patches.batch(rows)).cpu() for rows in own.split(BLOCK))
    found = stacked(parts, len(own)).to(device() if state.num_processes > 1 else "cpu")
    return parallel.interleaved(found, len(patches.rows)).cpu()


@dataclass(eq=False)
class FeatureTask(Task):
    """A linear head on frozen features [n, d] with labels [n]."""

    model: nn.Linear
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        self.rows = len(self.train[1])

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        features, labels = on_device(self.train[0][rows]), on_device(self.train[1][rows])
        return {"classification": F.cross_entropy(model(features), labels)}

    @torch.inference_mode()
    def validate(self) -> float:
        features, labels = self.validation
        return float(F.cross_entropy(self.model(features.to(device())).cpu(), labels))
