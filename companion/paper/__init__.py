"""What the paper reports."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

# -- The paper's numbers as data (arXiv 2504.16181; WACV 2026 text of Tables 1 and 2).


HERE = Path(__file__).parent

# Which data set of the paper one of ours is, or as a phantom mirrors. Beside a phantom the paper's
# numbers stand for orientation only: its accuracy is not comparable with tissue.
MIRRORS = {name: name.rsplit("-", 1)[-1].upper() for name in (
    "pcam", "bach", "crc", "phantom-pcam", "phantom-bach", "phantom-crc",
)}  # fmt: skip


def table1() -> pd.DataFrame:
    """Table 1, one row per cell: dataset, backbone, setting, mean, sd (accuracy in percent, the
    released code's balanced accuracy; three runs)."""
    return pd.read_csv(HERE / "table1.csv")


def gains() -> pd.Series:
    """CLIP-IT minus unimodal in points, by the data set and backbone of each cell of Table 1."""
    cells = table1().pivot(index=["dataset", "backbone"], columns="setting", values="mean")
    return cells["clip_it"] - cells["unimodal"]


# -- The paper's numbers in Tables 2, 6, 7 and Figure 5 (accuracies in percent).


def table2() -> pd.DataFrame:
    """Table 2, one row per cell: dataset, backbone (a CLIP), setting, mean, sd (three runs)."""
    return pd.read_csv(HERE / "table2.csv")


def figure5() -> pd.DataFrame:
    """What section 5 prints of Figure 5 (UNI on PCAM, one number each): setting, accuracy.

    Its other bars exist only as pixels.
    """
    return pd.read_csv(HERE / "figure5.csv")


def table6() -> pd.DataFrame:
    """Table 6, the text classifier on different texts: dataset, setting, accuracy."""
    return pd.read_csv(HERE / "table6.csv")


def table7() -> pd.DataFrame:
    """Table 7 on PCAM: backbone, setting (unimodal, or reports_retriever), accuracy.

    The paper swaps the labels of ViT-S16 and ViT-B16 relative to its Table 1; they are kept as
    printed and marked so.
    """
    return pd.read_csv(HERE / "table7.csv")


# -- The paper's numbers on cost: Table 5 (parameters) and section 5's paragraph on compute.


def parameters() -> pd.DataFrame:
    """Table 5, one row per model: backbone, parameters_M (millions, as printed, without heads)."""
    return pd.read_csv(HERE / "table5.csv")


def compute() -> pd.DataFrame:
    """One row per way to deploy CONCH: variant, gflops (multiply-adds, which the paper calls
    FLOPs), latency_ms (batch 1 on an RTX A6000)."""
    return pd.read_csv(HERE / "compute.csv")


def pareto_points() -> pd.DataFrame:
    """Cells of Tables 1 and 2 with the parameters that Table 5 prints: dataset, backbone, setting,
    mean, low, high (one standard deviation either side; percent), parameters (single numbers).

    Table 5 prints millions without heads, so settings of one backbone cost the same here; a
    contrastive model holds both towers.
    """
    cells = pd.concat([table1(), table2()], ignore_index=True)
    held = dict(zip(parameters()["backbone"], parameters()["parameters_M"], strict=True))
    tower = cells["backbone"] + "_vision"
    one_tower = tower.isin(held.keys()) & (cells["setting"] != "contrastive")
    model = tower.where(one_tower, cells["backbone"])
    low, high = cells["mean"] - cells["sd"], cells["mean"] + cells["sd"]
    return cells.assign(low=low, high=high, parameters=1e6 * model.map(held)).drop(columns="sd")
