"""What a search samples, and sampled values as settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from clipit_lib.settings import Candidate, Lora, SearchedSetting, SearchSpace


def distributions(space: SearchSpace, setting: SearchedSetting) -> dict[str, BaseDistribution]:
    """What is sampled. Without text, lambda has no effect and is not."""
    sampled: dict[str, BaseDistribution] = {
        "rank": CategoricalDistribution(space.ranks),
        "scale": CategoricalDistribution(space.scales),
        "targets": CategoricalDistribution(space.lora_targets),
    }
    if setting == "clip_it":
        low, high = space.distillation_weight
        sampled["lambda"] = FloatDistribution(low, high, log=True)
    return sampled


def candidate_of(parameters: Mapping[str, Any], dropout: float) -> Candidate:
    """Sampled values as settings: alpha = scale x rank, lambda to three digits."""
    rank, weight = parameters["rank"], parameters.get("lambda")
    return Candidate(
        lora=Lora(rank=rank, alpha=max(1, round(parameters["scale"] * rank)), dropout=dropout),
        lora_targets=parameters["targets"],
        distillation_weight=None if weight is None else float(f"{weight:.3g}"),
    )


def first_trial(own: Candidate, sampled: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A profile's own values, to begin with; what is outside the space is left to the sampler."""
    values = {
        "rank": own.lora.rank,
        "scale": own.lora.alpha / own.lora.rank,
        "targets": own.lora_targets,
        "lambda": own.distillation_weight,
    }
    return {name: value for name, value in values.items() if _holds(sampled.get(name), value)}


def _holds(distribution: BaseDistribution | None, value: Any) -> bool:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return value in choices
        case FloatDistribution(low=low, high=high):
            return bool(low <= value <= high)
    return False


def describe(candidate: Candidate) -> str:
    """`rank 8, alpha 4, all, lambda 0.3`."""
    weight = candidate.distillation_weight
    end = "" if weight is None else f", lambda {weight:g}"
    adapters = candidate.lora
    return f"rank {adapters.rank}, alpha {adapters.alpha}, {candidate.lora_targets}{end}"
