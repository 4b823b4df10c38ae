"""The phantom's images: fixed by their seed, free of labels, moved by their latents."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipit_lib.errors import ClipItError
from companion.phantom.latents import (
    MORPHOLOGY,
    WORLDS,
    Latents,
    balanced_labels,
    draw,
    draw_dataset,
)
from companion.phantom.patches import EOSIN, HAEMATOXYLIN, region, render, standardised

STAIN = ("haematoxylin", "eosin", "haematoxylin_hue", "eosin_hue", "tint")


def plain(count: int, **given: float) -> Latents:
    """Loose stroma in the usual stain, with some latents given."""
    values = dict.fromkeys(MORPHOLOGY, 0.0) | {"cellularity": 0.2, "fibres": 0.3}
    values |= dict.fromkeys(STAIN, 0.0) | {"haematoxylin": 1.0, "eosin": 1.0, "thickness": 1.0}
    arrays = {name: np.full(count, value, np.float32) for name, value in (values | given).items()}
    integers = {name: np.zeros(count, np.int64) for name in ("label", "patient")}
    return Latents(**arrays, **integers)


def stains(pixels: np.ndarray) -> tuple[float, float]:
    """Mean haematoxylin and eosin density, by inverting the Beer-Lambert mixing."""
    density = -np.log(np.maximum(pixels, 1) / 255.0).reshape(-1, 3)
    amounts, *_ = np.linalg.lstsq(np.stack([HAEMATOXYLIN, EOSIN], 1), density.T, rcond=None)
    return float(amounts[0].mean()), float(amounts[1].mean())


@pytest.mark.parametrize("world", WORLDS)
def test_tables_cover_every_class(world: str) -> None:
    classes = WORLDS[world].classes
    assert len(WORLDS[world].class_texts) == len(classes)
    for name, tissue in WORLDS[world].tissues.items():
        assert set(tissue.mean) <= set(MORPHOLOGY)
        assert set(tissue.neighbours) <= set(classes) - {name}
        assert tissue.neighbours and tissue.names and tissue.diagnoses


@pytest.mark.parametrize("world", WORLDS)
def test_same_seed_same_latents_other_seed_others(world: str) -> None:
    first, again, other = (draw_dataset(world, 40, 10, 20, seed)[0] for seed in (0, 0, 1))
    for field in fields(Latents):
        assert getattr(first, field.name).tobytes() == getattr(again, field.name).tobytes()
    assert not np.array_equal(first.cellularity, other.cellularity)


@given(st.sampled_from(sorted(WORLDS)), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_splits_have_their_own_patients(world: str, train: int, val: int, test: int) -> None:
    latents, splits = draw_dataset(world, train, val, test, 3)
    assert [int((splits == s).sum()) for s in ("train", "validation", "test")] == [train, val, test]
    patients = [set(latents.patient[splits == s]) for s in ("train", "validation", "test")]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert np.unique(latents.patient, return_counts=True)[1].max() <= 20


def test_first_patches_do_not_depend_on_how_many_follow() -> None:
    short, long = (draw_dataset("crc", n, 5, 5, 0)[0].take(slice(0, 30)) for n in (30, 75))
    for field in fields(Latents):
        assert np.array_equal(getattr(short, field.name), getattr(long, field.name)), field.name


@given(st.integers(0, 200), st.integers(1, 15), st.integers(0, 5))
@settings(deadline=None)
def test_labels_are_balanced_within_one(count: int, classes: int, seed: int) -> None:
    labels = balanced_labels(count, classes, np.random.default_rng(seed))
    counts = np.bincount(labels, minlength=classes)
    assert len(labels) == count
    assert counts.max() - counts.min() <= 1


def test_morphology_follows_the_class_and_stain_the_patient() -> None:
    labels, patients = np.tile([3, 7], 300), np.repeat(np.arange(30), 20)
    latents = draw("crc", labels, patients, np.random.default_rng(0))
    lymphoid, stroma = (latents.take(labels == label) for label in (3, 7))
    assert lymphoid.lymphocytes.mean() > stroma.lymphocytes.mean() + 0.3
    assert lymphoid.fibres.mean() < stroma.fibres.mean() - 0.2
    for name in STAIN:
        by_patient = getattr(latents, name).reshape(30, 20)
        assert (by_patient == by_patient[:, :1]).all()
        assert len(np.unique(by_patient[:, 0])) == 30


def test_a_side_too_small_to_draw_is_refused() -> None:
    with pytest.raises(ClipItError, match="at least 16 pixels"):
        render(plain(1), 8, 0)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_pixels_span_bright_glass_to_dark_nuclei(side: int) -> None:
    pixels = render(draw_dataset("crc", 9, 0, 0, 0)[0], side, 0)
    assert pixels.shape == (9, side, side, 3)
    assert pixels.dtype == np.uint8
    assert pixels.max() > 230
    assert pixels.min() < 120


@given(st.integers(1, 15), st.integers(0, 2**31))
@settings(max_examples=4, deadline=None)
def test_a_patch_is_the_same_in_any_block(cut: int, seed: int) -> None:
    latents, _ = draw_dataset("bach", 16, 0, 0, seed)
    whole = render(latents, 48, seed)
    head = render(latents.take(slice(0, cut)), 48, seed)
    tail = render(latents.take(slice(cut, None)), 48, seed, first=cut)
    assert whole.tobytes() == np.concatenate([head, tail]).tobytes()


def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, _ = draw_dataset("crc", 36, 0, 0, 0)
    whole = render(latents, 64, 0)
    monkeypatch.setattr("companion.phantom.patches.PIXELS_PER_BLOCK", 5 * 64**2)
    assert whole.tobytes() == render(latents, 64, 0).tobytes()


def test_pixels_depend_on_latents_alone() -> None:
    latents, _ = draw_dataset("crc", 9, 0, 0, 0)
    blind = replace(latents, label=latents.label[::-1], patient=latents.patient + 1)
    assert np.array_equal(render(latents, 32, 0), render(blind, 32, 0))


def test_seeds_and_patches_differ() -> None:
    first, second = render(plain(2), 32, 0)
    assert (first != second).mean() > 0.5
    assert (first != render(plain(1), 32, 1)[0]).mean() > 0.5


def test_a_larger_side_shows_the_same_field() -> None:
    latents, _ = draw_dataset("pcam", 8, 0, 0, 0)
    small = render(latents, 32, 0).astype(float).ravel()
    large = render(latents, 128, 0).reshape(8, 32, 4, 32, 4, 3).mean((2, 4)).ravel()
    assert np.corrcoef(small, large)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("latent", "haematoxylin", "brightness"),
    [
        ("cellularity", 1, -1),
        ("lymphocytes", 1, -1),
        ("invasion", 1, -1),
        ("glands", 1, 0),
        ("necrosis", 1, -1),
        ("fibres", 0, -1),
        ("fat", -1, 1),
        ("blank", -1, 1),
        ("mucin", 0, 1),
    ],
)
def test_latents_move_the_image_the_right_way(
    latent: str, haematoxylin: int, brightness: int
) -> None:
    levels = [render(plain(24, **{latent: x}), 48, 0) for x in (0.1, 0.5, 0.9)]
    blue, light = np.array([stains(level)[0] for level in levels]), [x.mean() for x in levels]
    if haematoxylin:
        assert (np.diff(blue) * haematoxylin > 0).all()
    if brightness:
        assert (np.diff(light) * brightness > 0).all()


def test_lymphocytes_make_a_patch_bluer() -> None:
    few, many = (render(plain(24, lymphocytes=x), 48, 0).astype(float) for x in (0.1, 0.9))
    assert (many[..., 2] - many[..., 0]).mean() > (few[..., 2] - few[..., 0]).mean() + 10


@pytest.mark.parametrize("stain", [0, 1])
def test_stain_strength_scales_its_own_dye(stain: int) -> None:
    latents = plain(12, cellularity=0.8, fibres=0.6)
    name = STAIN[stain]
    weak, strong = (stains(render(replace(latents, **{name: value * latents.thickness}), 48, 0))
                    for value in (0.8, 1.2))  # fmt: skip
    assert strong[stain] > 1.25 * weak[stain]
    assert strong[1 - stain] == pytest.approx(weak[1 - stain], rel=0.1)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_a_region_covers_its_extent(one: float, other: float) -> None:
    field = standardised(np.random.default_rng(0).standard_normal((1, 64, 64), np.float32))
    extents = np.sort([one, other])
    areas = [float(region(field, np.array([e]), 0.1).mean()) for e in extents]
    assert areas[0] <= areas[1]
    assert areas == pytest.approx(list(extents), abs=0.08)
