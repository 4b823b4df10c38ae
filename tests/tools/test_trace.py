"""From a product back to its runs, with and without their folders, and what `collect` keeps."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from companion import archived, specs, tables
from companion.__main__ import main
from companion.archive import product, trace
from companion.profile import SlideTraining, Workbench
from companion.survival import SurvivalSpec
from companion.survival.model import c_index


@pytest.fixture(scope="module")
def output(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two runs with a table and a figure, and one survival run, collected."""
    folder = tmp_path_factory.mktemp("trace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPIT_OUTPUT", str(folder))
        own = Workbench(bench.profile)  # whose runs are stored there
        resolved = [
            specs.resolve(own, "phantom-crc", "phantom_vit_s16", "unimodal", seed)
            for seed in (0, 1)
        ]
        stored = [runs.get_or_run(spec, own) for spec in resolved]
        keys = [run.key for run in stored]
        tables.save_table("smoke", "table1", tables.run_table(stored), "words", keys)
        figures = folder / "figures" / "smoke"
        figures.mkdir(parents=True)
        for name, cited in (("table1", keys), ("pairing_x", [])):
            (figures / f"{name}.png").write_bytes(b"a picture")
            (figures / f"{name}.runs.json").write_text(json.dumps(cited))
        survival = survival_run(folder / "results" / "smoke" / "survival_runs")
        tables.save_table(
            "smoke", "survival", pd.DataFrame({"run": [survival]}), "words", [survival]
        )
        main(["collect", "--profile", "smoke"])
        yield folder


def survival_run(store: Path) -> str:
    """A survival run of two folds; the C-index of its slides is known from their order."""
    spec = SurvivalSpec(
        kernels="any", setting="clip_it", seed=7, cohort_hash="c", folds=2, hidden=4, dropout=0.0,
        training=SlideTraining(), validation=0.2,
    )  # fmt: skip
    slides = pd.DataFrame(
        {
            "slide": [f"s{i}" for i in range(12)],
            "time": np.arange(1.0, 13.0),
            "event": True,
            "fold": [1, 2] * 6,
            "log_risk": [-6.5, 0.25, -4, 1 / 3, -2, 0.1, 0, 5, 4, 2, 2.5, -1],
        }
    )
    folder = store / spec.key
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    slides.to_csv(folder / "predictions.csv", index=False)
    (folder / "done.json").write_text(json.dumps({"key": spec.key, "seconds": 1.5}))
    return spec.key


def without_folders(output: Path, target: Path) -> Path:
    """What a fresh clone has of it."""
    left_out = shutil.ignore_patterns("runs", "survival_runs", "cache")
    return Path(shutil.copytree(output, target, ignore=left_out))


@pytest.mark.parametrize("name", ["figures/smoke/table1.png", "results/smoke/tables/table1.md"])
def test_runs_behind_a_product(output: Path, name: str) -> None:
    found = trace(*product(output / name)).set_index("key")
    table = pd.read_csv(output / "results/smoke/tables/table1.csv").set_index("run")
    assert set(found.index) == set(table.index) and len(found) == 2
    columns = ["dataset", "backbone", "setting", "seed"]
    assert (found.loc[table.index, columns] == table[columns]).all(axis=None)
    assert np.allclose(found.loc[table.index, "accuracy"], table["accuracy"], atol=1e-4)
    assert set(found["run_folder"]) == {"here"}


def test_a_clone_without_run_folders_says_the_same(output: Path, tmp_path: Path) -> None:
    clone = without_folders(output, tmp_path / "clone")
    for name in ("figures/smoke/table1.png", "results/smoke/tables/survival.csv"):
        here, there = trace(*product(output / name)), trace(*product(clone / name))
        assert set(there["run_folder"]) == {"not here"}
        names = [column for column in here if column != "run_folder"]
        pd.testing.assert_frame_equal(here[names], there[names], check_dtype=False)


def test_survival_runs_have_their_c_index(output: Path) -> None:
    (row,) = trace(*product(output / "results/smoke/tables/survival.csv")).to_dict("records")
    slides = pd.read_csv(next(output.glob("results/smoke/survival_runs/*/predictions.csv")))
    folds = [
        c_index(
            np.ones((1, len(part)), int),
            *(part[n].to_numpy() for n in ("log_risk", "time", "event")),
        )
        for _, part in slides.groupby("fold")
    ]
    assert row["c_index"] == pytest.approx(np.mean(folds)) and row["setting"] == "clip_it"
    assert "accuracy" not in row


def test_an_older_version_of_a_run_can_still_be_traced(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "copy"))
    for path in copy.glob("results/smoke/runs/*/spec.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"a_field_of_old": 1}))
    product_here = product(copy / "figures/smoke/table1.png")
    assert set(trace(*product_here)["setting"]) == {"unimodal"}


def test_archived_predictions_are_exact(output: Path) -> None:
    kept = pd.read_parquet(output / "results" / "smoke" / archived.PREDICTIONS)
    for folder in output.glob("results/smoke/runs/[0-9a-f]*"):
        mine = runs.read(folder).predictions().drop(columns="split").set_index("sample")
        theirs = kept[kept["run"] == folder.name].set_index("sample").loc[mine.index]
        for name in mine:
            assert (mine[name].to_numpy() == theirs[name].to_numpy()).all()
        assert mine.filter(like="logit_").dtypes.eq("float32").all()


def test_archived_risks_are_exact(output: Path) -> None:
    kept = pd.read_parquet(output / "results" / "smoke" / archived.RISKS)
    slides = pd.read_csv(next(output.glob("results/smoke/survival_runs/*/predictions.csv")))
    for name in slides:
        assert (kept[name].to_numpy() == slides[name].to_numpy()).all()


def test_runs_are_listed_with_their_cost(output: Path) -> None:
    listed = archived.listed(output / "results" / "smoke").set_index("key")
    assert len(listed) == 3
    for folder in output.glob("results/smoke/runs/[0-9a-f]*"):
        assert listed.loc[folder.name, "seconds"] == runs.read(folder).done()["seconds"]
    assert listed[listed["dataset"] == "slides"]["seconds"].tolist() == [1.5]


def test_collect_keeps_what_the_archives_have_of_runs_that_are_gone(
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = output / "results" / "smoke"
    for case, left in (("one of each kind", 2), ("the survival run", 1), ("one run", 1)):
        copy = Path(shutil.copytree(output, tmp_path / case))
        monkeypatch.setenv("CLIPIT_OUTPUT", str(copy))
        gone, old = sorted(copy.glob("results/smoke/runs/[0-9a-f]*"))
        shutil.rmtree(gone)
        if case == "the survival run":
            (old / "spec.json").write_text('{"a_field_of_old": 1}')
        if case == "one run":
            shutil.rmtree(copy / "results/smoke/survival_runs")
        main(["collect", "--profile", "smoke"])
        said = f"{3 - left} cited runs are not here, or are of an older version"
        assert f"{said}: of {3 - left} what the archives have stays" in capsys.readouterr().out
        for name in (archived.PREDICTIONS, archived.RISKS, archived.RUNS):
            kept = copy / "results" / "smoke" / name
            assert kept.read_bytes() == (results / name).read_bytes(), (case, name)


def test_a_run_that_is_here_takes_the_place_of_an_archived_namesake(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "copy"))
    monkeypatch.setenv("CLIPIT_OUTPUT", str(copy))
    results = copy / "results" / "smoke"
    here, _ = sorted(results.glob("runs/[0-9a-f]*"))
    for path in (results / archived.RUNS, *results.glob("tables/*.json")):  # a table not made again
        path.write_text(path.read_text().replace(here.name, "0lder"))
    cited = [here.name, "0lder"]
    (results / "tables" / "again.runs.json").write_text(json.dumps(cited))
    main(["collect", "--profile", "smoke"])
    assert here.name in set(archived.listed(results)["key"])
    assert "0lder" not in set(archived.listed(results)["key"])


def test_the_command_prints_one_line_a_run(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", str(output / "figures/smoke/table1.png")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 3 and lines[1].split()[1:4] == [
        "phantom-crc", "phantom_vit_s16", "unimodal"
    ]  # fmt: skip
    assert main(["trace", str(output / "figures/smoke/pairing_x.png")]) == 0
    assert "no run is behind it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("figures/smoke/nothing.png", "no such file"),
        ("figures", "no such file"),
        ("results/smoke/predictions.parquet", "no predictions.runs.json beside it"),
    ],
)
def test_mistakes_are_one_line(
    output: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    with pytest.raises(ClipItError, match=said):
        product(output / name)
    assert main(["trace", str(output / name)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
