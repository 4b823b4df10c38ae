"""Every committed table follows from the predictions committed beside it."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipit_lib.paths import repository
from companion import archive, registration
from companion.statistics import Cell, correct, crossed_gain

ARCHIVES = sorted((repository() / "results").glob(f"*/{archive.PREDICTIONS}"))
NAMES = ["accuracy", "balanced_accuracy"]


def committed(pattern: str) -> list[Path]:
    return [path for each in ARCHIVES for path in sorted(each.parent.glob(pattern))]


TABLES = [
    path for path in committed("tables/*.csv") if "balanced_accuracy" in path.read_text()[:200]
]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_table_is_recomputed_from_the_predictions_it_cites(path: Path) -> None:
    stored = pd.read_csv(path)
    kept = path.parents[1] / archive.PREDICTIONS
    found = archive.recomputed(kept, set(stored["run"])).set_index("run")
    again = found.loc[stored["run"], NAMES].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, stored[NAMES], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "path", committed("tables/survival.csv"), ids=lambda path: path.parents[1].name
)
def test_survival_is_recomputed_from_the_risks_of_each_slide(path: Path) -> None:
    stored = pd.read_csv(path).set_index(["run", "fold"]).sort_index()
    found = archive.recomputed_survival(path.parents[1] / archive.RISKS)
    found = found.astype({"run": str}).set_index(["run", "fold"]).sort_index()
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
    risks = kept.with_name(archive.RISKS)
    if risks.exists():
        runs |= set(pd.read_parquet(risks, columns=["run"])["run"])
    assert cited <= runs


@pytest.mark.parametrize("path", committed("tables/registered_*.csv"), ids=lambda path: path.stem)
def test_a_registered_answer_follows_from_the_predictions(path: Path) -> None:
    results = path.parents[1]
    runs = archive.listed(results).set_index("key")
    frame = pd.read_parquet(results / archive.PREDICTIONS).astype({"run": str, "group": str})
    said = {key: own.sort_values("sample") for key, own in frame.groupby("run")}
    cited = runs.loc[json.loads(path.with_suffix(".runs.json").read_text(encoding="utf-8"))]

    def hits(setting: str) -> np.ndarray:
        chosen = cited[cited["setting"] == setting].sort_values("seed")
        return np.stack([correct(said[key]) for key in chosen.index])

    one = said[cited.index[0]]
    for row in pd.read_csv(path).to_dict("records"):
        pair = hits(row["first"]), hits(row["second"])
        gain = crossed_gain([Cell("", *pair, one["label"].to_numpy(), one["group"].to_numpy())])
        ends = gain.interval()
        found = gain.estimate, ends.low, ends.high, gain.smallest
        assert found == pytest.approx(
            [row[n] for n in ("gain", "low", "high", "smallest")], abs=1e-4
        )
        assert row["word"] == gain.word()
    question = registration.load(path.stem.removeprefix("registered_")).question
    assert f"hash `{question.hash}`" in path.with_suffix(".md").read_text(encoding="utf-8")


def test_the_archives_are_small_and_there() -> None:
    assert {"demo", "pilot"} <= {path.parent.name for path in ARCHIVES}
    whole = committed(archive.PREDICTIONS) + committed(archive.RISKS)
    assert sum(path.stat().st_size for path in whole) < 20e6


def test_no_result_names_a_folder_of_the_machine_it_was_made_on() -> None:
    machine = re.compile(r"(?<![\w.:/-])/(?:tmp|home|root|work|Users|mnt)/")
    kinds = ("*.md", "*.csv", "tables/*.md", "tables/*.csv", "report.html")
    results = [path for kind in kinds for path in committed(kind)]
    made_here = [
        path for path in results if {"demo", "instrument", "phantom", "pilot"} & set(path.parts)
    ]
    assert {path.name for path in made_here} >= {"claims.md", "own.md", "report.html"}
    assert [path for path in made_here if machine.search(path.read_text())] == []
