"""Exact top-5 over the plain matrix product that it cannot do without; memory and growth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import Row, Scale, counted, interleaved, measured, ratio, timed
from clipit_lib.pairing import top_k
from companion import paths

WIDTH, K, BLOCK = 512, 5, 4096


@dataclass(frozen=True)
class Sizes:
    """(patches, reports) to time, of which some grow by patches and some by reports; and the two
    numbers of patches, and the reports, whose memory is compared."""

    timed: tuple[tuple[int, int], ...]
    memory: tuple[tuple[int, int], int] | None
    repeats: int


SIZES = {
    "micro": Sizes(((20, 10), (40, 10), (20, 20)), None, 2),
    "quick": Sizes(
        ((10_000, 1000), (30_000, 1000), (10_000, 3000)),
        ((10_000, 50_000), 2000), 3,
    ),
    "full": Sizes(
        ((10_000, 1000), (100_000, 1000), (1_000_000, 1000), (10_000, 10_000), (100_000, 10_000),
         (10_000, 100_000)),
        ((20_000, 400_000), 10_000), 5,
    ),
}  # fmt: skip


def run(scale: Scale) -> list[Row]:
    sizes = SIZES[scale]
    clocks = {}
    for n, m in sizes.timed:
        images, texts = embeddings(n, 0), embeddings(m, 1)
        clocks[f"product {n} {m}"] = timed(_product(images, texts))
        clocks[f"ours {n} {m}"] = timed(_ours(images, texts))
    times = interleaved(clocks, sizes.repeats)
    rows = [
        ratio(f"top_k_{n:.0e}_by_{m:.0e}".replace("e+0", "e"), times, f"product {n} {m}",
              f"ours {n} {m}", f"time of the matrix product over that of exact top-{K}: {n} "
              f"patches, {m} reports, width {WIDTH}", 0.8, "at_least")
        for n, m in sizes.timed
    ]  # fmt: skip
    first_n, first_m = sizes.timed[0]
    by_patches = [(n, m) for n, m in sizes.timed if m == first_m]
    by_reports = [(n, m) for n, m in sizes.timed if n == first_n]
    rows.append(_growth("patches", times, by_patches, [n for n, _ in by_patches]))
    rows.append(_growth("reports", times, by_reports, [m for _, m in by_reports]))
    return rows if sizes.memory is None else rows + _memory(*sizes.memory)


def embeddings(count: int, seed: int) -> np.ndarray:
    """[count, WIDTH] float32."""
    return np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)


def _product(images: np.ndarray, texts: np.ndarray) -> Callable[[], None]:
    """The product alone, in the same blocks, so that it fits in memory."""
    queries, reports = torch.from_numpy(images), torch.from_numpy(texts)
    block = torch.empty(min(BLOCK, len(images)), len(texts))

    def product() -> None:
        for rows in queries.split(BLOCK):
            torch.mm(rows, reports.T, out=block[: len(rows)])

    return product


def _ours(images: np.ndarray, texts: np.ndarray) -> Callable[[], object]:
    return lambda: top_k(images, texts, K, BLOCK)


def _growth(
    of: str, times: pd.DataFrame, sizes: Sequence[tuple[int, int]], counts: Sequence[int]
) -> Row:
    """The exponent p in time ~ count^p."""
    names = [f"ours {n} {m}" for n, m in sizes]
    return measured(
        f"top_k_growth_by_{of}", times,
        lambda m: np.polyfit(np.log(counts), np.log(m[names].to_numpy()).T, 1)[0],
        f"slope of log time of exact top-{K} over the log of {counts[0]} to {counts[-1]} {of}; 1 "
        "is linear", 1.1,
    )  # fmt: skip


def _memory(patches: tuple[int, int], reports: int) -> list[Row]:
    small, large = (peak(n, reports) for n in patches)
    block = 4 * BLOCK * reports
    return [
        counted("top_k_memory_in_blocks", large / block,
                f"peak memory beyond inputs and result, in blocks of {BLOCK} by {reports} "
                f"similarities ({large / 2**20:.0f} MiB; all at once would be "
                f"{patches[1] * reports * 4 / 2**20:.0f} MiB)", 2),
        counted("top_k_memory_growth", large / small,
                f"the same for {patches[1]} patches over {patches[0]}", 1.1),
    ]  # fmt: skip


def peak(patches: int, reports: int) -> int:
    """Bytes at the peak of `top_k` beyond inputs and result, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", str(patches), str(reports)]
    done = subprocess.run(
        command, cwd=paths.repository(), capture_output=True, text=True, check=True
    )
    return int(done.stdout)
