"""How far Table 1 moves where kernels are not held: the same runs, several kernels of one CPU.

usage: python -m benchmarks.spread [--profile demo]

Each level is a process of its own with its own cache: encoders are trained, then the runs of
Table 1. Results go to results/kernels_*.csv and figures/kernels.png, beside bootstrap intervals:
a reader sees whether these cover the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.figure import save
from clipit_lib import kernels
from clipit_lib.files import write_text
from companion import paths
from companion.figures.style import CYCLE, MARKER_CYCLE, styled
from companion.specs import label

NOT_HELD = {kernels.CHOICE: "native"}
LEVELS: dict[str, dict[str, str]] = {
    "held (AVX2)": {},
    "this CPU's own": NOT_HELD,
    "AVX2": NOT_HELD
    | {
        "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    },
    "SSE4": NOT_HELD
    | {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    },
}  # fmt: skip
WORK = """
import sys
from companion import studies, tables
from companion.profile import Workbench, load_profile
stored = studies.stored(Workbench(load_profile(sys.argv[1])), "table1")
pairs = [("unimodal", "clip_it"), ("lora_only", "clip_it")]
tables.run_table(stored).to_csv(sys.argv[2] + ".runs.csv", index=False)
gains = tables.gain_table(stored, pairs)
gains.to_csv(sys.argv[2] + ".gains.csv", index=False)
"""
CELL = ["dataset", "backbone", "first", "second"]


def measure(profile: str, jobs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and gains of Table 1 at each level, with the level as a column."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        places = [Path(folder) / str(number) for number in range(len(LEVELS))]
        list(pool.map(partial(_at, profile), places, LEVELS.values()))
        return tuple(
            pd.concat(
                [pd.read_csv(f"{place}.{kind}.csv").assign(level=level)
                 for place, level in zip(places, LEVELS, strict=True)],
                ignore_index=True,
            )
            for kind in ("runs", "gains")
        )  # fmt: skip


def _at(profile: str, place: Path, variables: dict[str, str]) -> None:
    """Train the encoders and the runs of Table 1 in a process with these variables."""
    environment = {k: v for k, v in os.environ.items() if k not in kernels.HELD}
    environment |= {"OMP_NUM_THREADS": "1", "CLIPIT_OUTPUT": str(place)} | variables
    environment["CLIPIT_CACHE"] = str(place / "cache")
    subprocess.run([sys.executable, "-c", WORK, profile, str(place)], env=environment, check=True)


def spread_figure(gains: pd.DataFrame) -> Figure:
    """Gains of CLIP-IT by cell: one mark a level, the interval of the held kernels beside them."""
    firsts = list(dict.fromkeys(gains["first"]))
    cells = gains[["dataset", "backbone"]].drop_duplicates().reset_index(drop=True)
    names = [f"{row.dataset}\n{row.backbone}" for row in cells.itertuples()]
    with styled():
        figure, axes = plt.subplots(
            1, len(firsts), figsize=(7.2, 0.55 * len(cells) + 1.2), sharex=True, sharey=True
        )
        for axis, first in zip(axes, firsts, strict=True):
            for line, cell in enumerate(cells.itertuples(index=False)):
                rows = gains[["dataset", "backbone", "first"]].apply(tuple, axis=1)
                here = gains[rows == (*cell, first)].set_index("level")
                held = here.loc[next(iter(LEVELS))]
                axis.hlines(
                    line,
                    held["low"],
                    held["high"],
                    color="#BBBBBB",
                    lw=6,
                    label="95% interval" if line == 0 else None,
                )
                for place, level in enumerate(LEVELS):
                    axis.plot(
                        here.loc[level, "gain"], line, MARKER_CYCLE[place], color=CYCLE[place],
                        mfc="none" if place else CYCLE[place], ms=5,
                        label=level if line == 0 else None,
                    )  # fmt: skip
            axis.axvline(0, color="black", lw=0.8)
            axis.set_title(f"CLIP-IT over {label(first)}")
            axis.set_xlabel("points of balanced accuracy")
        axes[0].set(yticks=range(len(cells)), yticklabels=names, ylim=(len(cells) - 0.5, -0.5))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=5, bbox_to_anchor=(0.5, 0.0))
    return figure


def summary(runs: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """How far levels lie from the held one, in points, and how often an interval covers them."""
    held = next(iter(LEVELS))
    base = runs[runs["level"] == held].set_index(["dataset", "backbone", "setting", "seed"])
    own = gains[gains["level"] == held].set_index(CELL)
    rows = []
    for level in [each for each in LEVELS if each != held]:
        other = runs[runs["level"] == level].set_index(base.index.names)["balanced_accuracy"]
        apart = other - base["balanced_accuracy"]
        gain = gains[gains["level"] == level].set_index(CELL)
        inside = gain["gain"].between(own["low"], own["high"])
        verdict = (gain["low"] > 0).astype(int) - (gain["high"] < 0)
        before = (own["low"] > 0).astype(int) - (own["high"] < 0)
        rows.append([
            level, apart.std(), apart.abs().max(), (gain["gain"] - own["gain"]).abs().max(),
            int(inside.sum()), int((verdict != before).sum()), len(gain),
        ])  # fmt: skip
    columns = [
        "kernels", "sd of runs", "largest of runs", "largest of gains", "gains within the interval",
        "intervals that change sides of zero", "gains",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spread", description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--jobs", type=int, default=2, help="levels at the same time")
    options = parser.parse_args()
    runs, gains = measure(options.profile, options.jobs)
    found = {"table1": runs, "gains": gains, "spread": summary(runs, gains)}
    for name, frame in found.items():
        path = paths.output() / "results" / f"kernels_{name}.csv"
        write_text(path, frame.to_csv(index=False, float_format="%.4f"))
    save(spread_figure(gains), "kernels")


if __name__ == "__main__":
    main()
