"""Wall-clock time of models side by side, fair under drift."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.benchmark import timer

WARM_UP = 3
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """Where a time was taken."""

    processor: str
    threads: int
    torch: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return f"{self.processor}, {threads}, PyTorch {self.torch}"


def this_machine() -> Machine:
    """The accelerator if there is one, else the processor as it names itself."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return Machine(name, torch.get_num_threads(), torch.__version__)


def _processor() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> pd.DataFrame:
    """Time every call once a round, so that drift of the machine meets all alike.

    The order is drawn anew each round, and each call is made once untimed just before it is timed,
    so that none pays for what the one before it left in the caches. Returns milliseconds, one row
    a round and one column a call; WARM_UP rounds before them are thrown away.
    """
    rng = np.random.default_rng(0)
    rows = []
    with torch.inference_mode():
        for _ in range(WARM_UP + rounds):
            rows.append({n: _milliseconds(calls[n]) for n in rng.permutation(list(calls))})
    return pd.DataFrame(rows[WARM_UP:], columns=list(calls))


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    begin = timer()  # waits for an accelerator to finish what it was given
    call()
    return 1000 * (timer() - begin)


def summary(times: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Medians and quartiles of times, and their ratios to the median of the baseline.

    Args:
        times: milliseconds [rounds, variants] (see `interleaved`).

    Returns one row a variant: variant, rounds, median_ms, low_ms, high_ms, ratio, ratio_low,
    ratio_high.
    """
    quartiles = times.quantile([0.5, 0.25, 0.75]).T  # [variants, 3]
    ratios = quartiles / times[baseline].median()
    quartiles.columns = pd.Index(["median_ms", "low_ms", "high_ms"])
    ratios.columns = pd.Index(["ratio", "ratio_low", "ratio_high"])
    table = quartiles.join(ratios).rename_axis("variant").reset_index()
    table.insert(1, "rounds", len(times))
    return table
