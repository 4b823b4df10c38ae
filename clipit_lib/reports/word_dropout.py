"""Words taken out of reports, to see how much of the text is needed (Figure 5)."""

from __future__ import annotations

import numpy as np


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """`text` without a random `share` of its words (rounded; one word always stays)."""
    words = text.split()
    removed = min(round(share * len(words)), len(words) - 1)
    kept = np.sort(rng.permutation(len(words))[removed:])
    return " ".join(words[k] for k in kept)


def drop_from_all(texts: tuple[str, ...], share: float, seed: int, epoch: int) -> list[str]:
    """All texts with words dropped anew for this epoch."""
    rng = np.random.default_rng([seed, 4, epoch])
    return [drop_words(text, share, rng) for text in texts]
