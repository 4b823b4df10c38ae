"""From a figure or table back to its runs, with the run folders and without them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from clipit_lib import collect, paths, runs, specs, tables
from clipit_lib.__main__ import main
from clipit_lib.trace import product, trace
from clipit_lib.workbench import Workbench

CELL = ("phantom-pcam", "phantom_vit_s16")


@pytest.fixture
def kept(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two runs in a folder of its own, collected; then the run folders are gone."""
    stored = [
        runs.get_or_run(specs.resolve(bench, *CELL, name, 0), bench)
        for name in ("unimodal", "clip_it")
    ]
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    for run in stored:
        shutil.copytree(run.folder, paths.runs("smoke") / run.key)
    keys = [run.key for run in stored]
    tables.save("smoke", "table1", tables.run_table(stored), "x", keys)
    picture = paths.figures("smoke") / "table1.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    (picture.parent / "table1.runs.json").write_text(json.dumps(keys))
    collect.main(["--profile", "smoke"])
    return tmp_path


def test_a_figure_leads_to_its_runs_with_folders_and_without(kept: Path, capsys) -> None:
    picture = paths.figures("smoke") / "table1.png"
    with_folders = trace(product(picture))
    shutil.rmtree(paths.runs("smoke"))
    without = trace(product(picture))
    assert set(with_folders["run_folder"]) == {"here"}
    assert set(without["run_folder"]) == {"not here"}
    columns = ["key", "dataset", "backbone", "setting", "seed", "balanced_accuracy", "accuracy"]
    assert with_folders[columns].equals(without[columns])
    assert sorted(without["setting"]) == ["clip_it", "unimodal"]
    for path in (
        picture,
        paths.tables("smoke") / "table1.csv",
        paths.tables("smoke") / "table1.md",
    ):
        assert main(["trace", str(path)]) == 0
        out = capsys.readouterr().out
        assert all(key in out for key in without["key"])


def test_the_scores_are_those_of_the_table(kept: Path) -> None:
    table = pd.read_csv(paths.tables("smoke") / "table1.csv").set_index("run")
    shutil.rmtree(paths.runs("smoke"))
    found = trace(product(paths.tables("smoke") / "table1.csv")).set_index("key")
    for key, row in table.iterrows():
        assert found.loc[key, "balanced_accuracy"] == pytest.approx(
            row["balanced_accuracy"], abs=1e-3
        )


@pytest.mark.parametrize(
    ("name", "text"),
    [("none.png", "no such file"), ("alone.png", "there is no alone.runs.json beside it")],
)
def test_what_cannot_be_traced_is_said(tmp_path: Path, capsys, name: str, text: str) -> None:
    (tmp_path / "alone.png").touch()
    assert main(["trace", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err.strip()
    assert text in error and "\n" not in error


def test_collect_names_what_is_cited_and_gone(kept: Path, capsys) -> None:
    first = next(paths.runs("smoke").glob("[0-9a-f]*"))
    shutil.rmtree(first)
    collect.main(["--profile", "smoke"])
    assert "1 cited runs are not here" in capsys.readouterr().out
