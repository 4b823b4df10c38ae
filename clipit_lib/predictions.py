"""Predictions of one run, raw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from clipit_lib.data.patches import PatchDataset, Split
from clipit_lib.lora import State

LOGIT = "logit_"


def predictions_frame(
    ids: list[str], groups: list[str], labels: Int[np.ndarray, " n"],
    logits: Float[np.ndarray, "n c"], split: str,
) -> pd.DataFrame:  # fmt: skip
    """Raw predictions: split, sample, group, label and one logit column a class."""
    frame = pd.DataFrame({"split": split, "sample": ids, "group": groups, "label": labels})
    scores = pd.DataFrame(logits, columns=[f"{LOGIT}{c}" for c in range(logits.shape[1])])
    return pd.concat([frame, scores.astype(np.float32)], axis=1)


# -- What a run leaves.


@dataclass(frozen=True)
class Outcome:
    """Learned tensors, the course of training, raw predictions on validation and test.

    `notes` say in plain words what makes the course doubtful.
    """

    state: State
    history: list[dict[str, float]]
    predictions: pd.DataFrame
    notes: tuple[str, ...] = ()


def predicted(dataset: PatchDataset, logits: Callable[[Split], np.ndarray]) -> pd.DataFrame:
    """Raw predictions on validation and test, from the logits [m, c] of each; own labels."""
    splits: tuple[Split, ...] = ("validation", "test")
    parts = [dataset.samples.iloc[dataset.indices(split)] for split in splits]
    frames = [
        predictions_frame([*own["id"]], [*own["group"]], own["label"].to_numpy(), logits(s), s)
        for s, own in zip(splits, parts, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)
