"""What goes wrong with disks and files is one clear line, and what was finished stays as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from toys import Means, toy, transform

from clipit_lib import runs, text
from clipit_lib.data.patches import PatchDataset
from clipit_lib.encoders import embeddings, weights
from clipit_lib.errors import ClipItError
from clipit_lib.predict import load_classifier
from clipit_lib.predictions import Outcome, predicted
from clipit_lib.settings import PhantomPretraining, Probe, RunSpec
from companion import archived, tables
from companion.figures import style
from companion.profile import Workbench, load_profile
from companion.train_encoders import trained_once

resource = pytest.importorskip("resource", reason="no limits of a process to set here")
SPACE = "Free space, or set CLIPIT_OUTPUT (for caches CLIPIT_CACHE) to another disk"
PERMISSION = "Give write permission, or set CLIPIT_OUTPUT (for caches CLIPIT_CACHE) to your folder"


def make_run(number: int) -> runs.StoredRun:
    spec = RunSpec(
        kernels="any", dataset="toy", data_hash="", backbone="toy", backbone_hash="",
        setting="lora_only", seed=number, pretraining=None, normalisation="own", probe=Probe(),
    )  # fmt: skip
    return runs.get_or_run(spec, Workbench(load_profile("smoke")))


def make_encoder(number: int) -> dict[str, Any]:
    asked = PhantomPretraining(images=8, clip_epochs=1, vision_epochs=1, seed=number)
    recipe = weights.Recipe("toy", asked.model_dump())
    trained_once(recipe, lambda: ({"w": torch.zeros(20_000)}, {}))
    return weights.load_trained(recipe)


def make_embeddings(number: int) -> np.ndarray:
    return embeddings.image_embeddings(Means(), str(number), transform(8), toy(900), "train")


def make_patches(number: int) -> PatchDataset:
    return toy(900 + number)


def make_table(number: int) -> None:
    tables.save_table("smoke", "faults", pd.DataFrame({"x": np.full(9_000, number)}), "text", ["a"])


def make_figure(number: int) -> None:
    figure = plt.figure()
    figure.gca().plot(np.random.default_rng(number).random(500))
    style.save(figure, "smoke", "faults")


def make_pairs(number: int) -> None:
    noise = np.random.default_rng(number).random(9_000)
    tables.save_pairs("smoke", "faults", pd.DataFrame({"x": noise}))


STORES = {f.__name__: f for f in (make_run, make_encoder, make_embeddings, make_patches)}
PRODUCTS = {f.__name__: f for f in (make_table, make_figure, make_pairs)}
Make = Callable[[int], Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and caches of one test, where a run is the work of a moment."""

    def perform(spec: RunSpec, bench: Workbench) -> Outcome:
        data = toy(900)
        logits = np.zeros((len(data.indices("test")), 2), np.float32)
        return Outcome({"w": torch.zeros(2_000)}, [], predicted(data, lambda _: logits))

    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runs, "perform", perform)
    monkeypatch.setattr(Workbench, "dataset", lambda *_: toy(900))
    toy(900)
    return tmp_path


def kept(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All that counts as made, with its inode: no locks, and no embeddings' card without them."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    alone = {p for p in found if p.parent.name == "embeddings" and not _partner(p).exists()}
    return {str(p): (p.stat().st_ino, p.read_bytes()) for p in found if p not in alone}


def _partner(path: Path) -> Path:
    return path.with_suffix(".safetensors")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a full disk, writing fails in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", [*STORES, *PRODUCTS])
def test_a_full_disk_is_one_line_and_costs_nothing_else(folder: Path, name: str) -> None:
    make: Make = (STORES | PRODUCTS)[name]
    make(1)
    before = kept(folder)
    with no_file_above(4_000), pytest.raises(ClipItError, match="writing failed") as caught:
        make(2)
    assert "\n" not in str(caught.value) and caught.value.fix.startswith(SPACE)
    assert kept(folder) == before
    make(2)  # there is space again
    assert kept(folder) != before


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write, not even root, for whom permissions do not count."""
    if os.geteuid() != 0:
        below = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in below:
            path.chmod(0o555)
        yield
        for path in below:
            path.chmod(0o755)
        return
    mount = shutil.which("mount")
    command = [str(mount), "--bind", str(folder), str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("root may write everywhere, and cannot mount a read-only folder here")
    try:
        subprocess.run([mount, "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        # Lazily: the maps of patches that a test has opened may not be closed yet.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("name", [*STORES, *PRODUCTS])
def test_a_read_only_disk_is_one_line_and_what_is_there_can_be_read(
    folder: Path, name: str
) -> None:
    make: Make = (STORES | PRODUCTS)[name]
    make(1)
    before = kept(folder)
    with read_only(folder):
        with pytest.raises(ClipItError, match="cannot write here") as caught:
            make(2)
        if name in STORES:
            make(1)
    assert "\n" not in str(caught.value) and caught.value.fix == PERMISSION
    assert kept(folder) == before


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def nothing(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [half, nothing])
@pytest.mark.parametrize(
    ("make", "file", "read"),
    [
        (make_run, "runs/*/spec.json", runs.read),
        (make_run, "runs/*/done.json", lambda folder: runs.read(folder).done()),
        (make_run, "runs/*/predictions.parquet", lambda folder: runs.read(folder).predictions()),
        (make_run, "runs/*/card.json", load_classifier),
        (make_encoder, "encoders/*/encoder.json", lambda _: make_encoder(1)),
        (make_encoder, "encoders/*/model.safetensors", lambda _: make_encoder(1)),
        (make_embeddings, "embeddings/*.safetensors", lambda _: make_embeddings(1)),
        (make_embeddings, "embeddings/*.json", lambda _: make_embeddings(1)),
        (make_embeddings, "patches/*/pixels.npy", lambda _: make_embeddings(1)),
        (make_embeddings, "patches/*/samples.parquet", lambda _: make_embeddings(1)),
        (make_embeddings, "patches/*/dataset.json", lambda _: make_embeddings(1)),
    ],
)
def test_a_cut_file_is_named_with_the_remedy_and_the_remedy_helps(
    folder: Path, make: Make, file: str, read: Make, harm: Callable[[Path], None]
) -> None:
    make(1)
    (path,) = folder.rglob(file)
    harm(path)
    with pytest.raises(ClipItError) as caught:
        read(path.parent)
    alone = path.parent.name == "embeddings"  # files of their own, each with a card beside it
    assert caught.value.where == str(_partner(path) if alone else path)
    assert "\n" not in str(caught.value)
    if alone:
        assert caught.value.fix == "Delete this file and run again"
        _partner(path).unlink()
    else:
        assert caught.value.fix.startswith(("Delete the folder", "Delete this run", "Name"))
        shutil.rmtree(path.parent)
    make(1)
    assert path.stat().st_size > 0


def test_cut_text_features_and_archives_are_named(folder: Path) -> None:
    for path, read in (
        (folder / "x.safetensors", text._read),
        (folder / "predictions.parquet", archived.by_run),
    ):
        path.write_bytes(b"cut")
        with pytest.raises(ClipItError, match="missing or damaged") as caught:
            read(path)
        assert caught.value.where == str(path)


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path) -> None:
    run = make_run(1)
    shutil.rmtree(run.folder)
    rest = run.folder.with_name(f".{run.key}.0123abcd.part")
    rest.mkdir()
    other = run.folder.with_name(".fedc.0123abcd.part")  # of a process that may be at work
    other.mkdir()
    make_run(1)
    assert not rest.exists() and other.exists()


@pytest.mark.parametrize("year", [1980, 2100])
def test_the_clock_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    for make in STORES.values():
        make(1)
    before, date = kept(folder), (year - 1970) * 365 * 86_400
    for path in folder.rglob("*"):
        os.utime(path, (date, date))
    monkeypatch.setattr("time.time", lambda: 0.0)
    for make in STORES.values():
        make(1)
    assert kept(folder) == before  # the same inodes
