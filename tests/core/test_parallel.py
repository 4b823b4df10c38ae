"""Two processes that train together give what one gives."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from clipit_lib import parallel, runs
from clipit_lib.data.patches import Transform
from clipit_lib.encoders.encoder import TokenWindows
from clipit_lib.model import ClipIt
from clipit_lib.settings import Training
from clipit_lib.training import ImageTask, MovingTargets, Patches, fit
from companion import specs
from companion.profile import Workbench, load_profile
from companion.train import train

SIDE, CLASSES, WIDTH, TEXT = 8, 3, 12, 6


class Tower(nn.Module):
    """A text tower in one line: the mean of token embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, TEXT)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tokens(ids).mean(dim=1)


def patches(count: int, rng: np.random.Generator) -> Patches:
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    labels = torch.from_numpy(rng.integers(0, CLASSES, count))
    half = (0.5, 0.5, 0.5)
    return Patches(pixels, np.arange(count), labels, Transform(SIDE, half, half))


def learn_tiny(folder: Path, mixup: float | None = None) -> None:
    """CLIP-IT with augmentation, batches of 8, 8, 7, 7, 7 and a moving target, or else mixup."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(),
        nn.Linear(32, WIDTH),
    )  # fmt: skip
    tower = Tower()
    windows = TokenWindows(torch.from_numpy(rng.integers(0, 20, (5, 4))), torch.arange(5), 5)
    report = torch.from_numpy(rng.integers(0, 5, 37))
    task = ImageTask(
        ClipIt(backbone, WIDTH, CLASSES, TEXT),
        patches(37, rng),
        patches(11, rng),
        augmented=True,
        targets=MovingTargets(tower, windows, report) if mixup is None else None,
        distillation_weight=2.0,
        mixup=mixup,
    )
    settings = Training(epochs=3, batch_size=8, learning_rate=0.02, checks_per_epoch=2)
    history = fit(task, settings, seed=4, extra=tower)
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    save_file({**task.model.state_dict(), **tower.state_dict()}, folder / "weights.safetensors")


def learn_runs() -> list[str]:
    """Probe, LoRA only and CLIP-IT of one cell, and a contrastive run, through the run store."""
    keys = train("smoke", ["table1"], seed=0, dataset="phantom-crc")
    bench = Workbench(load_profile("smoke"))
    spec = specs.resolve(bench, "phantom-pcam", "phantom_clip", "contrastive", 0)
    return [*keys, runs.get_or_run(spec, bench).key]


def one_of_two(rank: int, folder: Path, port: int) -> None:
    """What each of two processes does."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "CLIPIT_OUTPUT": str(folder), "CLIPIT_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    assert parallel.processes().num_processes == 2
    learn_tiny(folder / f"tiny{rank}")
    learn_tiny(folder / f"mixed{rank}", mixup=0.4)
    (folder / f"keys{rank}.txt").write_text("\n".join(learn_runs()))
    parallel.processes().destroy_process_group()


@pytest.fixture(scope="module")
def pair(bench: Workbench, output_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two processes, which share nothing with this one but the encoders."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(output_folder / "cache" / "encoders", folder / "cache" / "encoders")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = torch.multiprocessing.spawn(one_of_two, (folder, port), nprocs=2, join=False)
    assert launched.join(timeout=300) or launched.join(timeout=300), "the processes wait for ever"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mixup"), [("tiny", None), ("mixed", 0.4)])
def test_loss_curve_and_weights_are_those_of_one_process(
    pair: Path, tmp_path: Path, name: str, mixup: float | None
) -> None:
    learn_tiny(tmp_path, mixup)
    alone = load_file(tmp_path / "weights.safetensors")
    curve = pd.read_csv(tmp_path / "history.csv")
    assert len(curve) == 6 and curve["validation"].nunique() == 6
    for rank in range(2):
        weights = load_file(pair / f"{name}{rank}" / "weights.safetensors")
        for key, value in alone.items():
            torch.testing.assert_close(weights[key], value, atol=1e-4, rtol=1e-3)
        both = pd.read_csv(pair / f"{name}{rank}" / "history.csv")
        pd.testing.assert_frame_equal(both, curve, atol=1e-5, rtol=1e-4)
    first, second = (load_file(pair / f"{name}{rank}" / "weights.safetensors") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_runs_are_written_once_and_as_one_process_would(pair: Path, bench: Workbench) -> None:
    keys = learn_runs()
    for rank in range(2):
        assert (pair / f"keys{rank}.txt").read_text().split() == keys
    folder = pair / "results" / "smoke" / "runs"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(keys)
    assert not list(pair.rglob("*.part"))
    for key in keys:
        both, alone = runs.read(folder / key), runs.find("smoke", key)
        assert alone is not None
        pd.testing.assert_frame_equal(both.predictions(), alone.predictions(), atol=2e-4, rtol=1e-3)
        pd.testing.assert_frame_equal(both.history(), alone.history(), atol=1e-4, rtol=1e-3)


@given(batch=st.integers(1, 70), count=st.integers(1, 9))
def test_the_mean_of_the_shares_is_that_of_the_batch(batch: int, count: int) -> None:
    values = torch.randn(batch, dtype=torch.float64)
    shares = []
    for rank in range(count):
        with pytest.MonkeyPatch.context() as patch:
            state = SimpleNamespace(num_processes=count, process_index=rank)
            patch.setattr(parallel, "processes", lambda state=state: state)
            own, weight = parallel.share(batch)
            shares.append(weight * values[own].mean())
    assert torch.stack(shares).mean().item() == pytest.approx(values.mean().item(), abs=1e-12)
