"""Memory does not grow with the number of images."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Means, toy, transform

from clipit_lib.data.patches import PatchDataset
from clipit_lib.encoders import embeddings
from clipit_lib.model import Output
from clipit_lib.predict import ImageClassifier
from clipit_lib.training import Patches, predict_logits

resource = pytest.importorskip("resource", reason="no limits of a process to set here")
MIB = 2**20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and caches of one test."""
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path


class Peak:
    """The most memory of its own (no mapped files) that this process held, above the first."""

    def __enter__(self) -> Peak:
        self.first = self.most = self._now()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    @property
    def mib(self) -> float:
        return (self.most - self.first) / MIB

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii").split()
        return int(status[status.index("RssAnon:") + 1]) * 1024


class Answers(Means):
    """The smallest classifier."""

    def forward(self, pixels: torch.Tensor) -> Output:  # type: ignore[override]
        return Output(super().forward(pixels))


def embedded(dataset: PatchDataset) -> None:
    side = dataset.pixels.shape[1]
    embeddings.image_embeddings(Means(), "", transform(side), dataset, "train")


def predicted(dataset: PatchDataset) -> None:
    side, rows = dataset.pixels.shape[1], np.arange(len(dataset.pixels))
    patches = Patches(dataset.pixels, rows, torch.tensor(dataset.labels.copy()), transform(side))
    predict_logits(Answers(), patches)


def deployed(dataset: PatchDataset) -> None:
    side = dataset.pixels.shape[1]
    ImageClassifier(Answers(), transform(side), ("a", "b")).probabilities(dataset.pixels)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("use", [embedded, predicted, deployed, None])
def test_memory_does_not_grow_with_images(
    folder: Path, use: Callable[[PatchDataset], None] | None
) -> None:
    few, many, side = 600, 12_000, 32
    peaks = []
    for count in (few, few, many):  # the first time for what is only set up once
        if use is None:
            shutil.rmtree(folder / "cache")
            with Peak() as peak:
                toy(count, side)
        else:
            dataset = toy(count, side)
            with Peak() as peak:
                use(dataset)
            shutil.rmtree(folder / "cache" / "embeddings", ignore_errors=True)
        peaks.append(peak.mib)
    images = (many - few) * side * side * 3 / MIB
    assert images > 30 and peaks[2] - peaks[1] < images / 2
