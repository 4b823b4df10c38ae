"""The unimodal baseline: a linear probe on the frozen backbone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.compute import seeded
from clipit_lib.divergence import Stage
from clipit_lib.settings import Probe
from clipit_lib.tasks import FeatureTask
from clipit_lib.training import History, fit


def linear_probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    validation: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
    classes: int,
    settings: Probe,
    seed: int,
    stage: Stage | None = None,
) -> tuple[nn.Linear, History]:
    """A linear head on frozen features, chosen on validation.

    It is the baseline of Table 1, and where LoRA-only and CLIP-IT start their h_v.
    """
    with seeded(seed):
        head = nn.Linear(train[0].shape[1], classes)
    history = fit(FeatureTask(head, train, validation), settings, seed, stage=stage)
    return head.cpu(), history


def as_tensors(features: object, labels: object) -> tuple[Tensor, Tensor]:
    """NumPy features [n, d] and labels [n] as tensors."""
    return torch.as_tensor(features), torch.as_tensor(labels)
