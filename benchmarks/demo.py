"""The whole `demo` profile: cold, warm, and with one notebook at a time against two.

Takes about as long as the demo three times over, so it runs only where `--demo` asks for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import Row, Scale, interleaved, measured, ratio, timed
from companion import paths

COLD, WARM = 20 * 60, 20  # seconds of the design
WARM_REPEATS = 5


def run(scale: Scale) -> list[Row]:
    """`full` runs `demo`, any other scale the tests' own profile."""
    profile = "demo" if scale == "full" else "smoke"
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        two, one = (_run_all(profile, jobs, Path(folder) / str(jobs)) for jobs in (2, 1))
        cold = interleaved({"two": timed(two), "one": timed(one)}, 1, warm_up=0)
        warm = interleaved({"warm": timed(two)}, WARM_REPEATS, warm_up=0)
    return [
        _seconds("demo_cold", cold, "two", COLD, 1.0, f"a first run of {profile}, 2 jobs"),
        _seconds("demo_warm", warm, "warm", WARM, 1.0, f"a second run of {profile}"),
        ratio("demo_one_job_over_two", cold, "one", "two",
              f"seconds of a first run of {profile} with --jobs 1 over --jobs 2, one thread a job",
              1.7, "at_least"),
    ]  # fmt: skip


def _seconds(
    name: str, times: pd.DataFrame, clock: str, budget: float, goal: float | None, what: str
) -> Row:
    over: Callable[[pd.DataFrame], np.ndarray] = lambda m: m[clock].to_numpy() / budget  # noqa: E731
    note = f"{what}: {times[clock].median():.1f} s over {budget} s"
    return measured(name, times, over, note, goal)


def _run_all(profile: str, jobs: int, folder: Path) -> Callable[[], object]:
    """`run_all.sh` with results, caches and figures below `folder`; one thread a job."""
    command = ["./run_all.sh", "--profile", profile, "--jobs", str(jobs), "--threads", "1"]
    own = {
        "CLIPIT_OUTPUT": str(folder),
        "CLIPIT_CACHE": str(folder / "cache"),
        "VIRTUAL_ENV": sys.prefix,  # no environment is made within the time
    }
    return lambda: subprocess.run(command, cwd=paths.repository(), env=os.environ | own, check=True)
