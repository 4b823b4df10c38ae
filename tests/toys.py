"""The smallest data set and encoder, for tests of stores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from clipit_lib.data.patches import PatchDataset, Recipe, Transform, Undecoded, open_or_build


def toy(count: int, side: int = 8) -> PatchDataset:
    """`count` patches of noise, from the cache or into it."""
    numbers = np.arange(count)
    splits = np.array(["train", "validation", "test"])[numbers // 2 % 3]
    columns = {"id": numbers.astype(str), "split": splits, "label": numbers % 2, "group": splits}

    def decode(begin: int, end: int) -> np.ndarray:
        rng = np.random.default_rng(begin)
        return rng.integers(0, 256, (end - begin, side, side, 3), dtype=np.uint8)

    two = ("a", "b")
    recipe = Recipe(
        "toy", {"count": count, "side": side}, two, two, side,
        lambda: Undecoded(pd.DataFrame(columns), decode), None, "free", "none",
    )  # fmt: skip
    return open_or_build(recipe)


class Means(nn.Module):
    """The smallest encoder: the mean colour of a patch, eight times."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3)).repeat(1, 8)


def letters(text: str) -> list[int]:
    """Token ids of a text, for `Bag`."""
    return [3 + ord(letter) % 20 for letter in text]


class Bag(nn.Module):
    """The smallest text tower: the mean of learned letters, through a layer that LoRA adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(24, 16), nn.Linear(16, 6)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(self.embedding(ids).mean(dim=1))


def transform(side: int) -> Transform:
    return Transform(side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
