"""Raw test predictions of a profile in one small file, so that tables can be checked anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clipit_lib import paths
from clipit_lib.evaluation import accuracy, balanced_accuracy
from clipit_lib.files import written_beside
from clipit_lib.runs import StoredRun


def archive(profile: str, runs: Sequence[StoredRun]) -> Path:
    """Write results/PROFILE/predictions.parquet: the runs' keys with every test prediction."""
    frames = [run.predictions().assign(run=run.key) for run in runs]
    frame = pd.concat(frames, ignore_index=True)
    names = ["run", "split", "sample", "group"]
    frame[names] = frame[names].astype("category")
    path = paths.results(profile) / "predictions.parquet"
    with written_beside(path) as temporary:
        frame.to_parquet(temporary, compression="zstd", index=False)
    return path


def recomputed(path: Path) -> pd.DataFrame:
    """Accuracies of every archived run: run, accuracy, balanced_accuracy (percent)."""
    frame = pd.read_parquet(path)
    rows = [
        # Runs of data sets with fewer classes leave logit columns empty.
        (key, accuracy(own), balanced_accuracy(own))
        for key, run in frame.groupby("run", observed=True)
        for own in [run.dropna(axis=1, how="all")]
    ]
    return pd.DataFrame(rows, columns=["run", "accuracy", "balanced_accuracy"])
