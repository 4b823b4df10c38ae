"""run_all.sh as its user runs it, at the smallest scale: every notebook, figure and table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clipit_lib.paths import repository

NOTEBOOKS = sorted(p.stem for p in (repository() / "notebooks").glob("*.ipynb"))


def shell(output: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "CLIPIT_OUTPUT": str(output), "CLIPIT_CACHE": str(output / "cache"),
        "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": str(repository()),
    }  # fmt: skip
    return subprocess.run(
        command, cwd=repository(), env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("workflow")
    planned = shell(output, "./run_all.sh", "--profile", "smoke", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "to do 12" in planned.stdout and "estimate" in planned.stdout
    assert not (output / "results" / "smoke" / "tables").exists()
    done = shell(output, "./run_all.sh", "--profile", "smoke", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Finished profile smoke" in done.stdout
    return output


def test_every_notebook_ran_and_every_product_is_there(finished: Path) -> None:
    results = finished / "results" / "smoke"
    executed = {path.name.split("__")[0] for path in (results / "notebooks").glob("*.ipynb")}
    assert {name.removesuffix(".ipynb") for name in executed} == set(NOTEBOOKS)
    for name in ("table1", "pairing_phantom-crc", "pairing_phantom-pcam"):
        for path in (results / "tables" / f"{name}.csv", results / "tables" / f"{name}.md"):
            assert path.stat().st_size > 0
        for suffix in ("png", "svg"):
            assert (finished / "figures" / "smoke" / f"{name}.{suffix}").stat().st_size > 1000
    keys = json.loads((results / "tables" / "table1.runs.json").read_text())
    assert len(keys) == 12 and {p.name for p in (results / "runs").glob("[0-9a-f]*")} == set(keys)


def test_a_second_run_changes_nothing(finished: Path) -> None:
    tables = finished / "results" / "smoke" / "tables"
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    again = shell(finished, "./run_all.sh", "--profile", "smoke")
    assert again.returncode == 0 and "done    0" not in again.stdout
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == before


def test_one_cell_by_papermill_itself(finished: Path) -> None:
    command = (
        "papermill", "notebooks/02_training.ipynb", str(finished / "cell.ipynb"),
        "-p", "profile", "smoke", "-p", "dataset", "phantom-crc",
        "-p", "backbone", "phantom_vit_s16", "-p", "seeds", "[1]",
    )  # fmt: skip
    ran = shell(finished, sys.executable, "-m", *command)
    assert ran.returncode == 0, ran.stderr
    text = (finished / "cell.ipynb").read_text(encoding="utf-8")
    assert re.search(r"clip_it\s+seed 1\s+run [0-9a-f]{16}", text) and "seed 0" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "nope"), "unknown profile 'nope'"),
        (("--jobs", "none"), "--jobs is 'none'. Give a whole number above 0"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = shell(tmp_path, "./run_all.sh", *arguments)
    assert ran.returncode != 0
    assert said in ran.stderr and len(ran.stderr.strip().splitlines()) == 1


def test_the_pilot_without_its_data_says_what_to_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("CLIPIT_DATA", raising=False)
    ran = shell(
        tmp_path, sys.executable, "-m", "clipit_lib", "notebook", "01_pairing",
        "--output", str(tmp_path / "x.ipynb"), "-p", "profile", "pilot",
    )  # fmt: skip
    assert ran.returncode == 2
    assert "CLIPIT_DATA: the variable is not set" in ran.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "x.ipynb").exists()
