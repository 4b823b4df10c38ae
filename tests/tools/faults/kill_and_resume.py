"""Kill `./run_all.sh --profile smoke` at random moments, go on, and compare with a whole run.

By hand, in an environment that has every dependency (half an hour; see README.md beside it):

    python tests/tools/faults/kill_and_resume.py --folder /tmp/faults --kills 20 --seed 0

The folder holds two undisturbed runs, `whole-1` and `whole-2`, and the disturbed `broken-1`, ...,
each with a cache of its own. The exit code is 1 if anything was lost, damaged or redone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pandas as pd
import psutil
from safetensors import safe_open

REPOSITORY = Path(__file__).resolve().parents[3]
# Seconds of processor time from the start of a run to its kill: on a busy machine, too, a kill is
# as likely early as late.
SOONEST, LATEST = 5.0, 60.0
# What a clock has measured, and so differs from run to run: whole tables, and columns of others.
TIMED = {"runs.csv": ("seconds", "peak_memory_mib"), "tables/inference_latency.csv": None}
# The last file of what is made once: run, survival run, encoder, patches, slides, embeddings.
MADE_ONCE = (
    "results/*/runs/*/done.json", "results/*/survival_runs/*/done.json",
    "cache/encoders/*/encoder.json", "cache/patches/*/dataset.json", "cache/slides/*/made.json",
    "cache/embeddings/*.safetensors",
)  # fmt: skip


def _tensors(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (no dictionary)
            file.get_tensor(name)


def _hdf5(path: Path) -> None:
    with h5py.File(path) as file:
        for name in file:
            file[name][()]


def _table(path: Path) -> None:
    if path.read_text(encoding="utf-8").strip():  # a run that trains nothing has no history
        pd.read_csv(path)


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _tensors, ".parquet": pd.read_parquet, ".npy": np.load, ".h5": _hdf5,
    ".csv": _table, ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".ipynb": lambda path: nbformat.read(path, as_version=4),
}  # fmt: skip


def files(output: Path) -> Iterator[Path]:
    """All files but those that are still being written, whose name begins with a dot."""
    for path in sorted(output.rglob("*")):
        parts = path.relative_to(output).parts
        if path.is_file() and not any(part.startswith(".") or "failed" in part for part in parts):
            yield path


def damaged(output: Path) -> list[str]:
    """Files that their reader refuses."""
    found = []
    for path in files(output):
        try:
            READERS.get(path.suffix, Path.stat)(path)
        except Exception as error:
            found.append(f"{path}: {error}")
    return found


def made_once(output: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of what must never be made again."""
    paths = (path for pattern in MADE_ONCE for path in output.glob(pattern))
    states = ((str(path.relative_to(output)), path.stat()) for path in paths)
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states}


def left_behind(output: Path) -> list[Path]:
    """What a kill left of files that were being written."""
    return sorted(path for path in output.rglob("*.part") if path.parent.suffix != ".part")


def tables(output: Path) -> dict[str, str]:
    """Digest of each csv without what a clock measures, and of the kept predictions."""
    results, found = output / "results" / "smoke", {}
    for path in [*results.glob("*.csv"), *results.glob("tables/*.csv"), *results.glob("*.parquet")]:
        name = str(path.relative_to(results))
        data = path.read_bytes()
        if name in TIMED:
            columns = TIMED[name]
            data = b"" if columns is None else _without(path, columns)
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def _without(path: Path, columns: tuple[str, ...]) -> bytes:
    return pd.read_csv(path, dtype=str).drop(columns=list(columns)).to_csv().encode()


def start(output: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "CLIPIT_OUTPUT": str(output), "CLIPIT_CACHE": str(output / "cache"),
        "VIRTUAL_ENV": sys.prefix,
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    with (output / "run_all.log").open("ab") as log:
        return subprocess.Popen(
            ["./run_all.sh", "--profile", "smoke", "--jobs", "2"], cwd=REPOSITORY,
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


def worked(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that a run has used."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for each in tree(process):
            with suppress(psutil.NoSuchProcess):
                total += sum(each.cpu_times()[:4])  # its own, and that of children that ended
    return total


def ended(process: subprocess.Popen[bytes], after: float) -> bool:
    """Wait until a run ends or has worked so long; whether it ended."""
    while process.poll() is None:
        if worked(process) >= after:
            return False
        time.sleep(0.2)
    return True


def _kill(processes: list[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):  # it went with its parent
            each.kill()


def kill_all(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """As when the machine stops: kernels too, which have a process group of their own."""
    _kill(tree(process))


def kill_group(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """As when a terminal or a batch system ends the job: kernels have to notice by themselves."""
    os.killpg(process.pid, signal.SIGKILL)


def kill_one(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """As when memory runs out: one Python of the run, and the rest goes on to its end."""
    pythons = [each for each in tree(process)[1:] if "python" in each.name()]
    _kill([rng.choice(pythons)] if pythons else [])


@dataclass
class Kill:
    """One line of the outcome."""

    number: int
    output: str
    after: float
    how: str
    made: int
    redone: int
    damaged: int


def disturb(folder: Path, kills: int, rng: random.Random) -> Iterator[Kill]:
    """Run, kill and go on; begin another folder whenever one is finished."""
    number, round_ = 0, 0
    while number < kills:
        round_ += 1
        output, before = folder / f"broken-{round_}", {}
        while True:
            process, after = start(output), rng.uniform(SOONEST, LATEST)
            how = rng.choice([kill_all, kill_group, kill_one])
            if number >= kills or ended(process, after):
                status: int | None = process.wait()
            else:
                number, status = number + 1, None
                how(process, rng)
                process.wait()
                time.sleep(2)  # a kernel looks once a second whether its parent lives
            now = made_once(output)
            redone = [name for name in before if now.get(name) != before[name]]
            harmed = damaged(output)
            print("\n".join([*(f"redone: {name}" for name in redone), *harmed]) or "all whole")
            before = now
            if status is None:
                yield Kill(
                    number, output.name, round(after, 1), how.__name__.removeprefix("kill_"),
                    len(now), len(redone), len(harmed),
                )  # fmt: skip
            elif status == 0:
                break
            else:
                raise SystemExit(f"run_all.sh ended with {status}: see {output}/run_all.log")


def undisturbed(output: Path) -> None:
    if (output / "results" / "smoke" / "report.html").exists():
        return
    begin = time.monotonic()
    if start(output).wait() != 0:
        raise SystemExit(f"the undisturbed run failed: see {output}/run_all.log")
    print(f"{output.name}: {time.monotonic() - begin:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.resolve()
    for name in ("whole-1", "whole-2"):
        undisturbed(folder / name)
    outcome = []
    for kill in disturb(folder, given.kills, random.Random(given.seed)):
        outcome.append(kill)
        print(kill, flush=True)
    print(pd.DataFrame(outcome).to_string(index=False))

    wanted, bad = tables(folder / "whole-1"), sum(kill.redone + kill.damaged for kill in outcome)
    for output in sorted(folder.iterdir()):
        found = tables(output)
        other = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        print(f"{output.name}: {len(found)} tables; differ from whole-1: {other or 'none'}")
        print(f"  left of what was being written: {[str(p) for p in left_behind(output)]}")
        bad += len(other)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
