"""The smallest data sets, reports and encoders: a whole run on them takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from clipit_lib.data.folder import FolderData
from clipit_lib.data.patches import PatchDataset, Recipe, Transform, Undecoded, open_or_build
from clipit_lib.data.reports import Corpus, ReportCorpus
from clipit_lib.encoders import registry, weights
from clipit_lib.encoders.encoder import ClipEncoder, Tokenizer
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import Sources


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


# -- A profile of which everything is as small as that, and opened as the real ones are.


SIDE, CONTEXT = 8, 40
CELL = ("toy", "phantom_vit_s16")  # the encoders go by names that the registry knows


def vision(side: int = SIDE) -> VisionEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Linear(3 * side**2, 16)
        model = nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(16, 16))
    return VisionEncoder("mine", model, transform(side), 16, "1", "")


def clip(side: int = SIDE, seed: int = 1) -> ClipEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        image, text = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 6)), Bag()
    tokens = Tokenizer(letters, 1, 2, 0, CONTEXT)
    return ClipEncoder(
        "mine", image, text, tokens, transform(side), 6, "1", "layer", "", stand_in=False
    )


def toy_encoders(patch: pytest.MonkeyPatch, side: int = SIDE) -> None:
    """Load these in place of those that the registry has, under other names of their weights."""
    named = registry.weights_hash

    def weights_hash(name: str, sources: Sources, text: bool = False) -> str:
        return f"toy-{named(name, sources, text)}"

    def load_backbone(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
        found = replace(vision(side), weights_hash=weights_hash(name, sources))
        if "clip" in name:  # the half of it that sees
            found = replace(found, model=clip(side, len(name)).image_tower, width=6)
        other = Transform(side, (0.7, 0.5, 0.4), (0.5, 0.5, 0.5))
        return found if normalisation == "own" else replace(found, transform=other)

    def load_clip(name: str, sources: Sources) -> ClipEncoder:
        return replace(clip(side, len(name)), weights_hash=weights_hash(name, sources, text=True))

    for function in (weights_hash, load_backbone, load_clip):
        patch.setattr(registry, function.__name__, function)


class ToyData(FolderData):
    """Noise in which a class shows as a colour; splits and labels in no order."""

    def open(self, name: str) -> PatchDataset:
        rng = np.random.default_rng(0)
        split = rng.permutation(np.repeat(["train", "validation", "test"], [40, 28, 14]))
        label = rng.permutation(np.arange(len(split)) % 3)
        pixels = rng.integers(0, 200, (len(split), SIDE, SIDE, 3), dtype=np.uint8)
        pixels[np.arange(len(split)), ..., label] += 40
        ids = [f"p{number}" for number in range(len(split))]
        samples = pd.DataFrame({"id": ids, "split": split, "label": label, "group": ids[::-1]})
        three = ("red", "green", "blue")
        return PatchDataset(name, three, three, samples, pixels, "toy")


class ToyCorpus(Corpus):
    """Reports of random words, longer than the context window."""

    def open(self, name: str) -> ReportCorpus:
        rng = np.random.default_rng(1)
        words = ["".join(rng.choice([*"abcdefghijk"], 4)) for _ in range(20)]
        texts = tuple(" ".join(rng.choice(words, 14)) for _ in range(9))
        return ReportCorpus(name, tuple(map(str, range(9))), texts, "toy", "toy")


class ToyOwnCorpus(ToyCorpus):
    """A report on each patch of `ToyData` that is paired, in another order, and one on none."""

    def open(self, name: str) -> ReportCorpus:
        rng = np.random.default_rng(2)
        ids = ("of nobody", *(f"p{number}" for number in rng.permutation(82)))
        texts = tuple(" ".join(rng.choice([*"abcdefghijk"], 9)) for _ in ids)
        return ReportCorpus(name, ids, texts, "toy", "toy-own")


def toy_bench(patch: pytest.MonkeyPatch, **sections: Any) -> Any:
    """The smoke profile on these, as long as the patch lasts.

    Args:
        sections: values of the profile that are changed, such as `training={"epochs": 3}`.
    """
    from companion.profile import Workbench, load_profile

    toy_encoders(patch)
    patch.setattr(weights, "read_card", lambda _: {"weights_hash": "toy"})
    profile = load_profile("smoke")
    new = {name: getattr(profile, name).model_copy(update=of) for name, of in sections.items()}
    data = ToyData(source="folder", folder="", class_texts=("a", "b", "c"), corpus="toy")
    corpora = profile.corpora | {"toy": ToyCorpus(), "toy-own": ToyOwnCorpus()}
    opened = {"data": {"toy": data}, "corpora": corpora}
    return Workbench(profile.model_copy(update=opened | new))
