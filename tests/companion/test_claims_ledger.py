"""Verdicts of the ledger from simulated runs of a known truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipit_lib import runs
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import claims, paths, studies
from companion.claims import Finding, Shelf, Verdict, evaluate, ledger_table, load_claims
from companion.figures.gains import claims_figure
from companion.profile import Study, Workbench, load_profile

REPRODUCED, UNDECIDED, NOT, UNTESTABLE = Verdict
CLAIMS = {claim.id: claim for claim in load_claims().claims}
PATCHES = 200


@dataclass(frozen=True)
class Simulated(StoredRun):
    """A run that is right on the first patches of each class, as many as it is told."""

    right: np.ndarray

    def predictions(self, split: str = "test") -> pd.DataFrame:
        label = np.arange(PATCHES) % 2
        answer = np.where(self.right, label, 1 - label)
        ids = np.arange(PATCHES).astype(str)
        frame = pd.DataFrame({"sample": ids, "group": "", "label": label})
        return frame.assign(logit_0=1.0 - answer, logit_1=1.0 * answer)


Accuracy = Callable[[RunSpec], float]
ORDER = CLAIMS["rank_order"].order


@pytest.fixture(scope="module")
def whole(bench: Workbench) -> Workbench:
    """The smoke profile with every setting that a claim needs."""
    compared = [c for c in CLAIMS.values() if c.study == "ablations"]
    names = {name for claim in compared for name in claim.settings}
    more = {
        "ablations": Study(settings=tuple(sorted(names))),
        "table7": Study(settings=("unimodal", "clip_it", "clip_it/retriever_phantom_clip_noisy")),
    }
    update = {"studies": bench.profile.studies | more, "bootstrap_draws": 200}
    return Workbench(bench.profile.model_copy(update=update))


@cache
def runs_of_all_studies(bench: Workbench) -> dict[str, RunSpec]:
    names = [name for name in studies.STUDIES if studies.asked(bench.profile, name)]
    return {spec.key: spec for name in names for spec in studies.runs_of(bench, name)}


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Put runs of a known accuracy (percent) in the place of stored ones, and no tables."""
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))

    def put(bench: Workbench, accuracy: Accuracy, but: str = "") -> None:
        known = runs_of_all_studies(bench)

        def find(profile: str, key: str) -> Simulated | None:
            spec = known[key]
            if spec.setting == but and spec.seed == 0:
                return None
            right = np.arange(PATCHES) < round(PATCHES * accuracy(spec) / 100)
            return Simulated(paths.runs(profile) / key, spec, right)

        monkeypatch.setattr(runs, "find", find)

    return put


def verdicts_of(bench: Workbench) -> dict[str, Finding]:
    return {one.claim.id: one.finding for one in evaluate(bench)}


def test_a_world_as_the_paper_has_it(whole: Workbench, simulate) -> None:
    truth = {"unimodal": 70, "lora_only": 71, "clip_it/architecture_only": 70,
             "clip_it/random_reports": 70, "clip_it/without_lora": 65, "clip_it": 80,
             "clip_it/word_dropout_30": 80, "clip_it/word_dropout_50": 72, "text": 60,
             "clip_it/early_fusion": 78, "clip_it/direct_distillation": 74}  # fmt: skip
    truth |= {name: 80 - 2 * rank for rank, name in enumerate(ORDER)}
    simulate(whole, lambda spec: truth.get(spec.setting, 50))
    found = verdicts_of(whole)
    assert found["gain_pcam"].ours == pytest.approx(10) and found["gain_pcam"].low > 0
    expected = {
        "gain_bach": UNTESTABLE, "reports_over_prompts": REPRODUCED,
        "architecture_gives_nothing": REPRODUCED, "random_falls_to_unimodal": REPRODUCED,
        "dropout_30_holds": REPRODUCED, "domain_over_generic": UNTESTABLE,
        "real_over_synthetic": UNTESTABLE,
    }  # fmt: skip
    names = (
        "gain_pcam",
        "gain_crc",
        "gain_overall",
        "gains_in_most_cells",
        "no_significant_loss",
        "text_drives_the_gain",
        "lora_matters",
        "without_lora_below_probe",
        "late_over_early",
        "branch_over_direct",
        "dropout_50_falls",
        "rank_order",
        "pairing_over_random",
    )
    expected |= dict.fromkeys(names, REPRODUCED)
    assert {name: found[name].verdict for name in expected} == expected
    reasons = {name: f.reason for name, f in found.items() if f.verdict is UNTESTABLE}
    assert reasons["gain_bach"] == "no such data set in the profile"
    missing = "clip_it/retriever_CLIP not in the profile's table7"
    assert reasons["domain_over_generic"] == missing
    assert reasons["pareto"] == "no table pareto"
    assert found["gain_pcam"].reason.startswith("1 cell, 2 seeds; the paper's +2.87 lies below")
    assert len(found["gain_pcam"].runs) == 4
    assert found["gain_overall"].reason.startswith("2 cells, 2 seeds; ")


def test_a_retriever_of_the_paper_is_found_by_its_namesake(whole: Workbench, simulate) -> None:
    truth = {"unimodal": 70, "clip_it": 80, "clip_it/retriever_phantom_clip_noisy": 76}
    simulate(whole, lambda spec: truth.get(spec.setting, 50))
    over_quilt = CLAIMS["domain_over_generic"].model_copy(
        update={"first": "clip_it/retriever_QUILTNet"}
    )
    (judged,) = evaluate(whole, [over_quilt])
    assert judged.finding.verdict is REPRODUCED
    assert judged.finding.ours == pytest.approx(4)


def test_a_world_where_the_paper_is_wrong(whole: Workbench, simulate) -> None:
    def accuracy(spec: RunSpec) -> float:
        if spec.setting == "clip_it":
            return 60 if spec.dataset == "phantom-crc" else 75.5
        better = {"lora_only": 75, "clip_it/architecture_only": 80, "clip_it/random_reports": 80}
        return better.get(spec.setting, 75)

    simulate(whole, accuracy)
    found = verdicts_of(whole)
    expected = {
        "gain_pcam": UNDECIDED,  # one patch in two hundred
        "gain_crc": NOT, "gain_overall": NOT, "gains_in_most_cells": NOT,
        "no_significant_loss": NOT, "text_drives_the_gain": NOT, "lora_matters": UNDECIDED,
        "architecture_gives_nothing": NOT, "pairing_over_random": NOT,
        "dropout_30_holds": UNDECIDED, "rank_order": UNDECIDED,
    }  # fmt: skip
    assert {name: found[name].verdict for name in expected} == expected
    assert found["gains_in_most_cells"].ours == pytest.approx(0.5)
    assert "phantom-crc, phantom_vit_s16" in found["no_significant_loss"].reason
    assert found["text_drives_the_gain"].ours == pytest.approx(-4.5)  # the weakest, not the mean


def test_ranks_fall_by_their_means_and_need_three(whole: Workbench, simulate) -> None:
    means = dict(zip(ORDER, (80, 70, 78, 60, 62), strict=True))
    simulate(whole, lambda spec: means.get(spec.setting, 50))
    found = verdicts_of(whole)["rank_order"]
    # Ranks 1..5 against the places 5 3 4 1 2 of the means: 1 - 6 * 36 / (5 * 24) = -0.8
    assert "Spearman -0.80 over 5 ranks" in found.reason
    assert found.ours == pytest.approx(18) and found.verdict is REPRODUCED
    two = Study(settings=("clip_it", "clip_it/report_rank_2"))
    lean = whole.profile.model_copy(update={"studies": {"ablations": two}})
    found = verdicts_of(Workbench(lean))["rank_order"]
    assert found.verdict is UNTESTABLE and found.reason.startswith("2 ranks")


def test_one_missing_run_makes_its_claims_untestable(whole: Workbench, simulate) -> None:
    simulate(
        whole, lambda spec: 80 if spec.setting == "clip_it" else 70, but="clip_it/early_fusion"
    )
    found = verdicts_of(whole)
    assert found["late_over_early"].verdict is UNTESTABLE
    assert found["late_over_early"].reason == "runs missing (1 of 4)"
    assert found["branch_over_direct"].verdict is REPRODUCED


def test_an_empty_store_trains_nothing(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def trained(*_: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    monkeypatch.setattr(runs, "get_or_run", trained)
    monkeypatch.setattr(runs, "perform", trained)
    found = verdicts_of(bench)
    assert {finding.verdict for finding in found.values()} == {UNTESTABLE}
    assert found["gain_pcam"].reason == "runs missing (4 of 4)"
    assert list(tmp_path.iterdir()) == []


def test_a_study_not_asked_for_is_said(bench: Workbench) -> None:
    lean = Workbench(bench.profile.model_copy(update={"studies": {}, "survival": None}))
    found = verdicts_of(lean)
    assert found["late_over_early"].reason == "ablations not in the profile"
    assert found["survival"].reason == "survival not in the profile"


def test_the_files(whole: Workbench, simulate) -> None:
    simulate(whole, lambda spec: 80 if spec.setting == "clip_it" else 70)
    judged = evaluate(whole)
    text = claims.claims_text(whole.profile, judged, load_claims())
    claims.save_ledger("smoke", judged, text)
    folder = paths.results("smoke")
    table = pd.read_csv(folder / "claims.csv")
    assert list(table) == ["id", "claim", "where", "paper", "rule", "ours", "low", "high",
                           "verdict", "reason", "runs"]  # fmt: skip
    pd.testing.assert_frame_equal(table, ledger_table(judged).fillna({"reason": ""}), atol=1e-4)
    keys = json.loads((folder / "claims.runs.json").read_text())
    assert set(keys) <= set(runs_of_all_studies(whole)) and len(keys) > 20
    found = claims.counts(judged)
    assert sum(found.values()) == len(table) == len(CLAIMS)
    read = (folder / "claims.md").read_text()
    for verdict, count in found.items():
        assert f"{count} {verdict}" in read.splitlines()[2]
        assert (f"## {str(verdict).capitalize()} ({count})" in read) == (count > 0)
    assert "No run of this profile is recorded" in read and "Revised 2026-11-28" in read
    assert "Ours is a phantom" in read


def omega(bench: Workbench) -> Finding:
    return evaluate(bench, [CLAIMS["omega_largest_on_pcam"]])[0].finding


def test_omega_is_the_mean_over_backbones(bench: Workbench, simulate) -> None:
    twice = {"backbones": ("phantom_vit_s16", "phantom_clip")}
    bench = Workbench(bench.profile.model_copy(update=twice))

    def accuracy(spec: RunSpec) -> float:
        if spec.setting == "text":
            return 80
        if spec.dataset == "phantom-crc":
            return 75
        return 70 if spec.backbone == "phantom_clip" else 40

    simulate(bench, accuracy)
    found = omega(bench)
    # Text is right on all that vision has right: omega is the difference of their accuracies.
    assert found.ours == pytest.approx((10 + 40) / 2) and found.verdict is REPRODUCED
    assert found.low < 25 < found.high and "phantom-crc 5.0" in found.reason
    simulate(bench, lambda spec: 78 if "pcam" in spec.dataset and spec.setting != "text" else 79)
    assert omega(bench).verdict is UNDECIDED
    simulate(bench, lambda spec: 80 if spec.setting == "text" or "pcam" in spec.dataset else 40)
    assert omega(bench).verdict is NOT
    alone = {
        "data": {"phantom-pcam": bench.profile.data["phantom-pcam"]},
        "studies": bench.profile.studies | {"table1": Study(datasets=("phantom-pcam",))},
    }
    found = omega(Workbench(bench.profile.model_copy(update=alone)))
    assert found.reason == "no PCAM beside another data set"


def test_the_figure_shows_every_claim_in_points(whole: Workbench, simulate) -> None:
    simulate(
        whole, lambda spec: 80 if spec.setting == "clip_it" else 70, but="clip_it/early_fusion"
    )
    judged = evaluate(whole)
    figure = claims_figure(judged, claims.headline(whole.profile))
    axis = figure.axes[0]
    shown = [text.get_text() for text in axis.get_yticklabels()]
    numbered = [c for c in CLAIMS.values() if c.in_points]
    without = [o.claim.id for o in judged if o.claim.in_points
               and o.finding.ours is None and o.claim.paper_gain is None]  # fmt: skip
    assert len(shown) == len(numbered) - len(without)
    assert "Late over early (Figure 5)" in shown[-6:] and "Gain PCAM (Table 1)" in shown[:6]
    assert "phantom, not tissue" in axis.get_title(loc="left")
    hollow = [float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "*"]
    assert sorted(each for each in hollow if np.isfinite(each)) == sorted(
        c.paper_gain for c in CLAIMS.values() if c.paper_gain is not None
    )


def test_a_world_whose_answer_is_known_tests_no_claim(bench: Workbench) -> None:
    assert studies.runs_of(bench, "known") and not Shelf(bench).specs("known")
    assert claims.is_phantom(load_profile("instrument"))  # and is called so
