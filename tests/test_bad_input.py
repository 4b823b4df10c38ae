"""Whatever a user gets wrong is one line with a remedy, and costs nothing that was there before."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from bad_input import in_commands, in_data, in_reports, in_settings, in_stores
from bad_input.case import BadInput, World
from PIL import Image

from clipit_lib import paths
from clipit_lib.__main__ import main
from clipit_lib.settings import reading
from clipit_lib.workbench import Workbench

AREAS = {"settings": in_settings, "data": in_data, "reports": in_reports, "stores": in_stores,
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
    shutil.copytree(output_folder / "cache" / "encoders", output / "cache" / "encoders")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, output)
        assert main(["train", "own", "-p", "profile", str(home / "mine.yaml")]) == 0
    return folder


def settle(patch: pytest.MonkeyPatch, output: Path) -> None:
    patch.setenv("CLIPIT_OUTPUT", str(output))
    patch.setenv("CLIPIT_CACHE", str(output / "cache"))
    patch.delenv("CLIPIT_DATA", raising=False)


@pytest.fixture
def world(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    place = tmp_path / "bad-place"
    place.mkdir()
    output = Path(shutil.copytree(before / "output", tmp_path / "output"))
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
    assert line.startswith("error: ") or line.startswith("python -m clipit_lib ")
    places = [line.find(part) for part in (case.where, case.what, case.fix)]
    assert -1 not in places and places == sorted(places), line
    assert earlier.items() <= contents(world.output, world.home).items()
    assert not list(world.output.rglob("*.part")), "half-made files are left"
    assert not (world.place / in_stores.RAN).exists(), "code that came with data was run"
    assert not list(world.place.parent.rglob("escaped*")) and not Path("/tmp/escaped.tif").exists()


def test_there_are_many_and_no_two_are_named_alike() -> None:
    names = [each.id for each in CASES]
    assert len(names) == len(set(names)) >= 80
    assert all(case.where and case.what and case.fix for (case,) in (each.values for each in CASES))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "none"], "unknown profile 'none'. Known: demo"),
        (["--jobs", "0"], "--jobs is '0'. Give a whole number above 0"),
        (["--profile"], "--profile needs a value. See ./run_all.sh --help"),
        (["--cluster", "none"], "--cluster is 'none'. Give slurm or a folder"),
    ],
)
def test_a_mistake_of_run_all(arguments: list[str], said: str, world: World) -> None:
    earlier = contents(world.output)
    script = paths.repository() / "run_all.sh"
    here = os.environ | {"VIRTUAL_ENV": sys.prefix}
    done = subprocess.run([script, *arguments], capture_output=True, text=True, env=here)
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert contents(world.output) == earlier


def test_no_command_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    shown = capsys.readouterr().err
    assert "unknown command 'trian'" in shown and "  train " in shown


NEVER = ("pickle.load", "pickle.loads", "joblib.load", "pd.read_pickle",
         "yaml.unsafe_load", "yaml.full_load", "exec")  # fmt: skip


def test_nothing_that_is_read_can_run_code() -> None:
    for path in sorted((paths.repository() / "clipit_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert name not in NEVER, f"{path}: {name}"
            if name == "torch.load":
                assert given.get("weights_only") == "True", path
            if name == "yaml.load":
                assert path.name == "reading.py" and issubclass(reading._Loader, yaml.SafeLoader)
            if name == "np.load":
                assert given.get("allow_pickle", "False") == "False", path
