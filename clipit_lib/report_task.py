"""Learning a text classifier from paired reports (equation 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.encoders.tokens import TokenWindows, embed_windows
from clipit_lib.model import TextHead
from clipit_lib.training import Task

BLOCK = 64


class TextClassifier(nn.Module):
    """f_t and h_t of equation 2: token windows of m texts to logits [m, c]."""

    def __init__(self, tower: nn.Module, text_width: int, classes: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = TextHead(text_width, classes)

    def forward(self, windows: TokenWindows) -> Float[Tensor, "m c"]:
        logits: Tensor = self.head(embed_windows(self.tower, windows))
        return logits


class ReportTask(Task):
    """Equation 2, gathered by distinct report: sum over r, c of n_rc CE(h_t(f_t(r)), c) / N.

    N patches that share M reports give the same objective in M text passes instead of N.

    Args:
        counts: [m, c] training patches of class c that are paired with report r.
        validation_counts: the same for validation.
        redraw: windows to learn from, by epoch, if they change; validation reads whole texts.
    """

    def __init__(
        self,
        model: TextClassifier,
        windows: TokenWindows,
        counts: Float[Tensor, "m c"],
        validation_counts: Float[Tensor, "m c"],
        classification: str = "cross_entropy",
        redraw: Callable[[int], TokenWindows] | None = None,
    ) -> None:
        self.model, self.windows, self.redraw = model, windows, redraw
        self.read = windows
        self.used = torch.nonzero(counts.sum(dim=1)).flatten()
        self.counts, self.validation_counts = counts[self.used], validation_counts
        self.double = classification == "double_softmax"
        self.rows = len(self.used)

    def begin(self, epoch: int) -> None:
        if self.redraw is not None:
            self.read = self.redraw(epoch)

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        windows = self.read.select(self.used[rows])
        # Batches share the objective: weights of an epoch's batches sum to the number of rows.
        weights = self.counts[rows] * (self.rows / len(rows) / self.counts.sum())
        logits = model(windows)
        if self.double:
            logits = logits.float().softmax(dim=-1)
        return {"classification": weighted_cross_entropy(logits, weights.to(device()))}

    @torch.inference_mode()
    def validate(self) -> float:
        used = torch.nonzero(self.validation_counts.sum(dim=1)).flatten()
        counts = self.validation_counts[used]
        logits = torch.cat([self.model(self.windows.select(part)) for part in used.split(BLOCK)])
        return float(weighted_cross_entropy(logits.cpu(), counts / counts.sum()))


def weighted_cross_entropy(
    logits: Float[Tensor, "m c"], weights: Float[Tensor, "m c"]
) -> Float[Tensor, ""]:
    """Sum over reports and classes of weight times negative log-probability, in nats."""
    return -(weights * logits.float().log_softmax(dim=-1)).sum()
