"""The claims: the file, and each rule on hand-made numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clipit_lib.errors import ClipItError
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import claims, measures, paper, specs, studies
from companion.claims import FUNCTIONS, Finding, Verdict, load_claims
from companion.paper import HERE
from companion.profile import Profile, load_profile
from companion.statistics import JUDGED, Gain, Interval, judgement

REPRODUCED, UNDECIDED, NOT, UNTESTABLE = Verdict
CLAIMS = {claim.id: claim for claim in load_claims().claims}


# Rules


MANY = 1e9  # degrees of freedom: intervals of 1.96 and 1.645 errors


@pytest.mark.parametrize(
    ("estimate", "error", "gain", "equal", "not_worse"),
    [
        (2.0, 0.25, REPRODUCED, NOT, REPRODUCED),
        (0.5, 0.27, NOT, REPRODUCED, REPRODUCED),  # low is -0.03, 90% end is 0.94
        (0.5, 0.25, REPRODUCED, UNDECIDED, REPRODUCED),  # sure, and more than equal
        (0.0, 0.55, NOT, REPRODUCED, UNDECIDED),  # none of a point, not surely above -1
        (1.0, 0.9, UNDECIDED, UNDECIDED, REPRODUCED),
        (-1.0, 0.4, NOT, UNDECIDED, UNDECIDED),
        (-2.0, 0.4, NOT, NOT, NOT),
        (1.1, 3.0, UNDECIDED, UNDECIDED, UNDECIDED),
    ],
)
def test_rules_on_intervals(
    estimate: float, error: float, gain: Verdict, equal: Verdict, not_worse: Verdict
) -> None:
    value = Gain(estimate, error, MANY)
    assert claims.above(value) is gain
    assert claims.equal(value, 1.0) is equal
    assert claims.above(value, -1.0) is not_worse


def test_less_than_a_point_does_not_refute_a_printed_gain_of_less() -> None:
    none = Gain(0.0, 0.3, MANY)
    assert [claims.above(none, printed=each) for each in (0.65, 1.0, None)] == [UNDECIDED, NOT, NOT]


def test_one_seed_decides_no_claim() -> None:
    for estimate in (9.0, 0.0, -9.0):
        gain = Gain(estimate, 0.1, MANY, one_seed=True)
        assert {claims.above(gain), claims.above(gain, -1.0), claims.equal(gain, 1.0)} == {
            UNDECIDED
        }


def test_rules_on_cells() -> None:
    higher = {k: claims.share_higher(["helps"] * k + ["undecided"] * (18 - k), 0.83)
              for k in range(19)}  # fmt: skip
    assert [k for k, v in higher.items() if v is REPRODUCED] == [15, 16, 17, 18]  # the paper's 15
    assert {v for k, v in higher.items() if k < 15} == {UNDECIDED}  # the others may be higher
    lower = {k: claims.share_higher(["hurts"] * k + ["equivalent"] * (18 - k), 0.83)
             for k in range(19)}  # fmt: skip
    assert [k for k, v in lower.items() if v is UNDECIDED] == [0, 1, 2, 3]  # 15 are left

    def cells(*gains: Gain) -> pd.DataFrame:
        return pd.DataFrame([judgement(each) for each in gains], columns=JUDGED)

    sure, open_, lost = Gain(0.0, 0.5, MANY), Gain(0.0, 0.7, MANY), Gain(-2.0, 0.5, MANY)
    assert claims.no_loss(cells(sure, sure)) is REPRODUCED
    assert claims.no_loss(cells(sure, open_)) is UNDECIDED  # it may lose more than a point
    assert claims.no_loss(cells(lost, *[sure] * 9)) is UNDECIDED
    assert claims.no_loss(cells(lost, *[sure] * 8)) is NOT


def test_the_weakest_verdict_counts() -> None:
    assert claims.weakest_of([REPRODUCED, NOT, UNDECIDED]) is NOT
    assert claims.weakest_of([REPRODUCED, UNDECIDED]) is UNDECIDED


@pytest.mark.parametrize(
    ("correlation", "estimate", "verdict"),
    [
        (-1.0, 2.0, REPRODUCED), (-1.0, 1.9, UNDECIDED), (-0.5, 2.0, UNDECIDED),
        (-0.5 - 1e-15, 2.0, UNDECIDED), (-0.51, 2.0, REPRODUCED), (-1.0, -2.0, NOT),
    ],
)  # fmt: skip
def test_falling_needs_both(correlation: float, estimate: float, verdict: Verdict) -> None:
    assert claims.falling(correlation, Gain(estimate, 1.0, MANY)) is verdict


@pytest.mark.parametrize(
    ("printed", "said"),
    [(0.9, "the paper's +0.90 lies below our interval"), (1.0, "inside"), (3.1, "above")],
)
def test_the_size_of_the_papers_number_is_judged_too(printed: float, said: str) -> None:
    assert said in claims.size(printed, Interval(2.0, 1.0, 3.0))


class Given(claims.Shelf):
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
    [(20.1, 30.0, REPRODUCED), (20.0, 30.0, UNDECIDED), (9.0, 10.0, NOT)],
)
def test_omega_on_pcam_is_above_that_of_every_other_data_set(
    low: float, estimate: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    omegas = {
        "phantom-pcam": Interval(estimate, low, low + 10.5),
        "phantom-crc": Interval(20.0, 1.0, 99.0),
        "phantom-bach": Interval(5.0, 1.0, 9.0),
    }
    kinds = ("counterpart", "omega")
    cells = {(name, "b", kind): (name, kind) for name in omegas for kind in kinds}
    monkeypatch.setattr(claims, "matched", lambda *_: [])
    monkeypatch.setattr(claims, "case_cells", lambda _: cells)

    def bootstrap(chosen: list[tuple[str, str]], *_: Any) -> Interval:
        ((name, kind),) = chosen
        assert kind == "omega"
        return omegas[name]

    monkeypatch.setattr(claims, "pooled_bootstrap", bootstrap)
    found = claims.omega_largest_on_pcam(Given(*omegas))
    assert (found.verdict, found.ours, found.low) == (verdict, estimate, low)
    with pytest.raises(claims.Untestable, match="no PCAM beside another"):
        claims.omega_largest_on_pcam(Given("phantom-pcam"))


def test_ours_of_several_gains_is_the_smallest_of_the_weakest_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = CLAIMS["text_drives_the_gain"]
    gains = dict.fromkeys(claim.firsts, Gain(9.0, 5.0, MANY))  # undecided, and more
    gains[claim.firsts[0]] = Gain(3.0, 1.0, MANY)  # reproduced, and the smallest
    gains[claim.firsts[-1]] = Gain(5.0, 3.0, MANY)
    monkeypatch.setattr(claims, "_pooled_gain", lambda runs, first, *_: gains[first])
    found = claims.finding_of(claim, Given("d"))
    assert (found.verdict, found.ours) == (UNDECIDED, 5.0)


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
        assert "; not: " in claim.rule


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            "    margn: 1.0\n",
            "line 12, column 5: claims.margn: unknown key; perhaps margin",
        ),
        (
            "    margin: 1.0\n",
            "line 4, column 5: claims: a claim of kind gain has study, second",
        ),
        (
            "    kind: equal\n",
            "line 4, column 5: claims: a claim of kind equal has study, second",
        ),
        ("    kind: gains_much\n", "claims.kind: Input should be 'gain', 'equal'"),
        ("    paper_gain: much\n", "claims.paper_gain: Input should be a valid number"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, added: str, said: str) -> None:
    path = tmp_path / "claims.yaml"
    text = (
        "revised: never\nseen: {}\nclaims:\n"
        "  - id: a\n    claim: b\n    where: c\n    paper: d\n    kind: gain\n"
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
    def said(verdict: Verdict) -> str:
        finding = Finding(verdict, -0.5, -1.0, 0.2)
        return claims.turning_sentences([claims.Judged(CLAIMS["gain_pcam"], finding)])

    assert "-0.5 [-1.0, +0.2] points; more seeds and patients could decide it." in said(UNDECIDED)
    assert "only another setting could turn it" in said(NOT)
    assert said(REPRODUCED) == "No claim is undecided or not reproduced here."


def test_a_phantom_is_called_one() -> None:
    def named(name: str) -> Profile:
        return load_profile(name)

    assert "phantom" in claims.headline(named("demo"))
    assert "phantom" not in claims.headline(named("pilot"))
    assert "No run of this profile" in claims.seen_sentence("phantom", load_claims())
    assert (HERE / "claims.yaml").exists()
