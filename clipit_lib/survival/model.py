"""Attention MIL with a Cox head, alone and with the branch of CLIP-IT.

Shapes: b slides, p patches (padded to the largest slide), d feature width, e text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Risk:
    """What an image-only forward pass gives.

    Attributes:
        log_risk: [b], log hazard up to a constant.
        attention: [b, p], what the visual branch attends to; sums to 1 a slide.
        distilled: [b, p, e], predicted text features h_d(v); None without a text branch.
    """

    log_risk: Tensor
    attention: Tensor
    distilled: Tensor | None = None


class AttentionMil(nn.Module):
    """Gated attention pooling and a linear Cox head (Ilse et al. 2018, equations 8 and 9).

    h = ReLU(W v); attention a ~ exp(w^T (tanh(V h) * sigmoid(U h))) over the patches of a slide;
    log risk = c^T sum_k a_k h_k. The head has no bias: the Cox likelihood does not see one.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.content, self.gate = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.cox = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, patches: Float[Tensor, "b p w"], mask: Bool[Tensor, "b p"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b p"]]:
        """Log risk and attention; `mask` is False where a patch is padding."""
        hidden = self.hidden(patches)  # [b, p, hidden]
        gated = torch.tanh(self.content(hidden)) * torch.sigmoid(self.gate(hidden))
        scores = self.score(gated).squeeze(-1).masked_fill(~mask, float("-inf"))  # [b, p]
        attention = scores.softmax(dim=-1)
        pooled = torch.einsum("bp,bph->bh", attention, hidden)
        return self.cox(pooled).squeeze(-1), attention


class Unimodal(nn.Module):
    """Attention MIL over the patch features v."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.visual = AttentionMil(width, hidden, dropout)

    def forward(self, patches: Float[Tensor, "b p d"], mask: Bool[Tensor, "b p"]) -> Risk:
        return Risk(*self.visual(patches, mask))


class ClipItSurvival(nn.Module):
    """log risk = g([r_v, r_t]): r_v from v, r_t from a second attention branch over h_d(v).

    No text enters the forward pass. As in `ClipIt`, h_d(v) is brought to unit length before its
    branch, and g starts as the average of both.
    """

    def __init__(self, width: int, text_width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.visual = AttentionMil(width, hidden, dropout)
        self.distillation = nn.Linear(width, text_width)
        self.text = AttentionMil(text_width, hidden, dropout)
        self.fusion = nn.Linear(2, 1, bias=False)
        nn.init.constant_(self.fusion.weight, 0.5)

    def forward(self, patches: Float[Tensor, "b p d"], mask: Bool[Tensor, "b p"]) -> Risk:
        visual, attention = self.visual(patches, mask)
        distilled = self.distillation(patches)  # [b, p, e]
        text, _ = self.text(F.normalize(distilled, dim=-1), mask)
        both = torch.stack([visual, text], dim=-1)  # [b, 2]
        return Risk(self.fusion(both).squeeze(-1), attention, distilled)
