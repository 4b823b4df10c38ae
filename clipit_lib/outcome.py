"""What a run leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from clipit_lib.data.contract import PatchDataset, Split
from clipit_lib.evaluation import predictions_frame
from clipit_lib.training import Row

State = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """Learned tensors, the course of training, raw predictions on validation and test.

    `notes` say in plain words what makes the course doubtful.
    """

    state: State
    history: list[Row]
    predictions: pd.DataFrame
    notes: tuple[str, ...] = ()


def raw_predictions(dataset: PatchDataset, split: Split, logits: np.ndarray) -> pd.DataFrame:
    """Logits [m, c] of one split as stored predictions, with the data set's own labels."""
    samples = dataset.samples.iloc[dataset.indices(split)]
    return predictions_frame(
        samples["id"].tolist(), samples["group"].tolist(), samples["label"].to_numpy(), logits,
        split,
    )  # fmt: skip
