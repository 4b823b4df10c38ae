"""How much of the reports a text encoder with a fixed window can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coverage:
    """Token counts of a corpus under one tokenizer.

    Attributes:
        lengths: [n] tokens of each report.
        share_longer: share of reports that do not fit the window.
        share_seen: share of all tokens that lies within the window.
    """

    lengths: np.ndarray
    median: float
    mean: float
    longest: int
    share_longer: float
    share_seen: float


def token_coverage(
    texts: Sequence[str], tokenize_length: Callable[[Sequence[str]], list[int]], context_length: int
) -> Coverage:
    """Count tokens of `texts` against a window of `context_length` tokens."""
    lengths = np.asarray(tokenize_length(texts))
    return Coverage(
        lengths,
        float(np.median(lengths)),
        float(lengths.mean()),
        int(lengths.max()),
        float((lengths > context_length).mean()),
        float(np.minimum(lengths, context_length).sum() / lengths.sum()),
    )
