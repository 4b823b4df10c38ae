"""Seconds that a patch takes, measured on this machine or scaled by operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clipit_lib import lora
from clipit_lib.compute import autocast, device
from clipit_lib.model import VisionClassifier
from clipit_lib.plan.models import Facts, architecture, facts
from clipit_lib.settings import Profile

REFERENCE = "kaiko_vits16"  # measured in place of models that are too large to time on a CPU
LARGE = 2e9  # multiply-adds an image
TERAFLOPS = 40.0  # an assumption for where no accelerator is: what a large one may sustain
BATCH, REFERENCE_BATCH = 64, 8


@dataclass(frozen=True)
class Speed:
    """Seconds a patch of one backbone: a LoRA training step, a forward pass."""

    step: float
    forward: float

    def scaled(self, factor: float) -> Speed:
        return Speed(self.step * factor, self.forward * factor)


def speeds(known: Mapping[str, Facts], profile: Profile) -> dict[str, Speed]:
    """Speed of each backbone with random weights, on one core or one accelerator.

    On a CPU a large model is not timed: the reference is, and its time is scaled by operations.
    """
    costs = {name: one.multiply_adds for name, one in known.items()}
    large = {name for name, cost in costs.items() if cost > LARGE and device().type == "cpu"}
    found = {name: measure(name, profile, BATCH) for name in costs if name not in large}
    if large:
        reference = measure(REFERENCE, profile, REFERENCE_BATCH)
        cost = facts(REFERENCE, profile).multiply_adds
        found |= {name: reference.scaled(costs[name] / cost) for name in large}
    return found


def assumed(
    known: Mapping[str, Facts], measured: Mapping[str, Speed], teraflops: float
) -> dict[str, Speed]:
    """Speed on an accelerator that sustains so many 10^12 operations a second.

    Two operations are a multiply-add; a step takes as many forward passes as was measured here.
    """
    forward = {name: 2 * one.multiply_adds / (teraflops * 1e12) for name, one in known.items()}
    return {name: measured[name].scaled(forward[name] / measured[name].forward) for name in known}


def measure(name: str, profile: Profile, batch: int) -> Speed:
    """Time a LoRA step and a forward pass of a backbone with random weights."""
    encoder = architecture(name, profile)
    lora.inject(encoder.model, encoder.lora_targets, profile.lora)
    classifier = VisionClassifier(encoder.model, encoder.width, 2).to(device())
    size = encoder.transform.size
    images = torch.randn(batch, 3, size, size, device=device())
    labels = torch.zeros(batch, dtype=torch.long, device=device())

    def step() -> None:
        with autocast(profile.training.precision):
            loss = F.cross_entropy(classifier(images).logits, labels)
        loss.backward()

    @torch.inference_mode()
    def forward() -> None:
        with autocast(profile.training.precision):
            classifier(images)

    return Speed(_seconds(step) / batch, _seconds(forward) / batch)


def _seconds(work: Callable[[], None]) -> float:
    """The fastest of three after a first: other work on the machine only ever slows a step."""
    work()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)
