"""Findings on cost in words, written from the numbers."""

from __future__ import annotations

import pandas as pd

from clipit_lib.cost.inference import CACHED, ENCODED, MERGED, UNIMODAL, UNMERGED
from clipit_lib.cost.latency import Machine
from clipit_lib.cost.published import CLASSES, TEMPLATES


def count_sentences(costs: pd.DataFrame) -> str:
    """Markdown items on `cost_table`, at a batch of one image."""
    one = costs[costs["batch"] == 1]
    held = dict(zip(one["variant"], one["parameters"], strict=True))
    flops = dict(zip(one["variant"], one["flops"], strict=True))
    more = {name: f"{100 * (flops[name] / flops[UNIMODAL] - 1):.1f}%" for name in flops}
    times = flops[ENCODED] / flops[CACHED]
    return (
        f"- CLIP-IT merged runs {more[MERGED]} more operations an image than the plain probe and "
        f"holds {held[MERGED] - held[UNIMODAL]:,} more parameters; left unmerged, it runs "
        f"{more[UNMERGED]} more operations than the probe and holds "
        f"{held[UNMERGED] - held[MERGED]:,} parameters on top.\n"
        f"- The CLIP with its prompts encoded for each image runs {times:.1f} times the operations "
        f"of the same CLIP with cached prompts, and holds {held[ENCODED] - held[CACHED]:,} more "
        "parameters."
    )


def time_sentence(latency: pd.DataFrame, machine: Machine) -> str:
    """A Markdown item on `latency_table`."""
    parts = []
    for batch, rows in latency.groupby("batch"):
        ratio = dict(zip(rows["variant"], rows["ratio"], strict=True))
        each = (f"{name} {ratio[name]:.2f}" for name in (UNMERGED, MERGED, ENCODED, CACHED))
        parts.append(f"Batch {batch}: {'; '.join(each)}.")
    return (
        f"- Median time over that of the plain probe, {latency['rounds'].iloc[0]} interleaved "
        f"rounds on {machine}. {' '.join(parts)}"
    )


def readable(costs: pd.DataFrame) -> pd.DataFrame:
    """`cost_table` with numbers to read."""
    return costs.assign(
        flops=costs["flops"].map("{:,}".format),
        gflops=costs["gflops"].map("{:.4g}".format),
        gmacs=costs["gmacs"].map("{:.4g}".format),
        flops_ratio=costs["flops_ratio"].map("{:.4g}".format),
        parameters=costs["parameters"].map("{:,}".format),
        trainable=costs["trainable"].map("{:,}".format),
    )


def paper_sentence(counts: pd.DataFrame, prompt: float, printed: pd.DataFrame) -> str:
    """What explains the paper's numbers.

    Args:
        counts: `cost_table` of `published_variants`.
        prompt: multiply-adds of one encoded prompt, in units of 10^9.
        printed: of `paper.cost.compute`.
    """
    gmacs = dict(zip(counts["variant"], counts["gmacs"], strict=True))
    heads, adapters = gmacs[MERGED] - gmacs[UNIMODAL], gmacs[UNMERGED] - gmacs[MERGED]
    operations = dict(zip(printed["variant"], printed["gflops"], strict=True))
    time = dict(zip(printed["variant"], printed["latency_ms"], strict=True))
    added = operations["clip_it"] - operations["unimodal"]
    slower = 100 * (time["clip_it"] / time["unimodal"] - 1)
    return (
        f"A ViT-B/16 takes {gmacs[UNIMODAL]:.2f} billion multiply-adds, which the paper prints as "
        f"{operations['unimodal']:.0f} GFLOPs. {CLASSES * TEMPLATES} prompts of {prompt:.2f} each "
        f"on top come to {gmacs[ENCODED]:.0f} (printed: {operations['clip']:.0f}); with cached "
        f"prompts the same CLIP takes {gmacs[CACHED]:.2f}. The heads of CLIP-IT add {heads:.4f} "
        f"(printed: {added:.3f}). Unmerged adapters of rank 16 would add {adapters:.2f} more: the "
        f"printed operations are without them, while the printed time is {slower:.0f}% above "
        "unimodal. Merged, the two models differ by the heads alone."
    )
