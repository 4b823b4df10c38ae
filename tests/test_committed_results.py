"""Every committed table follows from the predictions committed beside it."""

from pathlib import Path

import pandas as pd
import pytest

from clipit_lib.archive import recomputed
from clipit_lib.paths import repository

ARCHIVES = sorted((repository() / "results").glob("*/predictions.parquet"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.parent.name)
def test_table1_is_recomputed(archive: Path) -> None:
    stored = pd.read_csv(archive.parent / "tables" / "table1.csv").set_index("run")
    found = recomputed(archive).set_index("run").loc[stored.index]
    names = ["accuracy", "balanced_accuracy"]
    pd.testing.assert_frame_equal(found[names], stored[names], atol=1e-4, rtol=0)


def test_there_are_committed_results() -> None:
    assert {"demo", "pilot"} <= {path.parent.name for path in ARCHIVES}
