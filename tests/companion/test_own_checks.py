"""Data of the user: each warning fires where it must, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from clipit_lib.data.patches import PatchDataset, ValidationSplit
from clipit_lib.errors import ClipItError
from companion.findings import Finding, Severity
from companion.measures import Coverage
from companion.own import checks
from companion.own.checks import require_none_stops, warnings_text

CELL = ("phantom-pcam", "phantom_vit_s16")


def samples(rows: list[tuple[str, str]], repeat: int = 1) -> pd.DataFrame:
    """Patches by split and group."""
    return pd.DataFrame(rows * repeat, columns=["split", "group"])


def one(found: list[Finding], check: str, severity: Severity = Severity.WARNING) -> Finding:
    assert [(f.check, f.severity) for f in found] == [(check, severity)]
    return found[0]


# Data, groups and splits.


def test_groups_in_two_splits_are_named() -> None:
    leak = samples([("train", "p1"), ("train", "p2"), ("test", "p2"), ("test", "p3"), ("test", "")])
    found = one(checks.shared_groups(leak), "shared_groups", Severity.STOP)
    assert found.what == "1 groups are in several splits: p2" and "1 of 3 test" in found.why
    apart = samples([("train", "p1"), ("train", ""), ("test", ""), ("test", "p2"), ("test", "p2")])
    assert checks.shared_groups(apart) == []


def test_validation_drawn_through_groups_is_stopped() -> None:
    split = ValidationSplit(by="stratified")
    several = samples([("train", "p1"), ("train", "p1"), ("train", "p2"), ("test", "p3")])
    found = checks.split_through_groups(several, split)
    assert "1 of 2 training groups" in one(found, "split_through_groups", Severity.STOP).why
    assert checks.split_through_groups(several, ValidationSplit(by="group")) == []
    singles = samples([("train", "p1"), ("train", "p2"), ("test", "p3")])
    assert checks.split_through_groups(singles, split) == []
    given = pd.concat([several, samples([("validation", "p4")])])
    assert checks.split_through_groups(given, split) == []


def test_unknown_groups() -> None:
    found = checks.unknown_groups(samples([("train", "a"), ("test", ""), ("test", "b")]))
    assert "1 of 2 test patches" in one(found, "unknown_groups").what
    assert checks.unknown_groups(samples([("train", ""), ("test", "b")])) == []


def test_few_test_groups_and_how_far_a_bootstrap_is_off() -> None:
    few = samples([("test", f"p{k}") for k in range(5)], repeat=8)
    assert "5 groups" in one(checks.few_groups(few), "few_groups").what
    # Simulated: by how much percentile intervals of 5 means must be widened to hold 95%.
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4000, 5))
    half = 1.96 * means.std(axis=1) / np.sqrt(5)  # what the bootstrap says, nearly
    needed = np.quantile(np.abs(means.mean(axis=1)) / half, 0.95)
    said = float(one(checks.few_groups(few), "few_groups").why.split("about ")[1].split()[0])
    assert said == pytest.approx(needed, rel=0.08)
    assert checks.few_groups(samples([("test", f"p{k}") for k in range(20)])) == []
    assert checks.few_groups(samples([("test", "")], repeat=5)) == []


def patches(splits: list[str], pixels: np.ndarray) -> PatchDataset:
    frame = pd.DataFrame({"id": [f"{k}.png" for k in range(len(splits))], "split": splits})
    return PatchDataset("mine", ("a", "b"), ("a", "b"), frame, pixels, "hash")


def test_equal_pixels_across_splits_and_no_others() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    splits = ["train", "train", "validation", "test", "test", "test"]
    pixels[1] = pixels[0]  # within a split: no leak
    assert checks.duplicates(patches(splits, pixels)) == []
    near = pixels.copy()
    near[4] = near[0]
    near[4, 0, 0, 0] ^= 1  # one bit off is another image
    assert checks.duplicates(patches(splits, near)) == []
    pixels[4] = pixels[0]
    found = one(checks.duplicates(patches(splits, pixels)), "duplicates")
    assert "1 of 3 test patches are also in train" in found.what and "4.png" in found.what
    assert "33.3 points" in found.why


def test_validation_that_is_too_small_to_choose_by() -> None:
    small = np.repeat([0, 1], [40, 8])
    found = one(checks.small_validation(small, ("a", "b")), "small_validation")
    said = float(found.why.split("up to ")[1].split()[0])
    rng = np.random.default_rng(0)  # two classes, each right half of the time
    drawn = (rng.binomial(40, 0.5, 20000) / 40 + rng.binomial(8, 0.5, 20000) / 8) / 2
    assert said == pytest.approx(100 * drawn.std(), rel=0.03)
    assert checks.small_validation(np.repeat([0, 1], 60), ("a", "b")) == []


def test_imbalance() -> None:
    found = one(checks.imbalance(np.repeat([0, 1], [220, 20]), ("a", "b"), 60), "imbalance")
    assert "a has 220 training patches, b has 20" in found.what and "sees 5.0 of b" in found.why
    assert checks.imbalance(np.repeat([0, 1], [200, 20]), ("a", "b"), 60) == []


def test_patches_kept_at_another_size_than_the_backbone_reads() -> None:
    found = checks.resized_twice(224, {"small": 128, "large": 224})
    assert "small reads 128" in one(found, "resized_twice", Severity.NOTE).what
    assert checks.resized_twice(128, {"small": 128}) == []


# Reports, pairs, retriever.


def test_few_reports_copies_and_placeholders() -> None:
    texts = [f"report {k}" for k in range(100)]
    ids = [f"r{k}" for k in range(100)]
    assert checks.few_reports(texts, ids, 1980) == []
    found = one(checks.few_reports(texts[1:], ids[1:], 1980), "few_reports")
    assert found.what == "99 reports" and "20 to a report" in found.why
    # The 2nd is the 1st but for spaces, case and how its letter is composed; two say nothing.
    texts[:4] = ["caf\u00e9  au lait", "Cafe\u0301 au lait\u200b", "N/A", "-"]
    silent, copies, few = checks.few_reports(texts, ids, 1940)
    assert one([silent], "placeholders").what == "2 of 100 reports say nothing: r2, r3"
    said = "1 of 100 reports are the same as one before: r1"
    assert one([copies], "equal_reports", Severity.NOTE).what == said
    assert one([few], "few_reports").what == "97 reports that differ and say something, of 100"
    assert "20 to a report" in few.why and "into 97 kinds" in few.why


def test_what_was_passed_over_is_a_note() -> None:
    found = one(checks.files(["", "3 files passed over"]), "files", Severity.NOTE)
    assert found.what == "3 files passed over" and checks.files([""]) == []


def test_every_warning_is_said_beside_the_results_and_a_stop_ends_all() -> None:
    found = [*checks.unknown_groups(samples([("test", "")])), *checks.few_reports(["a"], ["1"], 90)]
    notes = checks.files(["2 blank rows passed over"])
    _, _, *said = warnings_text([*notes, *found]).splitlines()
    assert len(said) == 2 and "intervals are too narrow" in said[0] and "1 reports" in said[1]
    assert warnings_text(notes) == ""
    require_none_stops([*notes, *found], "mine.yaml")
    leak = replace(*checks.shared_groups(samples([("train", "p"), ("test", "p")])), dataset="d")
    with pytest.raises(ClipItError) as caught:
        require_none_stops([*found, leak, Finding("x", Severity.STOP, "other")], "mine.yaml")
    assert str(caught.value) == (
        "mine.yaml: 2 findings must be fixed first: d: 1 groups are in several splits: p "
        "[shared_groups]. Put every group into one split only"
    )


def test_few_reports_in_use() -> None:
    spread = np.arange(400) % 40
    assert checks.few_used(spread, 9) == []
    assert "20" in one(checks.few_used(spread // 2, 12), "few_used").what
    found = one(checks.few_used(spread // 5, 2), "few_used")  # eight equally often: 3 bits
    assert "8 reports, as many as 8.0" in found.what and "3.0 bits" in found.why


def test_hubs() -> None:
    ids = [f"r{k}" for k in range(100)]
    even = np.arange(1000) % 100
    assert checks.hubs(even, ids) == []
    one_hub = np.where(np.arange(1000) < 300, 7, even)
    assert "report r7 serves 31%" in one(checks.hubs(one_hub, ids), "hubs").what
    ten = np.where(np.arange(1000) < 900, even % 10, even)
    assert "ten reports 91%" in one(checks.hubs(ten, ids), "hubs").what


def test_truncation() -> None:
    long = Coverage(100, 200.0, 350, longer_share=0.5, seen_share=0.375)
    found = one(checks.truncation(long, "truncate"), "truncation")
    assert "62% of all tokens" in found.what and "50% of the reports" in found.what
    assert checks.truncation(long, "chunk") == []
    nearly = replace(long, seen_share=0.88)
    assert checks.truncation(nearly, "truncate") == []


def retriever(hits: np.ndarray, labels: np.ndarray) -> list[Finding]:
    groups = np.arange(len(labels)).astype(str)
    return checks.weak_retriever(hits, labels, groups, 2, 400)


def test_a_retriever_at_chance_and_one_above() -> None:
    labels = np.repeat([0, 1], [900, 100])
    always = labels == 0  # plain accuracy 90%, balanced 50%
    found = one(retriever(always, labels), "weak_retriever")
    assert "50% of the training patches [50, 50]; chance is 50%" in found.what
    assert one(retriever(np.arange(1000) % 2 == 0, labels), "weak_retriever")
    assert retriever(np.arange(1000) % 10 < 7, labels) == []


def test_a_retriever_that_is_right_on_most_of_few_patients_may_be_at_chance() -> None:
    patients, labels = np.repeat(np.arange(5), 20), np.tile([0, 1], 50)
    hits = patients < 4  # 80% of the patches, and four of five patients
    assert retriever(hits, labels) == []
    by_patient = checks.weak_retriever(hits, labels, patients.astype(str), 2, 400)
    assert "80%" in one(by_patient, "weak_retriever").what


def test_class_information_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    reports, labels = rng.integers(0, 7, 300), rng.integers(0, 3, 300)
    expected = [mutual_info_score(reports, labels == c) / np.log(2) for c in range(3)]
    np.testing.assert_allclose(checks.class_information(reports, labels, 3), expected)


def test_a_class_whose_reports_are_everybodys() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    own = 20 * labels + rng.integers(0, 20, 600)
    assert checks.classes_without_text(own, labels, "abc") == []
    # a and b share their reports; they are told from c alone, so each is still partly told.
    lone = np.where(labels == 2, 40, 0) + rng.integers(0, 20, 600)
    assert checks.classes_without_text(lone, labels, "abc") == []
    anyone = np.arange(600) % 20  # each class has each report ten times
    found = checks.classes_without_text(anyone, labels, ("fat", "mucus", "tumor"))
    assert one(found, "class_without_text").what.endswith("of: fat, mucus, tumor")
    half = np.where(np.isin(labels, [0, 1]), own, rng.choice(own[labels < 2], 600))
    assert checks.classes_without_text(half, labels, "abc")[0].what.endswith("of: c")


def test_class_texts_that_no_report_has() -> None:
    texts = ["Adenoma of tubular type.", "Mucosa, normal."]
    found = checks.unmentioned(texts, ("tubular adenoma", "a normal mucosa", "serrated"))
    assert one(found, "unmentioned", Severity.NOTE).what.endswith("of: serrated")
    assert checks.unmentioned(texts, ("tubular adenoma", "normal mucosa")) == []
