"""Network input is what the definition says, and augmentation keeps what it must."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipit_lib import compute, training
from clipit_lib.data import patches as data
from clipit_lib.data.patches import Transform, augment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def patches(count: int = 6, side: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_same_size_is_only_normalised() -> None:
    given = patches()
    images = Transform(8, MEAN, STD)(given)
    assert images.dtype == torch.float32
    expected = (given.numpy() / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_arrays_tensors_and_floats_agree() -> None:
    transform, given = Transform(12, MEAN, STD), patches()
    read_only = given.numpy().copy()
    read_only.flags.writeable = False
    expected = transform(given)
    torch.testing.assert_close(transform(read_only), expected)
    torch.testing.assert_close(transform(given.float() / 255), expected)


@pytest.mark.parametrize("size", [4, 13, 32])
def test_resized_values_stay_those_of_pixels(size: int) -> None:
    black_and_white = 255 * (patches() > 127)
    images = Transform(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(black_and_white.to(torch.uint8))
    assert images.shape == (6, 3, size, size)
    assert images.min() >= 0
    assert images.max() <= 1


def test_shrinking_does_not_alias() -> None:
    stripes = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    images = Transform(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(stripes)
    assert images.std() < 0.05


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_without_jitter_pixels_only_move(seed: int) -> None:
    given = patches(seed=seed)
    turned = augment(given, generator(seed), jitter=0.0)
    for before, after in zip(given, turned, strict=True):
        orders = [torch.rot90(flipped, k) for flipped in (before, before.flip(1)) for k in range(4)]
        assert any(torch.equal(after, order) for order in orders)


def test_all_eight_symmetries_occur_equally() -> None:
    count = 4000
    square = torch.arange(4, dtype=torch.uint8).view(1, 2, 2, 1).expand(count, 2, 2, 3)
    turned = augment(square, generator(), jitter=0.0)[..., 0].flatten(1)
    kinds, counts = turned.unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 0.8 * count / 8


def test_the_generator_is_the_only_randomness() -> None:
    given = patches(64)
    before = given.clone()
    first, same = augment(given, generator(3)), augment(given, generator(3))
    assert torch.equal(first, same)
    assert not torch.equal(first, augment(given, generator(4)))
    assert torch.equal(given, before)
    assert first.dtype == torch.uint8


def test_jitter_is_light_and_floats_are_treated_alike() -> None:
    given = patches(64, 16)
    plain, restained = augment(given, generator(), jitter=0.0), augment(given, generator())
    change = (restained.float() - plain.float()).abs().mean()
    assert 2 < change < 25
    as_floats = augment(given.float() / 255, generator())
    assert (as_floats * 255 - restained.float()).abs().max() <= 0.51
    assert 0 <= as_floats.min() <= as_floats.max() <= 1


def test_what_is_sent_to_a_device_is_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[torch.dtype, int]] = []

    def on_device(tensor: torch.Tensor) -> torch.Tensor:
        sent.append((tensor.dtype, tensor.numel()))
        return tensor

    for module in (data, training):
        monkeypatch.setattr(module, "on_device", on_device)
    pixels, labels = patches(6).numpy(), torch.zeros(6, dtype=torch.long)
    rows = training.Patches(pixels, np.arange(6), labels, Transform(16, MEAN, STD))
    rows.batch(torch.arange(4), generator(), torch.tensor([0, 2]))
    large = [dtype for dtype, numbers in sent if numbers > 8]
    assert large and set(large) == {torch.uint8}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [8, 16])
def test_a_gpu_makes_the_input_that_a_cpu_makes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for where in ("cuda", "cpu"):
        monkeypatch.setattr(compute, "device", lambda where=where: torch.device(where))
        images = Transform(size, MEAN, STD)(augment(compute.on_device(patches()), generator()))
        found.append(images.cpu())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
