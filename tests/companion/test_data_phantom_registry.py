"""The phantom through the same door as every data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from companion.phantom import PhantomData


def phantom(**changes: Any) -> PhantomData:
    values: dict[str, Any] = {
        "source": "phantom", "world": "bach", "train": 40, "validation": 8, "test": 12,
        "side": 16, "corpus": "any",
    }  # fmt: skip
    return PhantomData(**values | changes)


def test_it_is_a_whole_data_set_that_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path))
    dataset = phantom().open("toy")
    sizes = [len(dataset.indices(split)) for split in ("train", "validation", "test")]
    assert sizes == [40, 8, 12]
    assert (dataset.samples["group"] != "").all()
    assert dataset.samples["group"].str.fullmatch(r"patient-\d+").all()
    assert "phantom" in dataset.limits.lower()
    same = phantom(corpus="another").open("toy")
    assert same.content_hash == dataset.content_hash
    other = phantom(seed=1).open("toy")
    assert other.content_hash != dataset.content_hash
    assert not np.array_equal(other.pixels, dataset.pixels)
