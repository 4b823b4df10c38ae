"""Whatever the data: test is untouched, only train moves, and what belongs together stays so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipit_lib.data.patches import (
    OPTICAL_DENSITY,
    ValidationSplit,
    stain_features,
    with_validation,
)
from clipit_lib.errors import ClipItError

FEW = settings(max_examples=15, deadline=None)
fractions = st.floats(0.05, 0.6)
seeds = st.integers(0, 1000)


def samples(labels: list[int], groups: list[str] | None = None, tests: int = 3) -> pd.DataFrame:
    count = len(labels) + tests
    return pd.DataFrame(
        {
            "id": [str(number) for number in range(count)],
            "split": ["train"] * len(labels) + ["test"] * tests,
            "label": labels + [0] * tests,
            "group": (groups or [""] * len(labels)) + ["other"] * tests,
        }
    )


def assert_only_train_moved(before: pd.DataFrame, after: pd.DataFrame) -> None:
    moved = before["split"] != after["split"]
    assert set(before["split"][moved]) == {"train"}
    assert set(after["split"][moved]) == {"validation"}
    assert "train" in set(after["split"])
    pd.testing.assert_frame_equal(before.drop(columns="split"), after.drop(columns="split"))


@given(st.lists(st.integers(2, 60), min_size=1, max_size=5), fractions, seeds)
@FEW
def test_stratified_takes_its_share_of_every_class(
    sizes: list[int], fraction: float, seed: int
) -> None:
    before = samples([label for label, size in enumerate(sizes) for _ in range(size)])
    split = ValidationSplit(by="stratified", fraction=fraction, seed=seed)
    after = with_validation(before, split)
    assert_only_train_moved(before, after)
    held = after.query("split == 'validation'")["label"].value_counts()
    for label, size in enumerate(sizes):
        assert abs(held[label] - fraction * size) <= 1
        assert 0 < held[label] < size
    pd.testing.assert_frame_equal(after, with_validation(before, split))


@given(st.lists(st.integers(0, 11), min_size=30, max_size=200), fractions, seeds)
@FEW
def test_groups_are_never_divided(numbers: list[int], fraction: float, seed: int) -> None:
    if len(set(numbers)) < 2:
        return
    labels = [number % 3 for number in range(len(numbers))]
    before = samples(labels, [f"patient-{number}" for number in numbers])
    after = with_validation(before, ValidationSplit(by="group", fraction=fraction, seed=seed))
    assert_only_train_moved(before, after)
    assert (after.groupby("group")["split"].nunique() == 1).all()


@given(fractions, seeds)
@FEW
def test_many_groups_come_near_the_fraction_in_every_class(fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 600).tolist()
    before = samples(labels, [f"patient-{number // 10}" for number in range(600)])
    after = with_validation(before, ValidationSplit(by="group", fraction=fraction, seed=seed))
    train = after.query("split != 'test'")
    shares = train.groupby("label")["split"].apply(lambda split: (split == "validation").mean())
    assert (abs(shares - fraction) < 0.08).all()


@given(fractions, seeds)
@FEW
def test_stain_holds_out_whole_colours(fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slides = rng.integers(0, 9, 180)
    labels = (np.arange(180) % 2).tolist()
    before = samples(labels)
    colours = 10.0 * np.eye(9)[slides] @ rng.normal(size=(9, 6))
    stain = np.concatenate([colours + 0.01 * rng.normal(size=(180, 6)), np.zeros((3, 6))])
    after = with_validation(
        before, ValidationSplit(by="stain", fraction=fraction, seed=seed), stain
    )
    assert_only_train_moved(before, after)
    train = after.iloc[:180].assign(slide=slides)
    assert (train.groupby(["label", "slide"])["split"].nunique() == 1).all()
    held = (train["split"] == "validation").groupby(train["label"]).mean()
    assert (abs(held - fraction) < 0.2).all()
    again = with_validation(
        before, ValidationSplit(by="stain", fraction=fraction, seed=seed), stain
    )
    pd.testing.assert_frame_equal(after, again)


def test_a_split_that_exists_is_kept() -> None:
    before = samples([0, 1, 0, 1])
    before.loc[0, "split"] = "validation"
    for by in ("official", "stratified", "group", "stain"):
        assert with_validation(before, ValidationSplit(by=by)) is before


@pytest.mark.parametrize(
    ("split", "labels", "groups", "words"),
    [
        ("official", [0, 1], None, "brings no validation samples"),
        ("group", [0, 1], None, "no train patch has a group"),
        ("stratified", [0, 0, 1, 1], ["a", "a", "", "b"], "stratified would divide 1 groups"),
        ("stain", [0, 0, 1, 1], ["a", "a", "b", "b"], "stain would divide 2 groups that are known"),
        ("group", [0, 1], ["a", "a"], "all train patches are of one group"),
        ("stratified", [0, 0, 1], None, "class benign has a single train patch"),
        ("stain", [0, 0, 1, 1], None, "class malignant has a single stain colour"),
    ],
)
def test_what_cannot_be_divided(
    split: Any, labels: list[int], groups: list[str] | None, words: str
) -> None:
    names, stain = ("malignant", "benign"), np.zeros((len(labels) + 3, 6))
    with pytest.raises(ClipItError, match=words):
        with_validation(samples(labels, groups), ValidationSplit(by=split), stain, names)


def test_a_patch_without_a_group_is_drawn_as_one_of_its_own() -> None:
    """Two patients of four patches, and eight patches of nobody: a half is one and four."""
    before = samples([0] * 16, ["a"] * 4 + ["b"] * 4 + [""] * 8)
    after = with_validation(before, ValidationSplit(by="group", fraction=0.5))
    assert_only_train_moved(before, after)
    held = after.query("split == 'validation'")["group"].value_counts()
    assert held.sum() == 8 and set(held.drop("", errors="ignore")) <= {4}
    assert (after.query("group != ''").groupby("group")["split"].nunique() == 1).all()


def test_stain_features_are_the_moments_of_optical_density() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    density = OPTICAL_DENSITY[pixels]
    expected = np.concatenate([density.mean(axis=(1, 2)), density.std(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(stain_features(pixels), expected, atol=1e-7)
