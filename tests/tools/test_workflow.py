"""run_all.sh as its user runs it, at the smallest scale: every notebook, figure and table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from clipit_lib import kernels
from clipit_lib.paths import repository
from companion import figures
from companion.archive import scores
from companion.archived import by_run

pytestmark = pytest.mark.slow

TABLES = (
    "table1", "table2", "pareto", "complementarity", "tsne", "ablations", "text_statistics",
    "table6", "table7", "inference_cost", "survival", "map", "pairing_phantom-crc", "controls",
    "protocol_audit", "clip_audit", "controls_scores", "known", "power",
)  # fmt: skip
FIGURES = (
    *(name for name in TABLES if name != "controls_scores"),
    "ablation_curves",
    "pareto_paper",
    "controls_all",
    "target_spread",
    "claims",
)
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
    assert "to do 118" in planned.stdout and "estimate" in planned.stdout
    assert not (output / "results" / "smoke" / "tables").exists()
    done = shell(output, "./run_all.sh", "--profile", "smoke", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Finished profile smoke" in done.stdout
    return output


def test_every_notebook_ran_and_every_product_is_there(finished: Path) -> None:
    results = finished / "results" / "smoke"
    executed = {path.name.split("__")[0] for path in (results / "notebooks").glob("*.ipynb")}
    assert {name.removesuffix(".ipynb") for name in executed} == set(NOTEBOOKS)
    # Else one notebook would train them all by itself, at the end.
    assert list((results / "notebooks" / "runs").glob("text__*.txt"))
    for name in TABLES:
        for path in (results / "tables" / f"{name}.csv", results / "tables" / f"{name}.md"):
            assert path.stat().st_size > 0
    for name in FIGURES:
        for suffix in ("png", "svg"):
            assert (finished / "figures" / "smoke" / f"{name}.{suffix}").stat().st_size > 1000
        assert figures.meaning(name) is not None


def test_every_run_is_cited_by_a_table_and_kept(finished: Path) -> None:
    results = finished / "results" / "smoke"
    cited = {
        key
        for path in (results / "tables").glob("*.runs.json")
        if path.name != "survival.runs.json"  # kept in a folder of their own
        for key in json.loads(path.read_text())
    }
    assert {path.name for path in (results / "runs").glob("[0-9a-f]*")} == cited
    kept = pd.read_parquet(results / "predictions.parquet")
    assert set(kept["run"]) == cited and len(cited) == 118


def test_every_table_follows_from_the_kept_predictions(finished: Path) -> None:
    results = finished / "results" / "smoke"
    kept = by_run(results / "predictions.parquet")
    checked = 0
    for path in sorted((results / "tables").glob("*.csv")):
        table = pd.read_csv(path)
        if "run" in table and "balanced_accuracy" in table:
            names = ["accuracy", "balanced_accuracy"]
            again = pd.concat([scores(kept[key]) for key in table["run"]], ignore_index=True)
            pd.testing.assert_frame_equal(again, table[names], atol=1e-4, rtol=0)
            checked += 1
    assert checked >= 9


@pytest.mark.skipif(kernels.level() != "avx2", reason="kernels are not held on this machine")
def test_every_byte_is_that_of_every_other_machine(finished: Path) -> None:
    compared = shell(finished, sys.executable, "-m", "companion", "fingerprint", "-p", "smoke")
    assert compared.returncode == 0, compared.stderr
    assert "digests are equal, stage by stage" in compared.stdout


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
        tmp_path, sys.executable, "-m", "companion", "notebook", "01_pairing",
        "--output", str(tmp_path / "x.ipynb"), "--profile", "pilot",
    )  # fmt: skip
    assert ran.returncode == 2
    assert "CLIPIT_DATA: the variable is not set" in ran.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "x.ipynb").exists()
