"""Claims with a rule of their own, from tables written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import claims, paths
from companion import survival as study
from companion.claims import Finding, Verdict, evaluate, load_claims
from companion.cost import MERGED, UNIMODAL
from companion.profile import SlideTraining, Workbench
from companion.survival import SurvivalRun, SurvivalSpec

REPRODUCED, UNDECIDED, NOT, UNTESTABLE = Verdict
CLAIMS = {claim.id: claim for claim in load_claims().claims}


@pytest.fixture(autouse=True)
def output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No tables but those that a test writes."""
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))


def one(bench: Workbench, name: str) -> Finding:
    return evaluate(bench, [CLAIMS[name]])[0].finding


def write_table(name: str, rows: list[tuple], columns: str) -> None:
    path = paths.tables("smoke") / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns.split()).to_csv(path, index=False)


@pytest.mark.parametrize(("ours", "verdict"), [(3, REPRODUCED), (2, UNDECIDED), (1, NOT)])
def test_pareto_counts_each_model_once(bench: Workbench, ours: int, verdict) -> None:
    rows = [("d", f"b{k}", "clip_it" if k < ours else "unimodal", seed, True, f"r{k}{seed}")
            for k in range(4) for seed in range(1 + (k == 3))]  # fmt: skip
    rows.append(("d", "b", "clip_it", 0, False, "off"))
    write_table("pareto", rows, "dataset backbone setting seed on_front_parameters run")
    found = one(bench, "pareto")
    assert found.verdict is verdict and found.ours == pytest.approx(ours / 4)


@pytest.mark.parametrize(
    ("cosine", "explained", "verdict"),
    [
        (0.9, (0.5, 0.5), REPRODUCED), (0.89, (0.5, 0.5, 0.6), NOT),
        (0.99, (0.4, 0.4, 0.5), UNDECIDED),
        (0.99, (0.0, 0.3), UNDECIDED), (0.99, (-9.0, -8.0), NOT), (0.89, (0.6,), NOT),
    ],
)  # fmt: skip
def test_distillation(bench: Workbench, cosine: float, explained, verdict) -> None:
    rows = [("d", seed, cosine, value, f"r{seed}") for seed, value in enumerate(explained)]
    write_table("text_statistics", rows, "dataset seed cosines_mean explained run")
    found = one(bench, "distillation_near_one")
    assert found.verdict is verdict and found.ours == pytest.approx(np.mean(explained))


def test_the_interval_over_runs_is_students(bench: Workbench) -> None:
    rows = [(0.5, value, f"r{value}") for value in (0.1, 0.2, 0.3)]
    write_table("text_statistics", rows, "cosines_mean explained run")
    found = one(bench, "distillation_near_one")
    half = 4.3027 * 0.1 / np.sqrt(3)  # t of two degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)


@pytest.mark.parametrize(
    ("whole_model", "added", "verdict"),
    [(34e9, 2e6, REPRODUCED), (34e9, 2e7, UNDECIDED), (1e9, 1e7, UNDECIDED), (1e9, 1.1e7, NOT)],
)
def test_added_cost_counts_multiply_adds(
    bench: Workbench, whole_model: float, added: float, verdict
) -> None:
    rows = [
        (name, batch, flops + batch)
        for batch in (1, 64)
        for name, flops in ((UNIMODAL, whole_model), (MERGED, whole_model + added * batch))
    ]
    write_table("inference_cost", rows, "variant batch flops")
    found = one(bench, "no_added_cost")
    assert found.verdict is verdict and found.ours == pytest.approx(added / 2e9)


def survival_run(setting: str, risk: np.ndarray, seed: int) -> SurvivalRun:
    spec = SurvivalSpec(
        kernels="any", setting=setting, seed=seed, cohort_hash="c", folds=2, hidden=4,
        dropout=0.0, training=SlideTraining(epochs=1), validation=0.2,
    )  # fmt: skip
    folder = paths.results("smoke") / "survival_runs" / spec.key
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({
        "slide": [f"s{k}" for k in range(60)], "time": 1.0 + np.arange(60), "event": True,
        "fold": np.arange(60) % 2 + 1, "log_risk": risk,
    })  # fmt: skip
    frame.to_csv(folder / "predictions.csv", index=False)
    (folder / "spec.json").write_text(spec.model_dump_json())
    (folder / "done.json").write_text("{}")
    return SurvivalRun(folder, spec)


def test_survival_compares_with_the_unimodal_model(bench: Workbench) -> None:
    late, noise = -np.arange(60.0), np.random.default_rng(0).permutation(60) * 1.0
    for risks, verdict in (((noise, late), REPRODUCED), ((late, noise), NOT)):
        by_setting = dict(zip(("unimodal", "clip_it"), risks, strict=True))
        stored = [survival_run(*each, seed) for seed in (0, 1) for each in by_setting.items()]
        table = study.run_table(stored)
        write_table("survival", table.to_numpy().tolist(), " ".join(table.columns))
        found = one(bench, "survival")
        means = table.groupby("setting")["c_index"].mean()
        assert found.verdict is verdict and len(found.runs) == 4
        assert found.ours == pytest.approx(means["clip_it"] - means["unimodal"])
    (stored[0].folder / "done.json").unlink()
    assert one(bench, "survival").reason == "runs missing"


def test_both_metrics_of_survival_count(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = survival_run("clip_it", np.arange(60.0), 0)
    table = study.run_table([run])
    write_table("survival", table.to_numpy().tolist(), " ".join(table.columns))
    rows = [("c_index", 0.2, 0.1, 0.3), ("iauc", 0.1, -0.1, 0.3)]
    limits = pd.DataFrame(rows, columns=["metric", "value", "low", "high"])
    monkeypatch.setattr(study, "intervals", lambda *_: limits.assign(over="unimodal"))
    assert one(bench, "survival").verdict is UNDECIDED


def test_only_cells_with_all_settings_are_judged(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [("one", "a"), ("one", "b"), ("two", "a")]
    specs = [RunSpec.model_construct(dataset="d", backbone=b, setting=s) for b, s in cells]
    stored = {spec.backbone + spec.setting: StoredRun(Path(spec.key), spec) for spec in specs}
    monkeypatch.setattr(claims.Shelf, "specs", lambda *_: specs)
    monkeypatch.setattr(claims.studies, "find", lambda _, s: stored[s.backbone + s.setting])
    found = claims.Shelf(bench).runs("any", ["a", "b"])
    assert [(run.spec.backbone, run.spec.setting) for run in found] == cells[:2]
