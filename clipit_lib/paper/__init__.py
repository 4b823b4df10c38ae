"""The paper's numbers as data (arXiv 2504.16181; WACV 2026 text of Tables 1 and 2)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent

# Which data set of the paper one of ours is, or as a phantom mirrors. Beside a phantom the paper's
# numbers stand for orientation only: its accuracy is not comparable with tissue.
MIRRORS = {name: name.rsplit("-", 1)[-1].upper() for name in (
    "pcam", "bach", "crc", "phantom-pcam", "phantom-bach", "phantom-crc",
)}  # fmt: skip


def table1() -> pd.DataFrame:
    """Table 1, one row a cell: dataset, backbone, setting, mean, sd (accuracy in percent, the
    released code's balanced accuracy; three runs)."""
    return pd.read_csv(HERE / "table1.csv")


def mean_gain(dataset: str) -> float:
    """Mean over backbones of CLIP-IT minus unimodal in Table 1, in percentage points."""
    cells = (
        table1()
        .query("dataset == @dataset")
        .pivot(index="backbone", columns="setting", values="mean")
    )
    return float((cells["clip_it"] - cells["unimodal"]).mean())


def gain(dataset: str, backbone: str) -> float | None:
    """CLIP-IT minus unimodal of one cell of Table 1, in points; None if there is no such cell."""
    cell = table1().query("dataset == @dataset and backbone == @backbone").set_index("setting")
    return None if cell.empty else float(cell["mean"]["clip_it"] - cell["mean"]["unimodal"])
