"""The search for adapters and lambda: what is tried, with which budget, and what was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from clipit_lib.settings.base import Positive, Seed, Seeds, Strict, Weight
from clipit_lib.settings.method import Lora, Protocol
from clipit_lib.settings.reading import read_strict

LoraTargets = Literal["attention_mlp", "all"]


class Candidate(Strict):
    """Values of the fields that are searched; without text there is no distillation weight."""

    lora: Lora
    lora_targets: LoraTargets = "attention_mlp"
    distillation_weight: Weight | None = None

    def fields(self, protocol: Protocol) -> dict[str, Any]:
        """These values as fields of `RunSpec`, under a protocol that is otherwise kept."""
        fields: dict[str, Any] = {
            "lora": self.lora,
            "protocol": protocol.model_copy(update={"lora_targets": self.lora_targets}),
        }
        if self.distillation_weight is not None:
            fields["distillation_weight"] = self.distillation_weight
        return fields


class FoundWith(Strict):
    """How a choice was made: `validation` is its mean cross-entropy over `seeds`, in nats."""

    backbone: str
    trials: Positive
    seeds: tuple[int, ...]
    validation: float


class Chosen(Candidate):
    """The best candidate of a search."""

    found_with: FoundWith


SearchedSetting = Literal["lora_only", "clip_it"]
Searched = dict[str, dict[SearchedSetting, Chosen]]  # by data set


class SearchSpace(Strict):
    """What is tried; `scales` are alpha / rank, and lambda is drawn log-uniformly in a range.

    Targets are those that `lora.inject` has names for; both can be merged into the backbone.
    """

    ranks: tuple[Positive, ...] = (4, 8, 16, 32)
    scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    lora_targets: tuple[LoraTargets, ...] = ("attention_mlp", "all")
    distillation_weight: tuple[float, float] = (0.01, 10.0)


class Search(Strict):
    """The budget of every setting that is compared.

    `seeds` train the candidates and must not be seeds that a profile is evaluated with.
    """

    trials: Positive = 20
    seeds: Seeds = (1000, 1001)
    sampler_seed: Seed = 0
    space: SearchSpace = SearchSpace()


def read_searched(path: Path) -> Searched:
    """Read chosen values; an absent or empty file holds none.

    Raises:
        ClipItError: not YAML; an unknown key; a value of the wrong type.
    """
    searched: Searched = read_strict(path, Searched, absent={}) if path.exists() else {}
    return searched
