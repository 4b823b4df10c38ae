"""The command `plan`: what a profile will run, how long that takes, how much disk."""

from __future__ import annotations

import math
import os
import timeit
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.benchmark import timer

from clipit_lib import lora, runs, settings
from clipit_lib.compute import autocast, device
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.errors import ClipItError
from clipit_lib.model import VisionClassifier
from companion import crc5, specs, studies
from companion.cost import flops_per_image
from companion.crc5 import Crc5Data
from companion.phantom import Phantom
from companion.profile import Profile, Workbench, load_profile, sources_of_profile
from companion.published import OfThePaper

# -- Seconds that a patch takes, measured on this machine or scaled by operations.


REFERENCE = "kaiko_vits16"  # measured in place of models that are too large to time on a CPU
LARGE = 2e9  # multiply-adds an image
BATCH, REFERENCE_BATCH = 64, 8


@dataclass(frozen=True)
class Speed:
    """Seconds a patch of one backbone: a LoRA training step and a look, both in the precision of
    training; a forward pass in float32, as features and predictions are made.
    """

    step: float
    look: float
    forward: float

    def scaled(self, factor: float) -> Speed:
        return Speed(self.step * factor, self.look * factor, self.forward * factor)


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


def measure(name: str, profile: Profile, batch: int) -> Speed:
    """Time a LoRA step and forward passes of a backbone with random weights."""
    encoder = architecture(name, profile)
    lora.inject(encoder.model, encoder.lora_targets, profile.lora)
    classifier = VisionClassifier(encoder.model, encoder.width, 2).to(device())
    size, precision = encoder.transform.size, profile.training.precision
    images = torch.randn(batch, 3, size, size, device=device())
    labels = torch.zeros(batch, dtype=torch.long, device=device())

    def step() -> None:
        with autocast(precision):
            loss = F.cross_entropy(classifier(images).logits, labels)
        loss.backward()

    @torch.inference_mode()
    def forward(precision: Literal["no", "bf16"]) -> None:
        with autocast(precision):
            classifier(images)

    fastest = []  # of three after a first: other work on the machine only ever slows a step
    for work in (step, partial(forward, precision), partial(forward, "no")):
        work()
        # The timer waits for an accelerator to finish what it was given.
        fastest.append(min(timeit.repeat(work, number=1, repeat=3, timer=timer)) / batch)
    return Speed(*fastest)


# -- Speeds of accelerators that are not here: measured on one, scaled to the others.


def _manifest(name: str) -> pd.DataFrame:
    path = Path(__file__).parent / "manifests" / name
    return pd.read_csv(path, comment="#", index_col=0, dtype={0: str})


GPUS, MEASURED, MEASURED_ON = _manifest("gpus.csv"), _manifest("h200.csv"), "h200"


def on_gpu(
    known: Mapping[str, Facts], profile: Profile, gpu: str, format32: str = "tf32"
) -> dict[str, Speed]:
    """Speed of each backbone on a GPU of the table.

    What was measured is scaled by published speeds of products of matrices; a backbone that was not
    by its operations, from the one that is nearest in them.

    Args:
        format32: what multiplies float32: `tf32`, or `float32` itself.
    """
    costs = {name: facts(name, profile).multiply_adds for name in MEASURED.index}
    training = "bf16" if profile.training.precision == "bf16" else format32
    peaks = GPUS.drop(columns="source").astype(float)
    slower = peaks.loc[MEASURED_ON] / peaks.loc[gpu]

    def speed(name: str) -> Speed:
        cost = known[name].multiply_adds
        nearest = min(costs, key=lambda each: abs(math.log(costs[each] / cost)))
        rates, scale = MEASURED.loc[nearest], cost / costs[nearest]
        asked = (("step", training), ("forward", training), ("forward", format32))
        return Speed(*(slower[of] * scale / rates[f"{work}_{of}"] for work, of in asked))

    return {name: speed(name) for name in known}


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
    return untrained_backbone(name, side, profile.stand_in, depth=profile.depth)


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

    def retriever(self, profile: Profile) -> str | None:
        """What pairs the patches; None where no text is read."""
        changes = specs.Setting.of(self.setting).changes
        pairs = self.base in ("clip_it", "text") and "architecture_only" not in self.setting
        return changes.get("retriever", profile.retriever) if pairs else None


def jobs(profile: Profile, names: Iterable[str] = studies.STUDIES) -> list[Job]:
    """The runs of some studies, each once, in the order of the studies.

    Nothing is decoded: without patches in the cache, or with none of its runs stored, no run of a
    cell is taken for done.
    """
    wanted: dict[tuple[str, str, str, int], str] = {}
    for study in names:
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
Kind = Literal["step", "look", "forward"]
STEP = 2  # forward passes whose operations a LoRA step has: no gradient of frozen weights


@dataclass(frozen=True)
class Work:
    """Patches that pass through a backbone: by a training step, a look, or a forward pass.

    `job` is the run that needs them, None where runs share them.
    """

    term: str
    kind: Kind
    backbone: str
    patches: int
    job: Job | None = None

    def seconds(self, speeds: Mapping[str, Speed]) -> float:
        return self.patches * float(getattr(speeds[self.backbone], self.kind))

    def operations(self, known: Mapping[str, Facts]) -> float:
        passes = STEP if self.kind == "step" else 1
        return 2 * self.patches * passes * known[self.backbone].multiply_adds


def work(todo: Sequence[Job], profile: Profile, sizes: Mapping[str, Sizes]) -> list[Work]:
    """All passes of patches that runs need, term by term.

    A backbone embeds the patches of a data set once for its probes, a retriever once for all pairs.
    Not in it: the text stage, which all backbones share and which is small beside the images, and
    the probes, which have few operations but many steps.
    """
    found, pictured = list[Work](), reading_images(todo)
    for job in pictured:
        size, training = sizes[job.dataset], profile.training_settings(job.dataset)
        if job.base not in FROZEN:
            seen = min(size.validation, training.looks_at or size.validation)
            looked = training.epochs * training.checks_per_epoch * seen
            taken = training.epochs * size.train
            adapted = specs.fields_of(job.setting, profile).get("adaptation") != "none"
            kind: Kind = "step" if adapted else "look"  # no gradient of a frozen backbone
            found.append(Work("training steps", kind, job.backbone, taken, job))
            found.append(Work("looks at validation", "look", job.backbone, looked, job))
        predicted = size.validation + size.test
        found.append(Work("predictions", "forward", job.backbone, predicted, job))
    for dataset, backbone in dict.fromkeys(job.cell for job in pictured):
        held = sizes[dataset].train + sizes[dataset].validation
        found.append(Work("embeddings", "forward", backbone, held))
    pairings = {(job.dataset, job.retriever(profile)): sizes[job.dataset] for job in todo}
    for (dataset, retriever), size in pairings.items():
        if retriever:
            tested = any(j.base == "text" and j.dataset == dataset for j in todo)
            held = size.train + size.validation + tested * size.test
            found.append(Work("pairing", "forward", retriever, held))
    if (settings := profile.pretraining) is not None:
        views = 2 * settings.images * settings.vision_epochs
        trained = untrained(profile)
        found += [Work("encoders trained here", "step", name, views) for name in trained]
    return found


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


NOT_IN_IT = "the text stage and the steps of the probes are not in it, few labels count as all"


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


def terms(
    found: Sequence[tuple[Sequence[Work], Mapping[str, Speed]]], known: Mapping[str, Facts]
) -> str:
    """A line a term: operations and GPU-hours, before and as the profile is set."""
    lines = ["  term                     EFLOP, hours: float32, whole looks       as it is set"]
    for name in [*dict.fromkeys(one.term for one in found[0][0]), "together"]:
        line = f"  {name:40}"
        for passes, speeds in found:
            own = [one for one in passes if name in (one.term, "together")]
            exa = sum(one.operations(known) for one in own) / 1e18
            line += f" {exa:8.2f} {sum(one.seconds(speeds) for one in own) / 3600:9.1f}"
        lines.append(line)
    return "\n".join(lines)


def card(gpu: str, backbones: Collection[str]) -> str:
    """What the hours of a GPU rest on, and whether its memory holds a step."""
    row = GPUS.loc[gpu]
    how = f"measured here on an {MEASURED_ON}, steps and forward passes at batch {BATCH}"
    if gpu != MEASURED_ON:
        how += f"; scaled by speeds of matrix products ({row['source']}), not measured"
    room, needed = row["gigabytes"] * 1e9 / 2**30, MEASURED["gibibytes"]
    steps = ", ".join(f"{n} {gib}" for n, gib in needed.items() if n in backbones)
    fix = "" if needed.max() < room else "; where too few: `gradient_checkpointing: true`"
    return f"  {gpu:10} {how}\n  memory     {room:.0f} GiB; a step takes {steps}{fix}"


# -- What a profile will run, what of it is done, and about what the rest takes.


def main(options: Namespace) -> None:
    """Print what a profile will run, what of it is done, and what time and disk the rest takes."""
    if options.price is not None and not options.price > 0:
        raise ClipItError(f"{options.price}", "--price", "Give a number above 0")
    if options.gpu is not None:
        settings.known(options.gpu, GPUS.index, "GPU", "--gpu")
    profile = load_profile(options.profile)
    wanted = [options.study] if options.study else studies.STUDIES
    asked = [name for name in wanted if studies.asked(profile, name)]
    every = jobs(profile, asked)
    todo = [job for job in every if not job.done]
    print(overview(profile, every, asked, untrained(profile)))
    if not todo:
        return
    torch.set_num_threads(1)
    counts = {name: sizes(profile, name) for name in dict.fromkeys(job.dataset for job in todo)}
    passes = work(todo, profile, counts)
    known = {name: facts(name, profile) for name in dict.fromkeys(one.backbone for one in passes)}
    lines, gpu = [space(disk(todo, profile, counts, known))], options.gpu
    if gpu is None:
        found = speeds(known, profile)
        total = sum(one.seconds(found) for one in passes)
        workers = torch.cuda.device_count() or os.cpu_count() or 1
        large = any(one.multiply_adds > LARGE for one in known.values())
        large = large and not torch.cuda.is_available()
        lines.append(time_here(total, workers, large))
        gpu = "h100" if large else None  # cores would take weeks
    if gpu is not None:
        found, slow = on_gpu(known, profile, gpu), in_float32(profile)
        before = work(todo, slow, counts), on_gpu(known, slow, gpu, "float32")
        hours = sum(one.seconds(found) for one in passes) / 3600
        price = options.price
        cost = "" if price is None else f", {hours * price:,.0f} at {price:g} an hour"
        lines += [card(gpu, known), terms([before, (passes, found)], known)]
        lines.append(f"  estimate   {hours:.1f} hours on one {gpu}{cost}; {NOT_IN_IT}")
    if options.runs:
        each = dict.fromkeys(todo, 0.0)
        for one in passes:
            if one.job is not None:
                each[one.job] += one.seconds(found)
        print(table(every, each))
    print("\n".join(lines))


def in_float32(profile: Profile) -> Profile:
    """The same with steps in float32 and looks at all of validation."""
    values = {"precision": "no", "looks_at": None}
    each = {n: one.model_copy(update=values) for n, one in profile.training_for.items()}
    training = profile.training.model_copy(update=values)
    return profile.model_copy(update={"training": training, "training_for": each})
