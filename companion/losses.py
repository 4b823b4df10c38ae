"""Losses that the encoders trained here learn from; those of the method are in `clipit_lib`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def supervised_contrastive(
    images: Float[Tensor, "b d"],
    texts: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    groups: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric image-text contrastive loss of CLIP on unit-length embeddings.

    Pairs of the same group are no negatives of each other: they share the positive mass. Without
    groups only the diagonal is positive, as in CLIP.
    """
    logits = scale * images.float() @ texts.float().T
    count = len(images)
    same = (
        torch.eye(count, device=logits.device)
        if groups is None
        else (groups[:, None] == groups[None, :]).float()
    )
    target = same / same.sum(dim=1, keepdim=True)
    one_way = F.cross_entropy(logits, target)
    return (one_way + F.cross_entropy(logits.T, target)) / 2


def normalised_temperature(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], temperature: float = 0.2
) -> Float[Tensor, ""]:
    """NT-Xent of SimCLR: two views of a patch attract, all other patches repel."""
    both = F.normalize(torch.cat([first, second]).float(), dim=-1)
    logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -1e9)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(logits, partner)
