"""One cell of the demo, encoders included, gives the bytes that every machine must give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from clipit_lib import kernels, runs
from clipit_lib.files import digest
from clipit_lib.predictions import LOGIT
from companion import compare, paths, specs
from companion.__main__ import main
from companion.profile import Workbench, get_or_train, load_profile

DATASET, BACKBONE = "phantom-pcam", "phantom_vit_s16"
SETTINGS = ("unimodal", "lora_only", "clip_it")

held = pytest.mark.skipif(kernels.level() != "avx2", reason="kernels are not held on this machine")


@held
@pytest.mark.slow
def test_one_cell_of_the_demo_gives_the_same_bytes_on_every_machine() -> None:
    profile = load_profile("demo")
    bench = Workbench(profile)
    corpus = bench.corpus(DATASET)
    found: compare.Stages = {
        "patches": {DATASET: bench.dataset(DATASET).content_hash},
        "reports": {corpus.name: corpus.content_hash},
        "encoders": {
            name: get_or_train(name, profile)["weights_hash"]
            for name in (profile.retriever, BACKBONE)
        },
    }
    embeddings = bench.retriever_embeddings(DATASET, "train").tobytes()
    found["embeddings"] = {f"{DATASET} by {profile.retriever}": digest(embeddings)}
    pairs = bench.pairs(DATASET, "train", compare.PAIRS).reports.tobytes()
    found["pairs"] = {DATASET: digest(pairs)}
    found["runs"] = {}
    for setting in SETTINGS:
        run = runs.get_or_run(specs.resolve(bench, DATASET, BACKBONE, setting, 0), bench)
        logits = run.predictions().filter(like=LOGIT).to_numpy().tobytes()
        name = f"{DATASET} {BACKBONE} {setting} seed 0"
        found["runs"][name] = f"{run.key} {digest(logits)}"
    expected = compare.read(compare.committed("demo"))
    asked = {
        stage: {what: expected[stage].get(what, "not there") for what in digests}
        for stage, digests in found.items()
    }
    assert compare.parted(found, asked) == []


def test_the_first_stage_that_differs_is_named_first() -> None:
    expected = {"patches": {"a": "1", "b": "2"}, "runs": {"r": "3"}, "tables": {"t.csv": "4"}}
    assert compare.parted(expected | {"more": {"x": "5"}}, expected) == []
    found = {"patches": {"a": "1", "b": "9"}, "runs": {"r": "8"}, "tables": {"t.csv": "4"}}
    assert compare.parted(found, expected) == [
        "patches: 1 of 2 differ, first b",
        "runs: 1 of 1 differ, first r",
    ]
    assert compare.parted({}, expected)[0] == "patches: 2 of 2 differ, first a"


def compared(*folders: Path) -> int:
    try:
        return main(["compare", *map(str, folders)])
    except SystemExit as end:
        return int(str(end.code))


@pytest.mark.parametrize(
    ("table", "column", "value", "said", "code"),
    [
        ("table1", "accuracy", 1e-4, "within 0.001  tables/table1.csv", 0),
        ("table1", "accuracy", 5.0, "accuracy: 1 of 36 numbers, most in phantom-pcam", 1),
        ("table1", "accuracy", None, "against nan", 1),
        ("table1", "run", "0123456789abcdef", "within 0.001  tables/table1.csv", 0),
        ("table1", "setting", "another", "setting of phantom-pcam", 1),
        ("inference_latency", "median_ms", 5.0, "", 0),
        ("pareto", "on_front_gflops", False, "on_front_gflops: 1 of 48 numbers", 1),
    ],
)
def test_two_folders_of_results_are_compared(
    table: str, column: str, value: object, said: str, code: int, tmp_path: Path, capsys
) -> None:
    committed, other = paths.repository() / "results" / "demo", tmp_path / "demo"
    shutil.copytree(committed / "tables", other / "tables")
    shutil.copy(committed / "claims.csv", other)
    frame = pd.read_csv(other / "tables" / f"{table}.csv")
    moved = isinstance(value, float)
    frame.loc[0, column] = frame.loc[0, column] + value if moved else value
    frame.to_csv(other / "tables" / f"{table}.csv", index=False)
    assert compared(committed, other) == code
    shown = capsys.readouterr().out
    assert said in shown and (f"tables/{table}.csv" in shown) == (table != "inference_latency")
    assert "identical     claims.csv" in shown and shown.count("different") == 2 * code


def test_a_verdict_that_differs_is_listed(tmp_path: Path, capsys) -> None:
    committed = paths.repository() / "results" / "demo"
    claims = pd.read_csv(committed / "claims.csv")
    before = claims.loc[0, "verdict"]
    claims.loc[0, "verdict"] = "other"
    claims.to_csv(tmp_path / "claims.csv", index=False)
    assert compared(committed, tmp_path) == 1
    shown = capsys.readouterr().out
    assert f"verdict of {claims.loc[0, 'id']}: {before!r} against 'other'" in shown
    assert "different     tables/table1.csv\n    only in" in shown
    assert compared(committed, tmp_path / "none") == 2
    assert "no tables here. Name a folder such as results/demo" in capsys.readouterr().err
