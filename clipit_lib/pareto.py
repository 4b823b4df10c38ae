"""Which models nothing cheaper matches: the frontier of cost and accuracy (Figure 3)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Real

from clipit_lib.names import label

CELL = ["dataset", "backbone", "setting"]
COST_COLUMNS = [
    "parameters_deployed", "flops", "gflops", "parameters_encoded", "flops_encoded",
]  # fmt: skip

# A cost, the same with prompts encoded for each image, and its name.
COSTS = (
    ("parameters_deployed", "parameters_encoded", "deployed parameters"),
    ("flops", "flops_encoded", "operations"),
)


def pareto_front(
    cost: Real[np.ndarray, " n"], value: Real[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Points that no other point dominates: as cheap and as good, and better in one of the two.

    Equal points are on the frontier together.

    Raises:
        ValueError: a number is not finite.
    """
    if not (np.isfinite(cost).all() and np.isfinite(value).all()):
        raise ValueError("costs and values must be finite")
    if len(cost) == 0:
        return np.zeros(0, dtype=bool)
    costs, place = np.unique(cost, return_inverse=True)
    best = np.full(len(costs), -np.inf)
    np.maximum.at(best, place, value)
    cheaper = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])
    return (value == best[place]) & (value > cheaper[place])


def cell_points(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell of a tidy table of runs joined with `cost_columns`.

    Columns: dataset, backbone, setting, mean, low, high (balanced accuracy in percent: mean,
    lowest and highest over seeds), and the costs, which are the same for every seed.
    """
    cells = runs.groupby(CELL, sort=False)
    points = cells["balanced_accuracy"].agg(mean="mean", low="min", high="max")
    return points.join(cells[COST_COLUMNS].first()).reset_index()


def with_front(points: pd.DataFrame, cost: str, column: str) -> pd.DataFrame:
    """`points` with a column more: whether a cell is on its data set's frontier by `cost`."""
    marked = points.assign(**{column: False})
    for _, rows in points.groupby("dataset"):
        front = pareto_front(rows[cost].to_numpy(), rows["mean"].to_numpy())
        marked.loc[rows.index, column] = front
    return marked


def front_sentences(points: pd.DataFrame, cost: str) -> str:
    """One Markdown item a data set: its frontier from cheap to dear, and CLIP-IT's part in it."""
    items = []
    for dataset, rows in with_front(points, cost, "on_front").groupby("dataset", sort=False):
        front = rows[rows["on_front"]].sort_values(cost)
        steps = ", ".join(
            f"{row['backbone']} {label(row['setting'])} ({row['mean']:.1f})"
            for _, row in front.iterrows()
        )
        ours = (front["setting"] == "clip_it").sum()
        items.append(f"- {dataset}: {steps}; CLIP-IT in {ours} of {len(front)}.")
    return "\n".join(items)


def words(points: pd.DataFrame) -> str:
    """The frontiers by parameters and by operations, and whether cached prompts decide them."""
    parts = []
    for cost, other, name in COSTS:
        parts.append(f"Frontier by {name}:\n\n{front_sentences(points, cost)}")
        parts.append(f"With prompts encoded for each image: {changed_by(points, cost, other)}.")
    return "\n\n".join(parts)


def changed_by(points: pd.DataFrame, cost: str, other: str) -> str:
    """In words, which cells enter or leave the frontier if `other` is counted, not `cost`."""
    before = with_front(points, cost, "on_front")["on_front"]
    after = with_front(points, other, "on_front")["on_front"]
    parts = []
    for rows, verb in ((points[before & ~after], "leaves"), (points[after & ~before], "enters")):
        parts += [
            f"{row['backbone']} {label(row['setting'])} {verb} ({row['dataset']})"
            for _, row in rows.iterrows()
        ]
    return ", ".join(parts) or "the same models"


def reading_table(points: pd.DataFrame) -> pd.DataFrame:
    """The cells to read, by data set and cost; frontiers are marked."""
    ordered = points.sort_values(["dataset", "parameters_deployed"], kind="stable")
    return pd.DataFrame(
        {
            "data set": ordered["dataset"],
            "backbone": ordered["backbone"],
            "setting": ordered["setting"].map(label),
            "balanced accuracy (%), range over seeds": [
                f"{mean:.1f} ({low:.1f} to {high:.1f})"
                for mean, low, high in ordered[["mean", "low", "high"]].to_numpy()
            ],
            "parameters": ordered["parameters_deployed"].map("{:,}".format),
            "GFLOPs": ordered["gflops"].map("{:.3g}".format),
            "on the frontier by": [
                ", ".join(n for n, on in (("parameters", a), ("FLOPs", b)) if on)
                for a, b in ordered[["on_front_parameters", "on_front_gflops"]].to_numpy()
            ],
        }
    )
