"""The claims: the file, and each rule on hand-made numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from clipit_lib.errors import ClipItError
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import measures, paper, specs, studies
from companion.claims import ledger, rules
from companion.claims import ledger as words
from companion.claims.rules import FUNCTIONS, Finding, Verdict, load_claims
from companion.paper import HERE
from companion.profile import Profile, load_profile
from companion.statistics import Interval

REPRODUCED, DIRECTION, NOT, UNTESTABLE = Verdict
CLAIMS = {claim.id: claim for claim in load_claims().claims}


# Rules


@pytest.mark.parametrize(
    ("value", "gain", "equal", "not_worse"),
    [
        (Interval(2.0, 1.5, 2.5), REPRODUCED, NOT, REPRODUCED),
        (Interval(0.5, 0.0, 1.0), DIRECTION, REPRODUCED, REPRODUCED),  # 0 is not above 0
        (Interval(0.5, 0.01, 1.01), REPRODUCED, DIRECTION, REPRODUCED),
        (Interval(0.0, -1.0, 1.0), NOT, REPRODUCED, DIRECTION),  # -1 is within, not above -1
        (Interval(1.0, -0.5, 3.0), DIRECTION, DIRECTION, REPRODUCED),
        (Interval(-1.0, -2.0, -0.5), NOT, DIRECTION, NOT),
        (Interval(-1.1, -2.0, 4.0), NOT, NOT, NOT),
    ],
)
def test_rules_on_intervals(
    value: Interval, gain: Verdict, equal: Verdict, not_worse: Verdict
) -> None:
    assert rules.above(value) is gain
    assert rules.equal(value, 1.0) is equal
    assert rules.above(value, -1.0) is not_worse


def test_rules_on_cells() -> None:
    higher = {k: rules.share_higher([1.0] * k + [0.0] * (18 - k), 0.83) for k in range(19)}
    assert [k for k, v in higher.items() if v is REPRODUCED] == [15, 16, 17, 18]  # the paper's 15
    assert [k for k, v in higher.items() if v is DIRECTION] == [10, 11, 12, 13, 14]  # 9 is half
    assert rules.share_higher([1.0, 0.0], 0.5) is REPRODUCED
    assert rules.no_loss([0.0, 1.0]) is REPRODUCED  # 0 is not below 0
    assert rules.no_loss([-1.0] + [1.0] * 9) is DIRECTION
    assert rules.no_loss([-1.0] + [1.0] * 8) is NOT


def test_the_weakest_verdict_counts() -> None:
    assert rules.weakest_of([REPRODUCED, NOT, DIRECTION]) is NOT
    assert rules.weakest_of([REPRODUCED, DIRECTION]) is DIRECTION


@pytest.mark.parametrize(
    ("correlation", "low", "verdict"),
    [
        (-1.0, 0.1, REPRODUCED), (-1.0, 0.0, DIRECTION), (-0.5, 0.1, DIRECTION),
        (-0.5 - 1e-15, -1.0, NOT), (-0.51, -1.0, DIRECTION), (0.9, -1.0, NOT),
    ],
)  # fmt: skip
def test_falling_needs_both(correlation: float, low: float, verdict: Verdict) -> None:
    assert rules.falling(correlation, Interval(1.0, low, 2.0)) is verdict


class Given(rules.Shelf):
    """One run of each of some data sets, whatever is asked for."""

    def __init__(self, *names: str) -> None:
        self.draws, self.names = 1, names

    def runs(self, *_: Any) -> list[StoredRun]:
        spec = RunSpec.model_construct(backbone="b", setting="s", seed=0)
        return [
            StoredRun(Path(name), spec.model_copy(update={"dataset": name})) for name in self.names
        ]


@pytest.mark.parametrize(
    ("low", "estimate", "verdict"),
    [(20.1, 30.0, REPRODUCED), (20.0, 30.0, DIRECTION), (9.0, 20.0, NOT), (9.0, 10.0, NOT)],
)
def test_omega_on_pcam_is_above_that_of_every_other_data_set(
    low: float, estimate: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    omegas = {
        "phantom-pcam": Interval(estimate, low, 40.0),
        "phantom-crc": Interval(20.0, 1.0, 99.0),
        "phantom-bach": Interval(5.0, 1.0, 9.0),
    }
    kinds = ("counterpart", "omega")
    cells = {(name, "b", kind): (name, kind) for name in omegas for kind in kinds}
    monkeypatch.setattr(rules, "matched", lambda *_: [])
    monkeypatch.setattr(rules, "case_cells", lambda _: cells)

    def bootstrap(chosen: list[tuple[str, str]], *_: Any) -> Interval:
        ((name, kind),) = chosen
        assert kind == "omega"
        return omegas[name]

    monkeypatch.setattr(rules, "pooled_bootstrap", bootstrap)
    found = rules.omega_largest_on_pcam(Given(*omegas))
    assert (found.verdict, found.ours, found.low) == (verdict, estimate, low)
    with pytest.raises(rules.Untestable, match="no PCAM beside another"):
        rules.omega_largest_on_pcam(Given("phantom-pcam"))


def test_ours_of_several_gains_is_the_smallest_of_the_weakest_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = CLAIMS["text_drives_the_gain"]
    gains = dict.fromkeys(claim.firsts, Interval(9.0, -1.0, 19.0))  # direction only, and more
    gains[claim.firsts[0]] = Interval(3.0, 1.0, 5.0)  # reproduced, and the smallest
    gains[claim.firsts[-1]] = Interval(5.0, -1.0, 11.0)
    monkeypatch.setattr(rules, "_pooled_gain", lambda runs, first, *_: gains[first])
    found = rules.finding_of(claim, Given("d"))
    assert (found.verdict, found.ours) == (DIRECTION, 5.0)


# The file


def test_every_claim_names_settings_and_studies_that_exist() -> None:
    profile = load_profile("demo")
    assert len(CLAIMS) >= 28
    assert {c.id for c in CLAIMS.values() if c.kind == "own"} == set(FUNCTIONS)
    for claim in CLAIMS.values():
        if claim.kind != "own":
            assert claim.study in studies.STUDIES
            for name in claim.settings:
                specs.fields_of(name, profile)  # raises for a name that means nothing
        assert claim.rule.startswith(("reproduced: ", "over each setting, reproduced: "))
        assert "direction only: " in claim.rule


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            "    margn: 1.0\n",
            "line 11, column 5: claims.margn: unknown key; perhaps margin",
        ),
        (
            "    margin: 1.0\n",
            "line 3, column 5: claims: a claim of kind gain has study, second",
        ),
        (
            "    kind: equal\n",
            "line 3, column 5: claims: a claim of kind equal has study, second",
        ),
        ("    kind: gains_much\n", "claims.kind: Input should be 'gain', 'equal'"),
        ("    paper_gain: much\n", "claims.paper_gain: Input should be a valid number"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, added: str, said: str) -> None:
    path = tmp_path / "claims.yaml"
    text = (
        "seen: {}\nclaims:\n  - id: a\n    claim: b\n    where: c\n    paper: d\n    kind: gain\n"
        "    study: table1\n    second: clip_it\n    first: unimodal\n"
    )
    replaced = "    kind: gain\n" if "kind:" in added else ""  # a key twice is another mistake
    path.write_text(text.replace(replaced, "") + added)
    with pytest.raises(ClipItError) as error:
        load_claims(path)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1
    path.write_text(text)
    assert load_claims(path).claims[0].id == "a"


def test_the_papers_gains_follow_from_its_tables() -> None:
    assert len(CLAIMS) == len(load_claims().claims)  # each once
    printed: dict[str, float] = {}
    cells = paper.printed("table1").pivot_table(
        index=["dataset", "backbone"], columns="setting", values="mean"
    )
    gains = cells["clip_it"] - cells["unimodal"]
    printed |= {f"gain_{n.lower()}": value for n, value in gains.groupby("dataset").mean().items()}
    printed["gain_overall"] = gains.mean()
    assert f"{(gains > 0).sum()} of {len(gains)} cells" in CLAIMS["gains_in_most_cells"].paper
    two = paper.printed("table2").pivot(
        index=["dataset", "backbone"], columns="setting", values="mean"
    )
    printed["over_contrastive"] = (two["clip_it"] - two["contrastive"]).mean()
    printed["over_vision_head"] = (two["clip_it"] - two["vision"]).mean()
    five = paper.printed("figure5").set_index("setting")["accuracy"]
    for name in ("lora_matters", "without_lora_below_probe", "late_over_early", "dropout_30_holds",
                 "branch_over_direct", "architecture_gives_nothing", "random_falls_to_unimodal",
                 "pairing_over_random"):  # fmt: skip
        printed[name] = five[CLAIMS[name].second] - five[CLAIMS[name].first]
    seven = paper.printed("table7").groupby("setting")["accuracy"].mean()
    printed["domain_over_generic"] = seven["tcga_conch"] - seven["tcga_clip"]
    printed["generic_still_gains"] = seven["tcga_clip"] - seven["unimodal"]
    printed["real_over_synthetic"] = seven["tcga_conch"] - seven["synthetic_conch"]
    six = paper.printed("table6").groupby("setting")["accuracy"].mean()
    printed["reports_over_prompts"] = six["text"] - six["text/prompts"]
    printed["reports_over_terms"] = six["text"] - six["text/terms"]
    ours = {c.id: c.paper_gain for c in CLAIMS.values() if c.paper_gain is not None}
    assert ours == pytest.approx(printed, abs=0.0051) and set(ours) == set(printed)


def test_the_papers_words_have_the_sign_of_its_gain() -> None:
    signed = {c.id: re.match(r"[+-][\d.]+", c.paper) for c in CLAIMS.values() if c.paper_gain}
    numbers = {name: float(found[0]) for name, found in signed.items() if found}
    assert len(numbers) > 15
    wrong = [name for name, number in numbers.items() if number * CLAIMS[name].paper_gain < 0]
    assert wrong == []


def test_the_papers_frontier_is_counted_right() -> None:
    points = measures.with_front(paper.pareto_points(), "parameters", "on_front")
    front = points.loc[points["on_front"], "setting"]
    said = f"{(front == 'clip_it').sum()} of {len(front)} models"
    assert CLAIMS["pareto"].paper.startswith(said)


# To read


def test_what_could_turn_a_verdict() -> None:
    def said(name: str, estimate: float, low: float, high: float) -> str:
        finding = Finding(NOT, float(estimate), float(low), float(high))
        return words.turning_sentences([ledger.Judged(CLAIMS[name], finding)])

    assert "-0.5 [-1.0, +0.2] points; the interval still" in said("gain_pcam", -0.5, -1, 0.2)
    assert "no value of the interval is above 0" in said("gain_pcam", -0.5, -1, -0.2)
    assert "reaches into the margin" in said("random_falls_to_unimodal", 2, 0.9, 3)
    assert "outside the margin" in said("random_falls_to_unimodal", 2, 1.1, 3)
    assert "above -1: more seeds" in said("dropout_30_holds", -2, -3, -0.5)
    assert words.turning_sentences([]) == "No claim is `not reproduced` here."


def test_a_phantom_is_called_one() -> None:
    def named(name: str) -> Profile:
        return load_profile(name)

    assert "phantom" in words.headline(named("demo"))
    assert "phantom" not in words.headline(named("pilot"))
    assert "No run of this profile" in words.seen_sentence("phantom", load_claims().seen)
    assert (HERE / "claims.yaml").exists()
