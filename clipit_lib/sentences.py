"""Results in words, written from the numbers."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from clipit_lib import paper
from clipit_lib.encoders import clip
from clipit_lib.names import label
from clipit_lib.statistics import Interval
from clipit_lib.workbench import Workbench


def gain_sentences(gains: pd.DataFrame) -> str:
    """One Markdown item a row of `tables.gain_table`."""
    return "\n".join(
        f"- {row['dataset']}, {row['backbone']}: {label(row['second'])} over "
        f"{label(row['first'])} {Interval(row['gain'], row['low'], row['high'])} points; "
        f"{_verdict(row['low'], row['high'])}."
        for _, row in gains.iterrows()
    )


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "the interval lies above zero"
    return "the interval lies below zero" if high < 0 else "the interval includes zero"


def pattern_sentence(gains: pd.DataFrame) -> str:
    """How often CLIP-IT wins over each baseline, over all cells."""
    parts = []
    for first, rows in gains.groupby("first", sort=False):
        up, sure = (rows["gain"] > 0).sum(), (rows["low"] > 0).sum()
        lost = (rows["high"] < 0).sum()
        parts.append(
            f"Over {label(str(first))}, CLIP-IT is higher in {up} of {len(rows)} cells (interval "
            f"above zero in {sure}, below in {lost}), by {rows['gain'].mean():+.1f} points on "
            "average."
        )
    return " ".join(parts)


def paper_sentence(dataset: str) -> str:
    """What the paper's numbers can and cannot say about this data set."""
    mirrored = paper.MIRRORS.get(dataset)
    if mirrored is None:
        return f"The paper has no results on {dataset}: there is no number to put beside ours."
    gain = f"is {paper.mean_gain(mirrored):+.1f} points."
    if dataset == mirrored.lower():
        return f"The paper's mean gain on {mirrored} {gain}"
    return (
        f"The paper's mean gain on {mirrored}, which {dataset} mirrors, {gain} Its accuracies are "
        "of tissue, ours of a phantom."
    )


def caveats(bench: Workbench, datasets: Iterable[str], retrievers: Iterable[str] = ()) -> str:
    """What a reader must know of the retrievers (by default the profile's) and the data sets."""
    names = tuple(retrievers) or (bench.profile.retriever,)
    said = [clip.entry(name).caveat for name in names]
    said += sorted({bench.dataset(name).limits for name in datasets})
    return "\n\n".join(dict.fromkeys(text for text in said if text))


def map_words(gains: pd.DataFrame) -> str:
    """One Markdown item an axis and control: where the gain is surely above or below zero."""
    lines = []
    for (axis, control), rows in gains.groupby(["axis", "control"], sort=False):
        above = ", ".join(rows.loc[rows["low"] > 0, "point"]) or "nowhere"
        below = ", ".join(rows.loc[rows["high"] < 0, "point"]) or "nowhere"
        lines.append(
            f"- {axis}, over {label(str(control))}: interval above zero at {above}; below zero at "
            f"{below}."
        )
    return "\n".join(lines)
