"""The losses, by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Labels = Int[Tensor, " b"] | Float[Tensor, "b c"]  # the latter are soft


def cross_entropy(
    logits: Float[Tensor, "b c"], labels: Labels, smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Equation 2: mean negative log-probability of the true class, or a smoothed one, in nats."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def double_softmax(logits: Float[Tensor, "b c"], labels: Labels) -> Float[Tensor, ""]:
    """What the released code computes: cross-entropy of softmax(logits) taken as logits."""
    return F.cross_entropy(logits.float().softmax(dim=-1), labels)


def cosine_distance(
    predicted: Float[Tensor, "b d"], target: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Equation 3, averaged over the batch: 1 - cos(predicted, target)."""
    return (1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1)).mean()


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
