"""Patches and reports to time with, in a cache that is thrown away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from clipit_lib.data.patches import PatchDataset, Recipe, Undecoded, open_or_build
from clipit_lib.data.reports import ReportCorpus
from companion.phantom.reports import PhantomCorpus

CACHE = "CLIPIT_CACHE"


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """An empty `CLIPIT_CACHE` within the block."""
    before = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        os.environ[CACHE] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(CACHE)
            if before is not None:
                os.environ[CACHE] = before


def noise_patches(count: int, side: int) -> PatchDataset:
    """Training patches of uniform noise in the library's own cache: no time depends on content."""

    def decode(begin: int, end: int) -> np.ndarray:
        shape = (end - begin, side, side, 3)
        return np.random.default_rng(begin).integers(0, 256, shape, dtype=np.uint8)

    samples = pd.DataFrame({"id": [str(i) for i in range(count)], "split": "train", "group": ""})
    samples["label"] = np.arange(count) % 2
    recipe = Recipe(
        "noise", {"count": count}, ("even", "odd"), ("even", "odd"), side,
        lambda: Undecoded(samples, decode), None, "none needed", "noise",
    )  # fmt: skip
    return open_or_build(recipe)


def reports(count: int, seed: int = 0) -> ReportCorpus:
    """Phantom reports: their lengths are those of text, which tokenising depends on."""
    settings = PhantomCorpus(source="phantom", organ="colon", reports=count, seed=seed)
    return settings.open(f"reports-{seed}")
