"""The gain of CLIP-IT over the probe, split into what each step adds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from clipit_lib import tables
from clipit_lib.runs import StoredRun
from clipit_lib.statistics import Interval

# From the probe to CLIP-IT, one change at a time; each step is named after what it adds.
STEPS: tuple[tuple[str, str, str], ...] = (
    ("LoRA", "unimodal", "lora_only"),
    ("the branch, no text", "lora_only", "clip_it/architecture_only"),
    ("any report as target", "clip_it/architecture_only", "clip_it/random_reports"),
    ("the matched report", "clip_it/random_reports", "clip_it"),
)
WHOLE = ("all together", "unimodal", "clip_it")


def decomposition(stored: Sequence[StoredRun], draws: int) -> pd.DataFrame:
    """One row a cell and step: dataset, backbone, first, second, gain, low, high, step.

    The steps of a cell sum to its whole.
    """
    frames = []
    for step, first, second in (*STEPS, WHOLE):
        pair = [run for run in stored if run.spec.setting in (first, second)]
        frames.append(tables.gain_table(pair, [(first, second)], draws).assign(step=step))
    return pd.concat(frames, ignore_index=True)


def decomposition_words(found: pd.DataFrame) -> str:
    """One Markdown item a cell: every step with its interval, and which are surely not zero."""
    lines = []
    for (dataset, backbone), rows in found.groupby(tables.CELL, sort=False):
        said = [
            f"{row['step']} {Interval(row['gain'], row['low'], row['high'])}"
            for _, row in rows.iterrows()
        ]
        steps = rows[rows["step"] != WHOLE[0]]
        sure = steps[(steps["low"] > 0) | (steps["high"] < 0)]["step"]
        which = ", ".join(sure) or "none"
        lines.append(
            f"- {dataset}, {backbone}: {'; '.join(said)}. Steps whose interval leaves out zero: "
            f"{which}."
        )
    return "\n".join(lines)
