"""What a window lets through, checked by counting words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipit_lib.encoders.encoder import Tokenizer
from companion.measures import Coverage


def of_words(window: int) -> Tokenizer:
    """One token a word, one more at the start and one at the end."""
    return Tokenizer(lambda text: [0] * len(text.split()), 1, 2, 3, window)


def test_by_hand() -> None:
    coverage = Coverage.of(["a b", "a b c d e f", "a b c d"], of_words(6))
    assert (coverage.median, coverage.longest) == (6, 8)
    assert coverage.longer_share == pytest.approx(1 / 3)
    assert coverage.seen_share == pytest.approx(16 / 18)


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 60))
def test_a_window_that_fits_all_sees_all(words: list[int], window: int) -> None:
    coverage = Coverage.of(["a " * count for count in words], of_words(window))
    assert (coverage.longer_share == 0) == (max(words) + 2 <= window)
    assert (coverage.seen_share == 1) == (coverage.longer_share == 0)
