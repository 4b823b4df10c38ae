"""Every committed table follows from the predictions committed beside it."""

import json
import re
import runpy
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest
from clipit_lib.inputs import Inputs
from clipit_lib.paths import repository
from companion import archive, archived, compare, registration, studies, tables
from companion.__main__ import main
from companion.figures import style
from companion.figures.gains import RANDOM
from companion.profile import Study, Workbench, load_profile
from companion.statistics import Cell, correct, crossed_gain, each_interval

ARCHIVES = sorted((repository() / "results").glob(f"*/{archived.PREDICTIONS}"))
NAMES = ["accuracy", "balanced_accuracy"]


def committed(pattern: str) -> list[Path]:
    return [path for each in ARCHIVES for path in sorted(each.parent.glob(pattern))]


TABLES = [
    path
    for path in committed("tables/*.csv")
    if "balanced_accuracy" in path.read_text()[:200] and path.stem != "colour_floor"
]


# Each archive is split into its runs once, for all tables; nothing below changes a run's rows.
by_run = cache(archived.by_run)


@cache
def sorted_by_sample(results: Path) -> dict[str, pd.DataFrame]:
    """The rows of each run, as they are kept, in the order of samples."""
    frame = pd.read_parquet(results / archived.PREDICTIONS).astype({"run": str, "group": str})
    return {str(key): own.sort_values("sample") for key, own in frame.groupby("run")}


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_table_is_recomputed_from_the_predictions_it_cites(path: Path) -> None:
    stored = pd.read_csv(path)
    kept = path.parents[1] / archived.PREDICTIONS
    found = by_run(kept)
    again = pd.concat([archive.scores(found[key]) for key in stored["run"]], ignore_index=True)
    pd.testing.assert_frame_equal(again, stored[NAMES], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "path", committed("tables/survival.csv"), ids=lambda path: path.parents[1].name
)
def test_survival_is_recomputed_from_the_risks_of_each_slide(path: Path) -> None:
    stored = pd.read_csv(path).set_index(["run", "fold"]).sort_index()
    kept = by_run(path.parents[1] / archived.RISKS)
    each = {key: archive.scores(own).set_index("fold") for key, own in kept.items()}
    found = pd.concat(each, names=["run"])
    for name in ("c_index", "iauc"):
        pd.testing.assert_series_equal(
            found.loc[stored.index, name], stored[name], atol=1e-4, rtol=0, check_dtype=False
        )


@pytest.mark.parametrize("kept", ARCHIVES, ids=lambda path: path.parent.name)
def test_every_cited_run_is_kept(kept: Path) -> None:
    figures = repository() / "figures" / kept.parent.name
    sidecars = [*kept.parent.glob("*.runs.json"), *kept.parent.glob("tables/*.runs.json")]
    sidecars += figures.glob("*.runs.json")
    cited = {key for path in sidecars for key in json.loads(path.read_text(encoding="utf-8"))}
    runs = set(pd.read_parquet(kept, columns=["run"])["run"])
    risks = kept.with_name(archived.RISKS)
    if risks.exists():
        runs |= set(pd.read_parquet(risks, columns=["run"])["run"])
    assert cited <= runs


@pytest.mark.parametrize("path", committed("tables/registered_*.csv"), ids=lambda path: path.stem)
def test_a_registered_answer_follows_from_the_predictions(path: Path) -> None:
    results = path.parents[1]
    runs = archived.listed(results).set_index("key")
    said = sorted_by_sample(results)
    cited = runs.loc[json.loads(path.with_suffix(".runs.json").read_text(encoding="utf-8"))]

    def cell(dataset: str, *settings: str) -> Cell:
        here = cited[cited["dataset"] == dataset].sort_values("seed")
        keys = [here.index[here["setting"] == name] for name in settings]
        hits = [np.stack([correct(said[key].dropna(axis=1)) for key in each]) for each in keys]
        one = said[keys[0][0]]
        units = one["group"].where(one["group"] != "", one["sample"])  # no patients: patches
        return Cell(dataset, *hits, one["label"].to_numpy(), units.to_numpy())

    for row in pd.read_csv(path).to_dict("records"):
        pair = row["first"], row["second"]
        gain = crossed_gain([cell(dataset, *pair) for dataset in sorted(set(cited["dataset"]))])
        ends = gain.interval()
        found = gain.estimate, ends.low, ends.high, gain.smallest
        assert found == pytest.approx(
            [row[n] for n in ("gain", "low", "high", "smallest")], abs=1e-4
        )
        assert row["word"] == gain.word()
    question = registration.load(path.stem.removeprefix("registered_")).question
    assert f"hash `{question.hash}`" in path.with_suffix(".md").read_text(encoding="utf-8")


def intervals(path: Path) -> list[str]:
    """Those of a table's gains, as they are written; none where it has none."""
    table = pd.read_csv(path)
    whole = {"gain", "low", "high"} <= set(table.columns)
    return each_interval(table).map(str).tolist() if whole else []


def test_every_interval_in_prose_is_that_of_stored_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """README and docs/results.md copy them by hand."""
    interval = re.compile(r"[+-]\d+\.\d (?:points )?\[[-+\d., ]+\]")

    def found(*paths: Path) -> set[str]:
        text = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in paths)
        return {said.replace("points ", "") for said in interval.findall(text)}

    monkeypatch.setenv("CLIPIT_PREDICTIONS", str(repository() / "results"))
    known = studies.stored(Workbench(load_profile("instrument")), "table1", "known")
    told = {  # beside the registered question of the known world; no table has them
        str(tables.pooled_gain(known, "unimodal", second).interval())
        for second in ("lora_only", "clip_it/own_100")
    }
    others = [run for run in known if run.spec.seed != 111]
    told.add(str(tables.pooled_gain(others, RANDOM, "clip_it/own_100").interval()))
    few = studies.stored(Workbench(load_profile("colon")), "unlabelled", "few_labels")
    alone = "clip_it/labels_4/passes_20/text_passes_7"  # which is older than that question
    told.add(str(tables.pooled_gain(few, alone, f"{alone}/unlabelled_100").interval()))
    of, passes = "labels_16/passes_5", "/text_passes_3"  # reports before stage one, afterwards
    before, after = f"clip_it/lora_vision_only/{of}", f"clip_it/{of}{passes}"
    for first, second in ((f"clip_it/image_centroids/{of}", before), (before, after)):
        ends = f"{first}/unlabelled_100", f"{second}/unlabelled_100"
        told.add(str(tables.pooled_gain(few, *ends).interval()))
    prose = found(repository() / "README.md", repository() / "docs/results.md")
    assert len(prose) > 60
    rows = (row for path in committed("tables/*.csv") for row in intervals(path))
    assert prose - found(*committed("tables/*.md"), *committed("claims.md")) - set(rows) == told


def test_every_question_stands_in_the_table_of_all_as_in_its_own() -> None:
    written = runpy.run_path(str(repository() / "workflow" / "registered.py"))
    found = pd.read_csv(repository() / "results" / "registered.csv")
    named = sorted(each.name for each in registration.every())
    assert sorted(found["question"]) == named, "name it in workflow/registered.py, and run that"
    columns = ["gain", "low", "high", "smallest"]
    for row in found.to_dict("records"):
        (path,) = committed(f"tables/registered_{row['question']}.csv")
        own = pd.read_csv(path).set_index("role").loc["primary"]
        assert [row[n] for n in columns] == pytest.approx([own[n] for n in columns], abs=1e-4)
        assert row["word"] == own["word"]
    page = (repository() / "docs" / "results.md").read_text(encoding="utf-8")
    parts = written["BEGIN"], written["table"](found), "\n", written["END"]
    assert "".join(parts) in page, "run `python workflow/registered.py`"


@pytest.mark.slow
def test_the_table_and_figure_of_all_questions_are_those_of_the_predictions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPIT_PREDICTIONS", str(repository() / "results"))
    written = runpy.run_path(str(repository() / "workflow" / "registered.py"))
    found = written["answered"]()
    kept = (repository() / "results" / "registered.csv").read_text(encoding="utf-8")
    assert found.to_csv(index=False, float_format="%.4f") == kept
    drawn = tmp_path / "registered.svg"
    style.write(written["figure_of"](found), drawn)
    assert drawn.read_bytes() == (repository() / "figures" / "registered.svg").read_bytes()


@pytest.mark.parametrize("profile", ["demo", "pilot", "colon", "tissue"])
@pytest.mark.slow
def test_a_rebuild_gives_the_committed_tables_and_figures_and_opens_nothing(
    profile: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("patches, reports or encoders were opened")

    for name in ("dataset", "named_corpus", "retriever", "backbone"):
        monkeypatch.setattr(Inputs, name, opened)
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    monkeypatch.setenv("CLIPIT_PREDICTIONS", str(repository() / "results"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert main(["rebuild", "--profile", profile]) == 0
    came, drawn = (repository() / kind / profile for kind in ("results", "figures"))
    files = [*came.glob("tables/*"), *came.glob("claims.*"), *drawn.glob("*.svg")]
    files += drawn.glob("*.json")
    again = [tmp_path / path.relative_to(repository()) for path in files]
    differ = [
        path.name
        for path, other in zip(files, again, strict=True)
        if path.read_bytes() != other.read_bytes()
    ]
    assert differ == [] and len(files) > 20
    assert came / "claims.csv" in files or profile == "tissue"  # whose verdicts are not kept
    assert max(path.stat().st_mtime for path in again) > time.time() - 600


def test_the_demo_s_fingerprint_is_of_the_tables_and_figures_that_are_here() -> None:
    kept = compare.read(compare.committed("demo"))
    for stage, folder in (("tables", "results/demo/tables"), ("figures", "figures/demo")):
        here = {name: file_digest(repository() / folder / name)[:16] for name in kept[stage]}
        assert here == kept[stage] and here


@pytest.mark.parametrize("profile", ["demo", "phantom"])
def test_an_archive_has_its_runs_by_name_and_says_what_it_lacks(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPIT_PREDICTIONS", str(repository() / "results"))
    bench = Workbench(load_profile(profile))
    (run, *_) = studies.stored(bench, "table1")
    kept = pd.read_parquet(repository() / "results" / profile / archived.PREDICTIONS)
    own = kept[kept["run"] == run.key].dropna(axis=1, how="all")
    assert len(run.predictions()) == len(own) and run.spec.setting == "unimodal"
    with pytest.raises(ClipItError, match="no validation predictions"):
        run.predictions("validation")
    with pytest.raises(ClipItError, match="no history"):
        run.history()
    more = {"table2": Study(settings=("zero_shot", "clip_it/lambda_7"))}
    other = Workbench(bench.profile.model_copy(update={"studies": more}))
    with pytest.raises(ClipItError, match=r"runs of table2 are not there"):
        studies.stored(other, "table2")


def test_the_archives_are_small_and_there() -> None:
    assert {"demo", "pilot"} <= {path.parent.name for path in ARCHIVES}
    whole = committed(archived.PREDICTIONS) + committed(archived.RISKS)
    assert sum(path.stat().st_size for path in whole) < 50e6  # of 3,500 runs


def test_no_result_names_a_folder_of_the_machine_it_was_made_on() -> None:
    machine = re.compile(r"(?<![\w.:/-])/(?:tmp|home|root|work|Users|mnt)/")
    kinds = ("*.md", "*.csv", "tables/*.md", "tables/*.csv", "report.html")
    results = [path for kind in kinds for path in committed(kind)]
    assert {path.name for path in results} >= {"claims.md", "own.md", "report.html"}
    assert [path for path in results if machine.search(path.read_text())] == []


def test_the_list_of_outputs_and_their_checksums_is_up_to_date() -> None:
    listed = runpy.run_path(str(repository() / "workflow" / "codecheck.py"))["text"]()
    assert "results/pilot/claims.csv" in listed and "results/demo/tables/table1.csv" in listed
    held = (repository() / "codecheck.yml").read_text(encoding="utf-8")
    assert held == listed, "run `python workflow/codecheck.py`"
