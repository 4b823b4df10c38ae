"""What a window lets through, checked by counting words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.measures import token_coverage


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_by_hand() -> None:
    coverage = token_coverage(["a b", "a b c d e f", "a b c d"], words, 4)
    assert coverage.lengths.tolist() == [2, 6, 4]
    assert (coverage.median, coverage.longest) == (4, 6)
    assert coverage.longer_share == pytest.approx(1 / 3)
    assert coverage.seen_share == pytest.approx(10 / 12)


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 60))
def test_a_window_that_fits_all_sees_all(lengths: list[int], window: int) -> None:
    coverage = token_coverage(["a " * length for length in lengths], words, window)
    assert (coverage.longer_share == 0) == (max(lengths) <= window)
    if sum(lengths):
        assert (coverage.seen_share == 1) == (coverage.longer_share == 0)
