"""What a profile will run, what of it is done, and about how long the rest takes here."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clipit_lib import lora, runs, specs, studies
from clipit_lib.compute import autocast, device
from clipit_lib.data.crc5 import SIZES
from clipit_lib.encoders import backbones, store
from clipit_lib.model import VisionClassifier
from clipit_lib.settings import Crc5Data, PhantomData, Profile, load_profile
from clipit_lib.workbench import Workbench

BATCH = 64


@dataclass(frozen=True)
class Job:
    """One run: cell, setting, seed, and whether it is stored already."""

    dataset: str
    backbone: str
    setting: str
    seed: int
    done: bool


@dataclass(frozen=True)
class Speed:
    """Seconds a patch of one backbone: a LoRA training step, a forward pass."""

    step: float
    forward: float


def jobs(profile: Profile) -> list[Job]:
    """The runs of all studies, each once; none counts as done while its encoders are untrained."""
    bench = Workbench(profile)
    wanted = dict.fromkeys(
        (dataset, backbone, setting, seed)
        for name in studies.STUDIES
        if studies.asked(profile, name)
        for dataset, backbone, settings, seeds in studies.cells(profile, name)
        for setting in settings
        for seed in seeds
    )
    return [Job(*each, _done(bench, *each)) for each in wanted]


def _done(bench: Workbench, dataset: str, backbone: str, setting: str, seed: int) -> bool:
    if not all(_trained(bench.profile, name) for name in bench.profile.trained_encoders):
        return False
    spec = specs.resolve(bench, dataset, backbone, setting, seed)
    return runs.find(bench.profile.name, spec.key) is not None


def _trained(profile: Profile, name: str) -> bool:
    declaration = profile.stand_in if name == "stand_in" else profile.pretraining
    return (store.folder(name, declaration) / store.CARD).exists()


def measure(backbone: str, profile: Profile) -> Speed:
    """Time a LoRA step and a forward pass of a backbone with random weights, on one thread."""
    side = profile.pretraining.side if profile.pretraining else None
    untrained = backbones.untrained(backbone, side, profile.stand_in)
    lora.inject(untrained.model, untrained.lora_targets, profile.lora)
    classifier = VisionClassifier(untrained.model, untrained.width, 2).to(device())
    size = untrained.transform.size
    images = torch.randn(BATCH, 3, size, size, device=device())
    labels = torch.zeros(BATCH, dtype=torch.long, device=device())

    def step() -> None:
        with autocast(profile.training.precision):
            loss = F.cross_entropy(classifier(images).logits, labels)
        loss.backward()

    @torch.inference_mode()
    def forward() -> None:
        classifier(images)

    return Speed(_seconds(step) / BATCH, _seconds(forward) / BATCH)


def _seconds(work: Callable[[], None]) -> float:
    """The fastest of three after a first: other work on the machine only ever slows a step."""
    work()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def estimate(profile: Profile, todo: list[Job]) -> float:
    """Seconds of one core (or GPU), by measured steps times the patches that each run sees.

    The text stage is not in it: it is shared by all backbones and small beside the images.
    """
    todo = [job for job in todo if job.setting.split("/")[0] != "text"]
    speeds = {name: measure(name, profile) for name in {job.backbone for job in todo}}
    total = 0.0
    for job in todo:
        train, other = _patches(profile, job.dataset)
        speed, training = speeds[job.backbone], profile.training_settings(job.dataset)
        if job.setting.split("/")[0] in ("unimodal", "vision", "zero_shot"):
            total += speed.forward * (train + other)
        else:
            total += training.epochs * (speed.step * train + speed.forward * other / 2)
    pretraining = profile.pretraining
    for name in profile.trained_encoders:
        if pretraining is not None and name in speeds and not _trained(profile, name):
            total += 2 * speeds[name].step * pretraining.images * pretraining.vision_epochs
    return total


def _patches(profile: Profile, dataset: str) -> tuple[int, int]:
    settings = profile.data_settings(dataset)
    if isinstance(settings, PhantomData):
        return settings.train, settings.validation + settings.test
    if isinstance(settings, Crc5Data):
        held = round(SIZES["train"] * settings.validation_split.fraction)
        return SIZES["train"] - held, SIZES["test"] + held
    data = Workbench(profile).dataset(dataset)
    train = len(data.indices("train"))
    return train, len(data.samples) - train


def main(arguments: list[str]) -> None:
    """`plan --profile NAME`: print counts and an estimate."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib plan", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    profile = load_profile(parser.parse_args(arguments).profile)
    encoders = profile.trained_encoders
    trained = sum(_trained(profile, name) for name in encoders)
    every = jobs(profile)
    todo = [job for job in every if not job.done]
    print(f"profile {profile.name}: {profile.summary}")
    print(f"  encoders   {len(encoders)} to train here, {trained} done: {', '.join(encoders)}")
    print(f"  pairings   {len(profile.data)}: {', '.join(profile.data)}")
    asked = [name for name in studies.STUDIES if studies.asked(profile, name)]
    print(f"  runs       {len(every)} different ones in {len(asked)} studies: {', '.join(asked)}")
    print(f"  done       {len(every) - len(todo)}, to do {len(todo)}")
    if todo:
        cores = torch.cuda.device_count() or os.cpu_count() or 1
        torch.set_num_threads(1)
        minutes = estimate(profile, todo) / 60 / cores
        print(
            f"  estimate   {minutes:.0f} min on {cores} cores or GPUs; the text stage is not in it"
        )
