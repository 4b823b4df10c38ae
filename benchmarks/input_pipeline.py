"""Patches a second on their way into training, from the cache and from h5 files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import PCAM

from benchmarks.machine import cores
from benchmarks.measure import Row, Scale, interleaved, measured, ratio, threads, timed
from benchmarks.patches import fresh_cache, noise_patches
from clipit_lib.data.patches import PatchDataset, Transform
from clipit_lib.encoders.vision import HALF
from clipit_lib.training import Patches

SIDE, BATCH, ENOUGH = 96, 64, 5000
H5 = "camelyonpatch_level_2_split_train_{}.h5"


@dataclass(frozen=True)
class Sizes:
    """Patches in the cache; patches a timed go; rounds."""

    cached: int
    read: int
    repeats: int


SIZES = {
    "micro": Sizes(8, 4, 2),
    "quick": Sizes(1024, 256, 3),
    "full": Sizes(32768, 4096, 15),  # PCAM's validation split
}


def run(scale: Scale) -> list[Row]:
    sizes, count = SIZES[scale], min(2, cores())
    with fresh_cache() as folder, threads(count):
        data = noise_patches(sizes.cached, SIDE)
        order = np.random.default_rng(0).permutation(sizes.cached)[: sizes.read]
        plain, large = (_patches(data, size) for size in (SIDE, 224))
        clocks = {
            "bytes": timed(_bytes(plain, order), len(order)),
            "plain": timed(_ours(plain, order, None), len(order)),
            "augmented": timed(_ours(plain, order, torch.Generator().manual_seed(0)), len(order)),
            "large": timed(_ours(large, order, None), len(order)),
            "h5": timed(_h5(_as_pcam(data, folder), order), len(order)),
        }
        times = interleaved(clocks, sizes.repeats)
    what = f"{SIDE} px patches, {count} threads"
    return [
        _rate("input_pipeline_bytes", times, "bytes",
              f"{what}, mapped and gathered: all that is done here where a GPU does the rest", 1.6),
        _rate("input_pipeline", times, "plain", f"{what}, mapped, gathered, normalised", 1.0),
        _rate("input_pipeline_augmented", times, "augmented", f"{what}, augmented too", None),
        _rate("input_pipeline_224px", times, "large", f"{what}, brought to 224 px", None),
        ratio("input_pipeline_over_h5", times, "h5", "plain",
              f"patches/s over torchvision's PCAM, which reads one by one from h5 ({what})", None,
              "at_least"),
    ]  # fmt: skip


def _rate(name: str, times: pd.DataFrame, clock: str, what: str, goal: float | None) -> Row:
    row = measured(
        f"{name}_patches_per_second", times, lambda m: 1 / (ENOUGH * m[clock].to_numpy()), what,
        goal, "at_least",
    )  # fmt: skip
    return replace(row, note=f"{row.ratio * ENOUGH:,.0f} patches/s over {ENOUGH:,} ({what})")


def _patches(data: PatchDataset, size: int) -> Patches:
    labels = torch.tensor(data.labels)
    return Patches(data.pixels, data.indices("train"), labels, Transform(size, HALF, HALF))


def _ours(
    patches: Patches, order: np.ndarray, generator: torch.Generator | None
) -> Callable[[], None]:
    batches = torch.from_numpy(order).split(BATCH)

    def read() -> None:
        for chosen in batches:
            patches.batch(chosen, generator)

    return read


def _bytes(patches: Patches, order: np.ndarray) -> Callable[[], None]:
    def read() -> None:
        for start in range(0, len(order), BATCH):
            patches.pixels[patches.rows[order[start : start + BATCH]]]

    return read


def _as_pcam(data: PatchDataset, folder: Path) -> PCAM:
    """The same patches in the files of PatchCamelyon."""
    (folder / "pcam").mkdir()
    with h5py.File(folder / "pcam" / H5.format("x"), "w") as file:
        file["x"] = data.pixels
    with h5py.File(folder / "pcam" / H5.format("y"), "w") as file:
        file["y"] = data.labels.reshape(-1, 1, 1, 1)
    ready = transforms.Compose([transforms.ToTensor(), transforms.Normalize(HALF, HALF)])
    return PCAM(str(folder), "train", transform=ready)


def _h5(pcam: PCAM, order: np.ndarray) -> Callable[[], None]:
    def read() -> None:
        for start in range(0, len(order), BATCH):
            items: list[Tensor] = [pcam[int(i)][0] for i in order[start : start + BATCH]]
            torch.stack(items)

    return read
