"""The machine that a time was taken on, in words that name no host."""

from __future__ import annotations

import os

import torch

from companion.cost import processor


def machine() -> str:
    """Processor, cores, memory, PyTorch, and whether another process was at work too."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    other = ", other work beside it" if os.getloadavg()[0] > 1.5 else ""
    beside = f"PyTorch {torch.__version__}{other}"
    return f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {beside}"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy() -> str | None:
    """A warning if other work runs at the same time, else None."""
    load = os.getloadavg()[0]
    if load < 0.5:
        return None
    return f"{load:.1f} processes want a core already: these ratios are taken on a busy machine"
