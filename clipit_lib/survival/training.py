"""One fold: train on the other folds, choose the epoch on a part of them, predict the fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.losses import cosine_distance
from clipit_lib.survival.cohort import Cohort
from clipit_lib.survival.metrics import cox_loss
from clipit_lib.training import Task


@dataclass(frozen=True)
class PaddedSlides:
    """A cohort as tensors: n slides, padded to p patches of width d.

    Attributes:
        mask: False where a patch is padding.
    """

    patches: Float[Tensor, "n p d"]
    mask: Bool[Tensor, "n p"]
    time: Float[Tensor, " n"]
    event: Bool[Tensor, " n"]

    @staticmethod
    def of(cohort: Cohort) -> PaddedSlides:
        clinical = cohort.clinical
        return PaddedSlides(
            padded([bag.features for bag in cohort.bags]).to(device()),
            padded([np.ones(len(bag.features), bool) for bag in cohort.bags]).to(device()),
            torch.tensor(clinical["time"].to_numpy(np.float32, copy=True), device=device()),
            torch.tensor(clinical["event"].to_numpy(bool, copy=True), device=device()),
        )


@dataclass(frozen=True)
class TextTargets:
    """What is distilled: features [m, e] of the reports and which one each patch is paired with."""

    features: Float[Tensor, "m e"]
    report: Int[Tensor, "n p"]

    def of(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Target of every real patch of some slides, [patches, e]."""
        return self.features[self.report[rows][mask]]


def padded(parts: list[np.ndarray]) -> Tensor:
    """Arrays [p_i, ...] as one tensor [n, max p_i, ...], filled with zeros (False)."""
    return nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True)


def split_rows(
    cohort: Cohort, fold: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to choose the epoch by, and to predict; stratified by event.

    The same for every setting with this seed. Validation holds an event, whatever `share`.
    """
    rng = np.random.default_rng([seed, fold])
    held = (cohort.clinical["fold"] == fold).to_numpy()
    event = cohort.clinical["event"].to_numpy()
    validation = np.zeros(len(held), bool)
    for kind in (event, ~event):
        rows = rng.permutation(np.flatnonzero(~held & kind))
        validation[rows[: max(round(share * len(rows)), 1)]] = True
    return (
        np.flatnonzero(~held & ~validation),
        np.flatnonzero(validation),
        np.flatnonzero(held),
    )


class FoldTask(Task):
    """What `training.fit` minimises: Cox on the batch's risk set, and the distance to the text."""

    def __init__(
        self,
        model: nn.Module,
        slides: PaddedSlides,
        train: np.ndarray,
        validation: np.ndarray,
        targets: TextTargets | None,
        weight: float,
    ) -> None:
        self.model, self.slides, self.targets, self.weight = model, slides, targets, weight
        self.train, self.validation = torch.from_numpy(train), torch.from_numpy(validation)
        self.rows = len(train)

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        slides, chosen = self.slides, self.train[rows].to(device())
        mask = slides.mask[chosen]
        risk = model(slides.patches[chosen], mask)
        parts = {"cox": cox_loss(risk.log_risk, slides.time[chosen], slides.event[chosen])}
        if self.targets is not None:
            distance = cosine_distance(risk.distilled[mask], self.targets.of(chosen, mask))
            parts["distillation"] = self.weight * distance
        return parts

    def validate(self) -> float:
        rows = self.validation.to(device())
        risk = predict(self.model, self.slides, rows)
        return float(cox_loss(risk, self.slides.time[rows], self.slides.event[rows]))


@torch.no_grad()
def predict(
    model: nn.Module, slides: PaddedSlides, rows: Int[Tensor, " m"], block: int = 64
) -> Float[Tensor, " m"]:
    """Log risk of some slides, image only."""
    model.eval()
    return torch.cat(
        [model(slides.patches[part], slides.mask[part]).log_risk for part in rows.split(block)]
    )
