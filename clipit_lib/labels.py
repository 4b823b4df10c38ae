"""Which patches and labels a run learns from and is chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipit_lib.data.contract import PatchDataset
from clipit_lib.settings import Labelled


@dataclass(frozen=True)
class Labels:
    """Rows and labels of what is learned from and chosen by, after subsampling and noise."""

    train: np.ndarray
    train_labels: Tensor
    validation: np.ndarray
    validation_labels: Tensor


def choose_labels(spec: Labelled, dataset: PatchDataset) -> Labels:
    """Take `labels_per_class` training patches of each class and flip a share of all labels.

    Flips reach training and validation alike, as they would in life; never the test split.
    """
    rng = np.random.default_rng([spec.seed, 1])
    train, validation = dataset.indices("train"), dataset.indices("validation")
    if spec.labels_per_class is not None:
        train = _some_of_each(dataset, train, spec.labels_per_class, rng)
    if spec.validation_per_class is not None:
        draws = np.random.default_rng([spec.seed, 7])
        validation = _some_of_each(dataset, validation, spec.validation_per_class, draws)
    noisy = [
        torch.from_numpy(_flip(dataset.labels[rows], len(dataset.classes), spec.label_noise, rng))
        for rows in (train, validation)
    ]
    return Labels(train, noisy[0], validation, noisy[1])


def _some_of_each(
    dataset: PatchDataset, rows: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """At most `count` random rows of each class, ascending."""
    of_class = [rows[dataset.labels[rows] == c] for c in range(len(dataset.classes))]
    return np.sort(np.concatenate([rng.permutation(part)[:count] for part in of_class]))


def _flip(labels: np.ndarray, classes: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a share of the labels by another class, drawn evenly from the other classes."""
    flipped = rng.random(len(labels)) < share
    other = (labels + rng.integers(1, classes, size=len(labels))) % classes
    return np.where(flipped, other, labels).astype(np.int64)
