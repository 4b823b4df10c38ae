"""How well the classes part in a space of features, in numbers and as a picture (appendix F.2)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from clipit_lib.errors import ClipItError

Features = Float[np.ndarray, "m d"]
Labels = Int[np.ndarray, " m"]
TIE = 1e-6  # cosines closer than this are one similarity: rounding must not choose a neighbour


def unit_length(features: Features) -> Features:
    """Each row divided by its length; a row of zeros stays."""
    normalised: np.ndarray = F.normalize(torch.from_numpy(features), dim=-1).numpy()
    return normalised


def balanced_sample(labels: Labels, most: int, seed: int) -> Int[np.ndarray, " k"]:
    """At most `most` positions, ascending, as many of each class as the classes' sizes allow."""
    rng = np.random.default_rng(seed)
    of_class = [rng.permutation(np.flatnonzero(labels == each)) for each in np.unique(labels)]
    kept: list[np.ndarray] = []
    # The smallest class first: what it cannot fill is shared by the others.
    for place, rows in enumerate(sorted(of_class, key=len)):
        room = most - sum(map(len, kept))
        kept.append(rows[: room // (len(of_class) - place)])
    return np.sort(np.concatenate(kept))


def knn_purity(features: Features, labels: Labels, k: int = 10) -> float:
    """Mean share of a sample's k nearest others, by cosine, that are of its class, in 0..1.

    Samples that tie for the last places share them: patches with the same report have the same
    text features, and their order in the data set must not decide.

    Raises:
        ClipItError: fewer than k others.
    """
    if not 1 <= k < len(features):
        raise ClipItError(f"{k} neighbours among {len(features)} samples", "k", "Ask for fewer")
    unit = unit_length(features)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    border = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]  # [m, 1], the k-th largest
    nearer = similarity > border + TIE
    tied = ~nearer & (similarity > border - TIE)
    places = k - nearer.sum(axis=1)
    same = labels[:, None] == labels[None, :]
    of_class = (nearer & same).sum(axis=1) + places * (tied & same).sum(axis=1) / tied.sum(axis=1)
    return float((of_class / k).mean())


def chance_purity(labels: Labels) -> float:
    """The expected purity when neighbours are drawn from all others, in 0..1."""
    _, counts = np.unique(labels, return_counts=True)
    count = counts.sum()
    return float((counts * (counts - 1)).sum() / (count * (count - 1)))


def silhouette(features: Features, labels: Labels) -> float:
    """Mean silhouette by cosine distance, in -1..1: 0 where classes overlap."""
    return float(silhouette_score(unit_length(features), labels, metric="cosine"))


def project(features: Features, seed: int, perplexity: float = 30.0) -> Float[np.ndarray, "m 2"]:
    """t-SNE of unit-length features to the plane; distances in it prove nothing.

    Args:
        perplexity: lowered to a quarter of the samples where they are few.
    """
    unit = unit_length(features)
    if np.ptp(unit, axis=0).max() < TIE:  # one point: principal components do not exist
        return np.zeros((len(unit), 2))
    smaller = min(perplexity, len(unit) / 4)
    plane: np.ndarray = TSNE(perplexity=smaller, init="pca", random_state=seed).fit_transform(unit)
    return plane
