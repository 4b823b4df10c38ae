"""How much of each report a text encoder's window lets through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coverage:
    """Lengths of reports in tokens, against a window of `context_length` tokens.

    Attributes:
        lengths: [reports] int64, tokens of each report as the tokenizer counts them.
    """

    context_length: int
    lengths: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.lengths))

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    @property
    def longer_share(self) -> float:
        """Share of the reports that do not fit the window."""
        return float((self.lengths > self.context_length).mean())

    @property
    def seen_share(self) -> float:
        """Share of all tokens that are seen when each report is cut at the window."""
        seen = np.minimum(self.lengths, self.context_length).sum()
        return float(seen / max(self.lengths.sum(), 1))


def token_coverage(
    texts: Sequence[str], tokenize_length: Callable[[list[str]], list[int]], context_length: int
) -> Coverage:
    """Measure `texts` with a tokenizer.

    Args:
        tokenize_length: tokens of each text, before anything is cut.
        context_length: tokens that the encoder sees, counted in the same way.
    """
    return Coverage(context_length, np.array(tokenize_length(list(texts)), np.int64))
