"""The command `plan`: what a profile will run, how long that takes, how much disk."""

from __future__ import annotations

import os
import timeit
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, product

import torch
import torch.nn.functional as F
from torch.utils.benchmark import timer

from clipit_lib import lora, runs
from clipit_lib.compute import autocast, device
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.errors import ClipItError
from clipit_lib.model import VisionClassifier
from companion import crc5, specs, studies
from companion.cost.measure import flops_per_image
from companion.crc5 import Crc5Data
from companion.phantom.datasets import Phantom
from companion.profile import Profile, Workbench, load_profile, sources_of_profile
from companion.published import OfThePaper

# -- Seconds that a patch takes, measured on this machine or scaled by operations.


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

    fastest = []  # of three after a first: other work on the machine only ever slows a step
    for work in (step, forward):
        work()
        # The timer waits for an accelerator to finish what it was given.
        fastest.append(min(timeit.repeat(work, number=1, repeat=3, timer=timer)) / batch)
    return Speed(*fastest)


# -- How many patches a data set has, said without opening it.


@dataclass(frozen=True)
class Sizes:
    """Patches a split, and the side of a kept patch in pixels."""

    train: int
    validation: int
    test: int
    side: int

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test


def sizes(profile: Profile, dataset: str) -> Sizes:
    """Sizes of one data set of a profile, whose images are listed at most.

    Raises:
        ClipItError: it is the user's own and cannot be listed.
    """
    settings, counts = profile.data_settings(dataset), dict[str, int]()
    if isinstance(settings, Phantom):
        return Sizes(*settings.sizes, settings.side)
    if isinstance(settings, Crc5Data):
        counts |= crc5.SIZES
    elif isinstance(settings, OfThePaper):
        counts |= settings.published.images
    else:
        counts |= Counter(settings.recipe(dataset).gather().samples["split"])
    validation = counts.get("validation", 0)
    held = 0 if validation else round(counts["train"] * settings.validation_split.fraction)
    return Sizes(counts["train"] - held, validation + held, counts["test"], settings.side)


# -- What must be known of a backbone to plan with it; nothing is computed or loaded.


@dataclass(frozen=True)
class Facts:
    """Of one backbone: multiply-adds of an image (what the paper calls FLOPs), features, and how
    many numbers its adapters hold."""

    multiply_adds: float
    width: int
    adapters: int


def facts(name: str, profile: Profile) -> Facts:
    """Count on the architecture without weights."""
    with torch.device("meta"):
        encoder = architecture(name, profile)
        cost = flops_per_image(encoder.model.eval(), encoder.transform.size) / 2
        lora.inject(encoder.model, encoder.lora_targets, profile.lora)
    adapters = (p for n, p in encoder.model.named_parameters() if "lora_" in n)
    return Facts(cost, encoder.width, sum(p.numel() for p in adapters))


def architecture(name: str, profile: Profile) -> VisionEncoder:
    """A backbone with random weights."""
    from companion.conch import untrained_backbone  # slow to import

    side = profile.pretraining.side if profile.pretraining else None
    return untrained_backbone(name, side, profile.stand_in)


# -- The runs of a profile, and which of them are stored already.


@dataclass(frozen=True)
class Job:
    """One run, the first study that asks for it, and whether it is stored."""

    study: str
    dataset: str
    backbone: str
    setting: str
    seed: int
    done: bool

    @property
    def cell(self) -> tuple[str, str]:
        return self.dataset, self.backbone

    @property
    def base(self) -> str:
        """The setting without what is changed in it."""
        return self.setting.split("/")[0]


def jobs(profile: Profile) -> list[Job]:
    """The runs of all studies, each once, in the order of the studies.

    Nothing is decoded: without patches in the cache, or with none of its runs stored, no run of a
    cell is taken for done.
    """
    wanted: dict[tuple[str, str, str, int], str] = {}
    for study in studies.STUDIES:
        if studies.asked(profile, study):
            for dataset, backbone, settings, seeds in studies.cells(profile, study):
                for setting, seed in product(settings, seeds):
                    wanted.setdefault((dataset, backbone, setting, seed), study)
    bench, stored = Workbench(profile, download=False), list(runs.stored(profile.name))
    begun, keys = set[tuple[str, str]](), {run.key for run in stored}
    for name in profile.data.keys() & {run.spec.dataset for run in stored}:
        with suppress(ClipItError):
            if profile.data[name].recipe(name).folder.exists():
                begun |= {(name, run.spec.backbone) for run in stored if run.spec.dataset == name}

    def done(dataset: str, backbone: str, setting: str, seed: int) -> bool:
        if (dataset, backbone) not in begun:
            return False
        try:
            return specs.resolve(bench, dataset, backbone, setting, seed).key in keys
        except ClipItError:  # without the data or weights of a cell, none of it can be done
            begun.remove((dataset, backbone))
            return False

    return [Job(study, *each, done(*each)) for each, study in wanted.items()]


def untrained(profile: Profile) -> tuple[str, ...]:
    """The encoders that are trained on the spot and have not been."""
    sources = sources_of_profile(profile)
    return tuple(name for name in profile.trained_encoders if not sources.recipe(name).trained)


def reading_images(jobs: Iterable[Job]) -> list[Job]:
    """All but text classifiers."""
    return [job for job in jobs if job.base != "text"]


# -- What it takes to pass patches through the models of a profile.


FROZEN = ("unimodal", "vision", "zero_shot")


def seconds_of(
    todo: list[Job], profile: Profile, sizes: Mapping[str, Sizes], speeds: Mapping[str, Speed]
) -> dict[Job, float]:
    """Seconds of one core or accelerator for each run, without what runs share.

    A frozen backbone's features are kept and shared. A text classifier reads no image, and the text
    stage is not counted: it is shared by all backbones and small beside the images.
    """
    found = dict.fromkeys(todo, 0.0)
    for job in reading_images(todo):
        size, speed = sizes[job.dataset], speeds[job.backbone]
        trained, seen = 0, size.validation + size.test
        if job.base not in FROZEN:
            training = profile.training_settings(job.dataset)
            trained = training.epochs * size.train
            seen += training.epochs * training.checks_per_epoch * size.validation
        found[job] = trained * speed.step + seen * speed.forward
    return found


def shared_seconds(
    todo: list[Job], profile: Profile, sizes: Mapping[str, Sizes], speeds: Mapping[str, Speed]
) -> float:
    """Seconds for what runs share: embeddings, and encoders that are trained on the spot.

    Each backbone embeds the patches of a data set once for its probes.
    """
    total = 0.0
    for dataset, backbone in {job.cell for job in reading_images(todo)}:
        total += (sizes[dataset].train + sizes[dataset].validation) * speeds[backbone].forward
    settings = profile.pretraining
    for name in untrained(profile):
        if settings is not None and name in speeds:
            total += 2 * speeds[name].step * settings.images * settings.vision_epochs
    return total


# -- Bytes that a profile needs on disk.


FLOAT = 4
BYTES_A_PREDICTION = 24  # a row of predictions.parquet: compressed logits, label, id
SMALL = 1 << 20  # heads, history and cards of one run


def disk(
    todo: list[Job], profile: Profile, sizes: Mapping[str, Sizes], known: Mapping[str, Facts]
) -> dict[str, int]:
    """What the runs that are left will write (and keep: nothing of it is temporary)."""
    embedded = {job.cell for job in reading_images(todo)}
    embedded |= {(dataset, name) for dataset in sizes for name in profile.retrievers}
    adapted = [known[job.backbone].adapters for job in todo if job.base not in (*FROZEN, "text")]
    predicted = [sizes[job.dataset].validation + sizes[job.dataset].test for job in todo]
    return {
        "decoded patches": sum(one.total * one.side**2 * 3 for one in sizes.values()),
        "embeddings": sum(
            sizes[dataset].total * known[name].width * FLOAT
            for dataset, name in embedded if name in known
        ),
        "runs": sum(predicted) * BYTES_A_PREDICTION + len(todo) * SMALL + sum(adapted) * FLOAT,
    }  # fmt: skip


# -- The plan as text.


def overview(
    profile: Profile, every: Sequence[Job], asked: Sequence[str], missing: Sequence[str]
) -> str:
    """Counts of encoders, pairings and runs."""
    encoders, done = profile.trained_encoders, sum(job.done for job in every)
    trained = f"{len(encoders)} to train here, {len(encoders) - len(missing)} done"
    lines = [
        f"profile {profile.name}: {profile.summary}",
        f"  encoders   {trained}: {', '.join(encoders)}" if encoders else "",
        f"  pairings   {len(profile.data)}: {', '.join(profile.data)}",
        f"  runs       {len(every)} different ones in {len(asked)} studies: {', '.join(asked)}",
        f"  done       {done}, to do {len(every) - done}",
    ]
    return "\n".join(line for line in lines if line)


def table(every: Sequence[Job], seconds: Mapping[Job, float]) -> str:
    """A line a study, data set, backbone and setting: its seeds, those that are done, and hours."""
    lines = ["  study            data set, backbone, setting: seeds (done); what is left"]
    for (study, cell, setting), found in groupby(every, lambda j: (j.study, j.cell, j.setting)):
        group = list(found)
        seeds = " ".join(f"({job.seed})" if job.done else str(job.seed) for job in group)
        left = sum(seconds.get(job, 0.0) for job in group)
        lines.append(f"  {study:16} {' '.join(cell)} {setting}: {seeds}; {duration(left)}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def space(disk: Mapping[str, int]) -> str:
    """What will be written, in units of 10^9 bytes."""
    parts = ", ".join(f"{size / 1e9:.1f} {name}" for name, size in disk.items())
    total = f"{sum(disk.values()) / 1e9:.1f} GB"
    return f"  disk       {total}: {parts}; downloads and weights come on top"


def time_here(seconds: float, workers: int, scaled: bool) -> str:
    """Time that is left on this machine, and how it was found."""
    kind, hours = "GPU" if torch.cuda.is_available() else "core", seconds / 3600
    how = "by steps timed here"
    if scaled:
        how += f", those of large models by {REFERENCE} and their operations"
    amount = f"{hours * 60 / workers:.0f} min on {workers} {kind}s"
    if hours >= 10:
        amount = f"{hours:.0f} {kind}-hours ({hours / workers / 24:.1f} days on {workers})"
    return f"  estimate   {amount}, {how}; {NOT_IN_IT}"


def time_assumed(seconds: float, teraflops: float) -> str:
    """Time that is left on an accelerator of a stated speed."""
    return (
        f"  estimate   {seconds / 3600:.0f} GPU-hours if a GPU sustains {teraflops:g} TFLOP/s, "
        f"which is assumed, not measured (--teraflops); {NOT_IN_IT}"
    )


NOT_IN_IT = "the text stage is not in it"


# -- What a profile will run, what of it is done, and about what the rest takes.


def main(options: Namespace) -> None:
    """Print what a profile will run, what of it is done, and what time and disk the rest takes."""
    if options.teraflops is not None and not options.teraflops > 0:
        raise ClipItError(f"{options.teraflops}", "--teraflops", "Give a number above 0")
    profile = load_profile(options.profile)
    every = jobs(profile)
    todo = [job for job in every if not job.done]
    asked = [name for name in studies.STUDIES if studies.asked(profile, name)]
    print(overview(profile, every, asked, untrained(profile)))
    if not todo:
        return
    torch.set_num_threads(1)
    counts = {name: sizes(profile, name) for name in profile.data}
    backbones = dict.fromkeys(job.backbone for job in reading_images(todo))
    known = {name: facts(name, profile) for name in backbones}

    def left(found: Mapping[str, Speed]) -> tuple[dict[Job, float], float]:
        each = seconds_of(todo, profile, counts, found)
        return each, sum(each.values()) + shared_seconds(todo, profile, counts, found)

    here = speeds(known, profile)
    each, total = left(here)
    # Cores would take weeks: say as well what accelerators may take.
    large = not torch.cuda.is_available() and any(f.multiply_adds > LARGE for f in known.values())
    teraflops = options.teraflops or (TERAFLOPS if large else None)
    estimates = []
    if teraflops is not None:
        each, there = left(assumed(known, here, teraflops))
        estimates = [time_assumed(there, teraflops)]
    workers = torch.cuda.device_count() or os.cpu_count() or 1
    estimates.append(time_here(total, workers, large))
    if options.runs:
        print(table(every, each))
    print("\n".join([space(disk(todo, profile, counts, known)), *estimates]))
