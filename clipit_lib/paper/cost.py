"""The paper's numbers on cost: Table 5 (parameters) and section 5's paragraph on compute."""

from __future__ import annotations

import pandas as pd

from clipit_lib.paper import HERE, table1
from clipit_lib.paper.further import table2


def parameters() -> pd.DataFrame:
    """Table 5, one row a model: backbone, parameters_M (millions, as printed, without heads)."""
    return pd.read_csv(HERE / "table5.csv")


def compute() -> pd.DataFrame:
    """One row a way to deploy CONCH: variant, gflops (multiply-adds, which the paper calls FLOPs),
    latency_ms (batch 1 on an RTX A6000)."""
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
