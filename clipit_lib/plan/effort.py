"""How many patches the runs of a profile pass through its models, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clipit_lib.plan.jobs import Job, untrained
from clipit_lib.plan.sizes import Sizes
from clipit_lib.plan.speed import Speed
from clipit_lib.settings import Profile

FROZEN = ("unimodal", "vision", "zero_shot")


@dataclass(frozen=True)
class Passes:
    """Patches that one run trains on (each epoch counts), and that it only looks at."""

    trained: int
    seen: int

    def seconds(self, speed: Speed) -> float:
        return self.trained * speed.step + self.seen * speed.forward


def passes(job: Job, profile: Profile, sizes: Sizes) -> Passes:
    """Passes of one run through its backbone; a frozen backbone's features are kept and shared.

    The text classifier reads no image, and the text stage is not counted: it is shared by all
    backbones and small beside the images.
    """
    if job.base == "text":
        return Passes(0, 0)
    at_the_end = sizes.validation + sizes.test
    if job.base in FROZEN:
        return Passes(0, at_the_end)
    training = profile.training_settings(job.dataset)
    looks = training.epochs * training.checks_per_epoch
    return Passes(training.epochs * sizes.train, looks * sizes.validation + at_the_end)


def embedding_passes(todo: Iterable[Job], sizes: Mapping[str, Sizes]) -> dict[str, int]:
    """Patches that each backbone embeds once for the probes, over all data sets."""
    total: dict[str, int] = {}
    for dataset, backbone in {job.cell for job in todo if job.base != "text"}:
        one = sizes[dataset]
        total[backbone] = total.get(backbone, 0) + one.train + one.validation
    return total


def seconds_of(
    todo: list[Job], profile: Profile, sizes: Mapping[str, Sizes], speeds: Mapping[str, Speed]
) -> dict[Job, float]:
    """Seconds of one core or accelerator for each run, without what runs share."""
    return {
        job: passes(job, profile, sizes[job.dataset]).seconds(speeds[job.backbone])
        if job.base != "text"
        else 0.0
        for job in todo
    }


def shared_seconds(
    todo: list[Job], profile: Profile, sizes: Mapping[str, Sizes], speeds: Mapping[str, Speed]
) -> float:
    """Seconds for what runs share: embeddings, and encoders that are trained on the spot."""
    embedded = embedding_passes(todo, sizes)
    total = sum((count * speeds[name].forward for name, count in embedded.items()), 0.0)
    settings = profile.pretraining
    for name in untrained(profile):
        if settings is not None and name in speeds:
            total += 2 * speeds[name].step * settings.images * settings.vision_epochs
    return total
