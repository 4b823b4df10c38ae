"""Equation 5 against a truth table by hand, a plain loop, and what must always hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipit_lib.errors import ClipItError
from clipit_lib.predictions import predictions_frame
from clipit_lib.runs import StoredRun
from clipit_lib.settings import Probe, RunSpec
from companion.measures import (
    aligned_hits,
    complementarity_sentences,
    complementarity_table,
    interval_table,
    matched,
    shares,
)
from companion.statistics import Cell, pooled_bootstrap

HITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def frame(right: list[bool], labels: list[int] | None = None) -> pd.DataFrame:
    """Two-class predictions that are right where asked."""
    truth = np.array(labels or [i % 2 for i in range(len(right))])
    answer = np.where(right, truth, 1 - truth)
    ids = [f"p{i}" for i in range(len(right))]
    return predictions_frame(ids, [""] * len(ids), truth, np.eye(2)[answer], "test")


def run(folder: Path, right: list[bool], backbone: str, setting: str, seed: int = 0) -> StoredRun:
    """A stored run with given hits on test."""
    spec = RunSpec(
        kernels="any", dataset="d", data_hash="0", backbone=backbone, backbone_hash="0",
        setting=setting, seed=seed, pretraining=None, normalisation="own", probe=Probe(),
    )  # fmt: skip
    own = folder / f"{setting}-{backbone}-{seed}"
    own.mkdir()
    frame(right).to_parquet(own / "predictions.parquet")
    return StoredRun(own, spec)


# vision: r r r r w w w w; text: r r w w r r r w
VISION = [True] * 4 + [False] * 4
TEXT = [True, True, False, False, True, True, True, False]


def test_eight_samples_by_hand() -> None:
    found = shares(np.array(VISION), np.array(TEXT))
    assert found.omega == 37.5  # samples 5, 6, 7
    assert found.counterpart == 25.0  # samples 3, 4
    assert found.both_right == 25.0  # samples 1, 2
    assert found.both_wrong == 12.5  # sample 8
    assert found.oracle == 87.5  # all but sample 8
    assert found.omega_independent == 62.5 * 0.5  # text is right on 5 of 8, vision wrong on half


@given(HITS)
def test_shares_are_those_of_a_plain_loop_and_fill_the_whole(hits: list[tuple[bool, bool]]) -> None:
    vision, text = (np.array(side) for side in zip(*hits, strict=True))
    found = shares(vision, text)
    omega = 0
    for sees, reads in hits:
        if reads and not sees:
            omega += 1
    assert found.omega == pytest.approx(100 * omega / len(hits))
    whole = found.omega + found.counterpart + found.both_right + found.both_wrong
    assert whole == pytest.approx(100)
    assert found.oracle == pytest.approx(100 - found.both_wrong)


@given(HITS)
def test_exchanging_the_two_exchanges_omega_and_its_counterpart(
    hits: list[tuple[bool, bool]],
) -> None:
    vision, text = (np.array(side) for side in zip(*hits, strict=True))
    one, other = shares(vision, text), shares(text, vision)
    assert (one.omega, one.counterpart) == (other.counterpart, other.omega)
    assert one.oracle == pytest.approx(other.oracle)


def test_independent_classifiers_have_the_omega_expected_of_them() -> None:
    rng = np.random.default_rng(0)
    found = shares(rng.random(200_000) < 0.8, rng.random(200_000) < 0.3)
    assert found.omega == pytest.approx(0.3 * 0.2 * 100, abs=0.3)
    assert found.omega_independent == pytest.approx(found.omega, abs=0.3)


@pytest.mark.parametrize(
    ("change", "column"),
    [(lambda f: f.iloc[:-1], "sample"), (lambda f: f.iloc[::-1], "sample"),
     (lambda f: f.assign(label=1 - f["label"]), "label")],
)  # fmt: skip
def test_frames_that_do_not_match_are_refused_in_one_line(change, column: str) -> None:
    with pytest.raises(ClipItError, match=f"{column}s differ or are in another order") as refusal:
        aligned_hits(frame(VISION), change(frame(TEXT)))
    assert "\n" not in str(refusal.value)


def test_interval_covers_the_simulated_share_about_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        # Patches of a patient agree in part: the interval must be over patients.
        patients = np.clip(rng.normal(0.2, 0.1, 60), 0, 1)
        cases = rng.random((3, 240)) < np.repeat(patients, 4)
        cell = Cell.of_cases(cases, np.repeat(np.arange(60), 4))
        found = pooled_bootstrap([cell], 200, np.random.default_rng(0))
        covered += found.low <= 20 <= found.high
    assert covered >= 88


def test_table_pairs_each_vision_model_with_the_text_classifier_of_its_seed(tmp_path: Path) -> None:
    text = [run(tmp_path, TEXT, "clip", "text", 0), run(tmp_path, VISION, "clip", "text", 1)]
    vision = [run(tmp_path, VISION, "vit", "unimodal", seed) for seed in (1, 0)]
    pairs = matched(vision, text)
    table = complementarity_table(pairs)
    assert table["seed"].tolist() == [1, 0]
    assert table["omega"].tolist() == [0.0, 37.5]  # seed 1 compares VISION with itself
    assert set(table["backbone"]) == {"vit"} and set(table["setting"]) == {"text"}
    assert table["accuracy"].tolist() == [50.0, 62.5]
    assert table["vision_run"].tolist() == [each.key for each in vision]
    intervals = interval_table(pairs, 50).set_index("measure")
    assert intervals.loc["omega", "share"] == pytest.approx(18.75)
    assert "on 18.8% [" in complementarity_sentences(table, intervals.reset_index())


def test_a_missing_seed_is_named(tmp_path: Path) -> None:
    text = [run(tmp_path, TEXT, "clip", "text", 0)]
    with pytest.raises(ClipItError, match="no text classifier for seed 5"):
        matched([run(tmp_path, VISION, "vit", "unimodal", 5)], text)
