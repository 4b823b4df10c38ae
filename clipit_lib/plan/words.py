"""The plan as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from clipit_lib.plan.disk import Disk
from clipit_lib.plan.jobs import Job, grouped
from clipit_lib.plan.speed import REFERENCE
from clipit_lib.settings import Profile


def overview(
    profile: Profile, every: Sequence[Job], asked: Sequence[str], missing: Sequence[str]
) -> str:
    """Counts of encoders, pairings and runs."""
    encoders, done = profile.trained_encoders, sum(job.done for job in every)
    trained = f"{len(encoders)} to train here, {len(encoders) - len(missing)} done"
    lines = [
        f"profile {profile.name}: {profile.summary}",
        f"  encoders   {trained}: {', '.join(encoders)}" if encoders else "",
        f"  pairings   {len(profile.data)}: {', '.join(profile.data)}",
        f"  runs       {len(every)} different ones in {len(asked)} studies: {', '.join(asked)}",
        f"  done       {done}, to do {len(every) - done}",
    ]
    return "\n".join(line for line in lines if line)


def table(every: Sequence[Job], seconds: Mapping[Job, float]) -> str:
    """A line a study, data set, backbone and setting: its seeds, those that are done, and hours."""
    lines = ["  study            data set, backbone, setting: seeds (done); what is left"]
    for (study, dataset, backbone, setting), group in grouped(every).items():
        seeds = " ".join(f"({job.seed})" if job.done else str(job.seed) for job in group)
        left = sum(seconds.get(job, 0.0) for job in group)
        lines.append(f"  {study:16} {dataset} {backbone} {setting}: {seeds}; {duration(left)}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def space(disk: Disk) -> str:
    """What will be written, in units of 10^9 bytes."""
    parts = (disk.patches, disk.embeddings, disk.runs)
    patches, embeddings, runs = (f"{part / 1e9:.1f}" for part in parts)
    return (
        f"  disk       {disk.total / 1e9:.1f} GB: {patches} decoded patches, {embeddings} "
        f"embeddings, {runs} runs; downloads and weights come on top"
    )


def time_here(seconds: float, workers: int, scaled: bool) -> str:
    """Time that is left on this machine, and how it was found."""
    kind, hours = "GPU" if torch.cuda.is_available() else "core", seconds / 3600
    how = "by steps timed here"
    if scaled:
        how += f", those of large models by {REFERENCE} and their operations"
    amount = f"{hours * 60 / workers:.0f} min on {workers} {kind}s"
    if hours >= 10:
        amount = f"{hours:.0f} {kind}-hours ({hours / workers / 24:.1f} days on {workers})"
    return f"  estimate   {amount}, {how}; {NOT_IN_IT}"


def time_assumed(seconds: float, teraflops: float) -> str:
    """Time that is left on an accelerator of a stated speed."""
    return (
        f"  estimate   {seconds / 3600:.0f} GPU-hours if a GPU sustains {teraflops:g} TFLOP/s, "
        f"which is assumed, not measured (--teraflops); {NOT_IN_IT}"
    )


NOT_IN_IT = "the text stage is not in it"
