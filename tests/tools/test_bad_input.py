"""Whatever a user gets wrong is one line with a remedy, and costs nothing that was there before."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from bad_input import (
    in_caches,
    in_checkpoints,
    in_commands,
    in_data,
    in_notebooks,
    in_reports,
    in_settings,
)
from bad_input.case import PROFILES, BadInput, World
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image

from clipit_lib import runs
from clipit_lib.files import write_text
from companion import paths, tables
from companion.__main__ import main
from companion.profile import Workbench

AREAS = {"settings": in_settings, "data": in_data, "reports": in_reports,
         "checkpoints": in_checkpoints, "caches": in_caches, "notebooks": in_notebooks,
         "commands": in_commands}  # fmt: skip
CASES = [
    pytest.param(case, id=f"{area}-{case.name.replace(' ', '_')}")
    for area, module in AREAS.items()
    for case in module.CASES
]
REPORTS = [f"Part {n}: {what}." for n in range(3) for what in ("calm glands", "wild growth")]


@pytest.fixture(scope="module")
def before(bench: Workbench, output_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`home`, a user's files, and `output`, the results of a run on them."""
    folder = tmp_path_factory.mktemp("before")
    home, output = folder / "home", folder / "output"
    rng = np.random.default_rng(0)
    for split, number in {"train": 8, "validation": 4, "test": 4}.items():
        for name in ("calm", "wild"):
            place = home / "patches" / split / name
            place.mkdir(parents=True)
            for each in range(number):
                noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).save(place / f"{each}.png")
    (home / "reports.txt").write_text("\n".join(REPORTS) + "\n", encoding="utf-8")
    assert bench.profile.pretraining is not None
    values = {
        "name": "mine", "summary": "right", "retriever": "phantom_clip",
        "data": {"patches": {"source": "folder", "folder": str(home / "patches"), "side": 32,
                             "corpus": "reports"}},
        "corpora": {"reports": {"source": "file", "path": str(home / "reports.txt"),
                                "organ": "breast"}},
        "backbones": ["phantom_vit_s16"], "seeds": [0], "probe": {"epochs": 1},
        "text_stage": {"epochs": 1}, "lora": {"rank": 2, "alpha": 2},
        "studies": {"own": {"settings": ["clip_it"]}},
        "pretraining": bench.profile.pretraining.model_dump(),
    }  # fmt: skip
    (home / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    for name in ("phantom_clip-*", "phantom_vit_s16-*"):
        for encoder in (output_folder / "cache" / "encoders").glob(name + "[0-9a-f]"):
            shutil.copytree(encoder, output / "cache" / "encoders" / encoder.name)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, output)
        own = str(home / "mine.yaml")
        assert main(["train", "own", "--profile", own]) == 0
        stored = list(runs.stored("mine"))
        keys = [run.key for run in stored]
        tables.save_table("mine", "table1", tables.run_table(stored), "One run.", keys)
        executed = paths.results("mine") / "notebooks" / "03_table1.ipynb"
        write_text(executed, nbformat.writes(new_notebook(cells=[new_markdown_cell("# Table 1")])))
        assert main(["collect", "--profile", own]) == 0
        exported = ["--output", str(home / "exported"), "--no-onnx"]
        assert main(["export", str(stored[0].folder), *exported]) == 0
    return folder


def settle(patch: pytest.MonkeyPatch, output: Path) -> None:
    patch.setenv("CLIPIT_OUTPUT", str(output))
    patch.setenv("CLIPIT_CACHE", str(output / "cache"))
    patch.delenv("CLIPIT_DATA", raising=False)


@pytest.fixture
def world(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    place = tmp_path / "bad-place"
    place.mkdir()
    # Links, which a case that spoils a file replaces by a copy: nothing else may write in place.
    output = Path(shutil.copytree(before / "output", tmp_path / "output", copy_function=os.link))
    settle(monkeypatch, output)
    monkeypatch.chdir(place)
    return World(before / "home", place, output)


def contents(*folders: Path) -> dict[Path, str]:
    """What every file holds."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def call(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:  # how argparse leaves
        return int(end.code or 0)


@pytest.mark.parametrize("case", CASES)
def test_a_mistake(case: BadInput, world: World, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = case.act(world)
    if arguments[0] == "fetch":
        os.environ["CLIPIT_DATA"] = str(world.output / "data")  # `settle` takes it back
    earlier = contents(world.output, world.home)
    assert call(arguments) == 2
    *_, line = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") or line.startswith("python -m companion")
    places = [line.find(part) for part in (case.where, case.what, case.fix)]
    assert -1 not in places and places == sorted(places), line
    assert earlier.items() <= contents(world.output, world.home).items()
    assert not list(world.output.rglob("*.part")), "half-made files are left"
    assert not (world.place / in_checkpoints.RAN).exists(), "code that came with data was run"
    assert not list(world.place.parent.rglob("escaped*")) and not Path("/tmp/escaped.tif").exists()


def test_there_are_many_and_no_two_are_named_alike() -> None:
    names = [each.id for each in CASES]
    assert len(names) == len(set(names)) >= 170
    assert all(case.where and case.what and case.fix for (case,) in (each.values for each in CASES))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "none"], f"unknown profile 'none'. {PROFILES}"),
        (["--jobs", "0"], "--jobs is '0'. Give a whole number above 0"),
        (["--profile"], "--profile needs a value. See ./run_all.sh --help"),
        (["--cluster", "none"], "--cluster is 'none'. Give slurm or a folder"),
    ],
)
@pytest.mark.slow
def test_a_mistake_of_run_all(arguments: list[str], said: str, world: World) -> None:
    earlier = contents(world.output)
    script = paths.repository() / "run_all.sh"
    here = os.environ | {"VIRTUAL_ENV": sys.prefix}
    done = subprocess.run([script, *arguments], capture_output=True, text=True, env=here)
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert contents(world.output) == earlier


def test_no_command_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["trian"])
    shown = capsys.readouterr().err
    assert "invalid choice: 'trian'" in shown and "train" in shown
