"""What the training loop is given: images (with or without text targets), or features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from clipit_lib import parallel
from clipit_lib.compute import device, stacked
from clipit_lib.data.transforms import Transform, augment
from clipit_lib.losses import CLASSIFICATION, cosine_distance
from clipit_lib.targets import Targets
from clipit_lib.training import Task

BLOCK = 64


@dataclass(frozen=True)
class Patches:
    """Some rows of a data set with the labels to learn.

    Attributes:
        pixels: [n, s, s, 3] uint8 of the whole data set.
        rows: [m] row numbers into `pixels`.
        labels: [m].
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: Int[Tensor, " m"]
    transform: Transform

    def batch(self, chosen: Tensor) -> Float[Tensor, "b 3 h w"]:
        """Normalised images."""
        return self.transform(self._read(chosen)).to(device())

    def share(
        self, chosen: Tensor, generator: torch.Generator | None = None
    ) -> Float[Tensor, "s 3 h w"]:
        """The images of a batch that this process computes; augmented if a generator is given."""
        mine = parallel.share(len(chosen))
        if generator is None:
            return self.batch(chosen[mine])
        # Drawn for the whole batch, so that the draws do not depend on the number of processes.
        return self.transform(augment(self._read(chosen), generator)[mine]).to(device())

    def _read(self, chosen: Tensor) -> UInt8[Tensor, "b s s 3"]:
        return torch.from_numpy(self.pixels[self.rows[chosen.numpy()]])


class ImageTask(Task):
    """Cross-entropy on images, plus lambda times equation 3 where there are targets (eq. 4)."""

    def __init__(
        self,
        model: nn.Module,
        train: Patches,
        validation: Patches,
        augmented: bool,
        classification: str = "cross_entropy",
        targets: Targets | None = None,
        distillation_weight: float = 0.0,
    ) -> None:
        self.model, self.train, self.validation = model, train, validation
        self.augmented, self.classification = augmented, CLASSIFICATION[classification]
        self.targets, self.weight = targets, distillation_weight
        self.spreads: list[float] = []
        self.rows = len(train.rows)

    def begin(self, epoch: int) -> None:
        if self.targets is not None:
            self.targets.begin(epoch)

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        output = model(self.train.share(rows, generator if self.augmented else None))
        logits = parallel.gathered(output.logits, len(rows))
        labels = self.train.labels[rows].to(device())
        parts = {"classification": self.classification(logits, labels)}
        if self.targets is not None and output.distilled is not None:
            target = self.targets(rows, generator)
            self.spreads.append(spread(target))
            distilled = parallel.gathered(output.distilled, len(rows))
            parts["distillation"] = self.weight * cosine_distance(distilled, target)
        return parts

    def notes(self) -> dict[str, float]:
        """How far the targets of a batch lie apart: a moving target may collapse to one point."""
        if not self.spreads:
            return {}
        seen, self.spreads = self.spreads, []
        return {"target_spread": sum(seen) / len(seen)}

    def validate(self) -> float:
        logits = predict_logits(self.model, self.validation)
        return float(F.cross_entropy(logits, self.validation.labels))


def spread(features: Float[Tensor, "b e"]) -> float:
    """Total variance of features at unit length: 0 if all are one, at most 1."""
    unit = F.normalize(features.detach().float(), dim=-1)
    return float(1 - unit.mean(dim=0).square().sum())


@torch.inference_mode()
def predict_logits(model: nn.Module, patches: Patches) -> Float[Tensor, "m c"]:
    """Logits of an image-only model, on the CPU; called by all processes of a launch."""
    return in_blocks(lambda images: model(images).logits.float(), patches)


def in_blocks(compute: Callable[[Tensor], Tensor], patches: Patches) -> Float[Tensor, "m d"]:
    """What is computed of each image, on the CPU; of each block a process computes its share."""
    blocks = torch.arange(len(patches.rows)).split(BLOCK * parallel.processes().num_processes)
    parts = (parallel.gathered(compute(patches.share(rows)), len(rows)).cpu() for rows in blocks)
    return stacked(parts, len(patches.rows))


class FeatureTask(Task):
    """A linear head on frozen features [n, d]."""

    def __init__(
        self, head: nn.Linear, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]
    ) -> None:
        self.model, self.train, self.validation = head, train, validation
        self.rows = len(train[1])

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        features, labels = self.train[0][rows].to(device()), self.train[1][rows].to(device())
        return {"classification": F.cross_entropy(model(features), labels)}

    @torch.inference_mode()
    def validate(self) -> float:
        features, labels = self.validation
        return float(F.cross_entropy(self.model(features.to(device())).cpu(), labels))
