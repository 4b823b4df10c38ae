"""The losses, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(logits: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """Equation 2: mean negative log-probability of the true class, in nats."""
    return F.cross_entropy(logits.float(), labels)


def double_softmax(logits: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """What the released code computes: cross-entropy of softmax(logits) taken as logits."""
    return F.cross_entropy(logits.float().softmax(dim=-1), labels)


def cosine_distance(
    predicted: Float[Tensor, "b d"], target: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Equation 3, averaged over the batch: 1 - cos(predicted, target)."""
    return (1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1)).mean()


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


def contrastive(
    images: Float[Tensor, "b d"],
    texts: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    groups: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss of CLIP; other pairs of the same group are left out, if given.

    Patches of a class share one prompt. Taken as negatives, they ask for what cannot be: with n of
    a class in a batch the loss does not fall below log n for them. Without groups they are taken.
    """
    logits = scale * images.float() @ texts.float().T
    count = len(images)
    if groups is not None:
        other = ~torch.eye(count, dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill((groups[:, None] == groups[None, :]) & other, float("-inf"))
    own = torch.arange(count, device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def normalised_temperature(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], temperature: float = 0.2
) -> Float[Tensor, ""]:
    """NT-Xent of SimCLR: two views of a patch attract, all other patches repel."""
    both = F.normalize(torch.cat([first, second]).float(), dim=-1)
    logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -1e9)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(logits, partner)


CLASSIFICATION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "double_softmax": double_softmax,
}
