"""Predictions of one run, and how well they agree with the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipit_lib.data.patches import PatchDataset, Split

# -- Metrics, from stored predictions only.


LOGIT = "logit_"


def predictions_frame(
    ids: list[str],
    groups: list[str],
    labels: Int[np.ndarray, " n"],
    logits: Float[np.ndarray, "n c"],
    split: str,
) -> pd.DataFrame:
    """Raw predictions: split, sample, group, label and one logit column a class."""
    frame = pd.DataFrame({"split": split, "sample": ids, "group": groups, "label": labels})
    scores = pd.DataFrame(logits, columns=[f"{LOGIT}{c}" for c in range(logits.shape[1])])
    return pd.concat([frame, scores.astype(np.float32)], axis=1)


def correct(predictions: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Whether the highest logit is the true class; equal logits go to the lower class."""
    logits = predictions.filter(like=LOGIT).to_numpy()
    hits: np.ndarray = logits.argmax(axis=1) == predictions["label"].to_numpy()
    return hits


def accuracy(predictions: pd.DataFrame) -> float:
    """Share of samples that are right, in percent."""
    return 100 * float(correct(predictions).mean())


def balanced_accuracy(predictions: pd.DataFrame) -> float:
    """Mean over classes of the share that is right, in percent.

    The released code reports this under the name accuracy.
    """
    hits = pd.Series(correct(predictions)).groupby(predictions["label"].to_numpy()).mean()
    return 100 * float(hits.mean())


# -- What a run leaves.


State = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """Learned tensors, the course of training, raw predictions on validation and test.

    `notes` say in plain words what makes the course doubtful.
    """

    state: State
    history: list[dict[str, float]]
    predictions: pd.DataFrame
    notes: tuple[str, ...] = ()


def raw_predictions(dataset: PatchDataset, split: Split, logits: np.ndarray) -> pd.DataFrame:
    """Logits [m, c] of one split as stored predictions, with the data set's own labels."""
    samples = dataset.samples.iloc[dataset.indices(split)]
    return predictions_frame(
        samples["id"].tolist(), samples["group"].tolist(), samples["label"].to_numpy(), logits,
        split,
    )  # fmt: skip


def predicted(dataset: PatchDataset, logits: Callable[[Split], np.ndarray]) -> pd.DataFrame:
    """Raw predictions on validation and test, from the logits [m, c] of each."""
    splits: tuple[Split, ...] = ("validation", "test")
    frames = [raw_predictions(dataset, split, logits(split)) for split in splits]
    return pd.concat(frames, ignore_index=True)
