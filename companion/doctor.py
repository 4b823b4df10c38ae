"""The command `doctor`: whether machine, data and models are as a profile needs them."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch

from clipit_lib import kernels, paths
from clipit_lib.data.folder import FolderData
from clipit_lib.data.published import PUBLISHED_DATA, OfThePaper
from clipit_lib.encoders import registry
from clipit_lib.encoders.weights import (
    Published,
    Trained,
    hub_size,
    on_disk,
    package_folder,
)
from clipit_lib.errors import ClipItError
from companion import crc5
from companion.crc5 import Crc5Data
from companion.plan import Sizes, sizes
from companion.profile import Profile, load_profile, sources_of_profile

# -- What a check finds, in one line, with the fix.


class Status(StrEnum):
    """PASS: as it should be. WARN: it will run, but read this. FAIL: it will not run."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: the area it is about, what was seen, and what to do about it."""

    status: Status
    area: str
    seen: str
    fix: str = ""

    def __str__(self) -> str:
        end = f" -> {self.fix}" if self.fix else ""
        return f"{self.status:4}  {self.area:10} {self.seen}{end}"


def passed(area: str, seen: str) -> Finding:
    return Finding(Status.PASS, area, seen)


def warned(area: str, seen: str, fix: str) -> Finding:
    return Finding(Status.WARN, area, seen, fix)


def failed(area: str, seen: str, fix: str) -> Finding:
    return Finding(Status.FAIL, area, seen, fix)


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row a finding: status, area, seen, fix."""
    rows = [(str(each.status), each.area, each.seen, each.fix) for each in findings]
    return pd.DataFrame(rows, columns=["status", "area", "seen", "fix"])


# -- The machine: Python, packages, accelerator, memory, disk.


PYTHON = (3, 11)
PACKAGES = ("torch", "timm", "open_clip_torch", "peft", "snakemake", "papermill")
MEMORY_GIB = 2**30


def python() -> Finding:
    """The version that this library is written and tested for."""
    seen = f"Python {platform.python_version()}"
    if sys.version_info[:2] < PYTHON:
        return failed("python", seen, "Use Python 3.11, for example by conda or pyenv")
    if sys.version_info[:2] > PYTHON:
        return warned("python", seen, "Tested with 3.11 only; use that if something fails")
    return passed("python", seen)


def packages() -> Finding:
    """The packages that everything rests on."""
    try:
        seen = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    except PackageNotFoundError as error:
        return failed(
            "packages", f"{error.name} is not installed", "pip install -r requirements.lock"
        )
    return passed("packages", seen)


def held_kernels() -> Finding:
    """Whether numbers will be those of every other x86-64 CPU with AVX2."""
    if kernels.level() == "avx2":
        return passed("kernels", "held to AVX2: the same bytes as on every x86-64 CPU with it")
    if torch.cuda.is_available():
        return passed("kernels", "the GPU's own: another one gives other digits")
    fix = "Unset CLIPIT_KERNELS; a CPU without AVX2 cannot do better, see docs/reproducibility.md"
    return warned("kernels", "this CPU's own: another one gives other digits", fix)


def accelerator(wanted: bool) -> Finding:
    """GPUs as PyTorch sees them, and the driver; `wanted` says whether it takes days without."""
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        seen = ", ".join(
            f"{card.name} ({card.total_memory / MEMORY_GIB:.0f} GiB)" for card in cards
        )
        return passed("gpu", f"{seen}; driver {_driver() or 'unknown'}")
    driver = _driver()
    if driver is not None:
        fix = f"Install a torch for your driver: this one is {torch.__version__}"
        return failed("gpu", f"driver {driver}, but PyTorch sees no GPU", fix)
    cores = f"no GPU; {os.cpu_count()} cores"
    if not wanted:
        return passed("gpu", f"{cores}, which this profile is made for")
    fix = "Run on a machine or cluster with GPUs; on cores it takes weeks"
    return warned("gpu", cores, fix)


def _driver() -> str | None:
    """The driver's version, or None if there is none to ask."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.splitlines()[0].strip() if said.stdout.strip() else None


def memory(needed: int) -> Finding:
    """Main memory in all, against what one job needs (bytes)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    seen = f"{total / MEMORY_GIB:.0f} GiB in all, about {needed / MEMORY_GIB:.0f} GiB needed a job"
    if total < needed:
        return warned("memory", seen, "Run fewer jobs at a time (--jobs 1), or on more memory")
    return passed("memory", seen)


def disk(needed: int) -> Finding:
    """Free space where caches go, against what may be written (bytes)."""
    place = paths.cache()
    free = shutil.disk_usage(_existing(place)).free
    seen = f"{free / 1e9:.0f} GB free, {needed / 1e9:.1f} GB at most will be written"
    if free < needed:
        return failed("disk", seen, "Free space, or set CLIPIT_CACHE and CLIPIT_OUTPUT to a disk")
    if free < 1.2 * needed:
        return warned("disk", seen, "It will be tight; CLIPIT_CACHE can be on another disk")
    return passed("disk", seen)


def writable() -> Finding:
    """Whether results and caches can be written where they go."""
    for place in (paths.output(), paths.cache()):
        folder = _existing(place)
        if not os.access(folder, os.W_OK):
            fix = "Give write permission or set CLIPIT_OUTPUT and CLIPIT_CACHE"
            return failed("output", f"cannot write in {folder}", fix)
    return passed("output", "results and caches can be written")


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


# -- The data sets and reports of a profile: are they there, are they whole, on which terms?


SHOWN = 3  # problems of one data set


def data(profile: Profile) -> list[Finding]:
    """Findings on all data sets of a profile; nothing is decoded, but for the user's own."""
    return [finding for name in profile.data for finding in _dataset(profile, name)]


def _dataset(profile: Profile, name: str) -> list[Finding]:
    settings = profile.data_settings(name)
    if isinstance(settings, OfThePaper):
        return _data_published(name, settings)
    if isinstance(settings, Crc5Data):
        return [_checked(name, crc5.check_crc5, crc5.LICENCE)]
    if isinstance(settings, FolderData):
        own = partial(settings.open, name)
        return [_checked(name, own, f"licence: {settings.licence}")]
    return [passed("data", f"{name}: drawn on the spot")]


def _data_published(name: str, settings: OfThePaper) -> list[Finding]:
    known = PUBLISHED_DATA[settings.source]
    try:
        found = settings.problems()
    except ClipItError as error:
        found = [error]
    if not found:
        return [passed("data", f"{name}: {known.title}, whole; {known.terms}")]
    lines = [_failure(f"{name}: {known.name}", error) for error in found[:SHOWN]]
    if len(found) > SHOWN:
        more = f"{name}: {len(found) - SHOWN} further problems"
        lines.append(failed("data", more, "Mend the first; then ask again"))
    return [*lines, warned("data", f"{name}: {known.licence}", f"Read the terms at {known.page}")]


def reports(profile: Profile) -> list[Finding]:
    """Findings on all corpora: each is read and cleaned."""
    findings = []
    for name, settings in profile.corpora.items():
        try:
            corpus = settings.open(name)
        except ClipItError as error:
            findings.append(_failure(name, error, "reports"))
        else:
            seen = f"{name}: {len(corpus)} reports; licence: {corpus.licence}"
            findings.append(passed("reports", seen))
    return findings


def _checked(name: str, look: Callable[[], object], terms: str) -> Finding:
    try:
        look()
    except ClipItError as error:
        return _failure(name, error)
    return passed("data", f"{name}: whole; {terms}")


def _failure(name: str, error: ClipItError, area: str = "data") -> Finding:
    return failed(area, f"{name}: {error.what}: {error.where}", error.fix)


# -- The models of a profile: can their weights be had, and on which terms?


OPTIONAL = {"conch": "pip install git+https://github.com/mahmoodlab/CONCH.git, on its own terms"}


def models(profile: Profile) -> list[Finding]:
    """Findings on every retriever and backbone of a profile; nothing is downloaded."""
    names = dict.fromkeys((*profile.retrievers, *profile.backbones))
    findings = []
    for name in names:
        try:
            if name in profile.retrievers:
                registry.clip_entry(name)
            findings += _model(name, profile)
        except ClipItError as error:
            findings.append(failed("models", f"{name}: {error.what}: {error.where}", error.fix))
    return findings


def _model(name: str, profile: Profile) -> list[Finding]:
    origin = registry.entry(name).weights
    if isinstance(origin, Published):
        return _models_published(origin, profile)
    for package in origin.packages:
        package_folder(package)
    said = f"weights in an installed package; {origin.licence}"
    if isinstance(origin, Trained):
        out_of = " out of two installed packages" if origin.packages else ""
        said = f"trained on the spot{out_of}"
    return [passed("models", f"{name}: {said}")]


def _models_published(model: Published, profile: Profile) -> list[Finding]:
    name, findings = model.name, []
    if name in OPTIONAL and find_spec(name) is None:
        findings.append(failed("models", f"{name}: its own package is missing", OPTIONAL[name]))
    try:
        path = on_disk(model, sources_of_profile(profile).copies)
        size = None if path else hub_size(model)  # nothing is downloaded
        large = "" if size is None else f" ({size / 1e9:.1f} GB)"
        seen = path or f"will be downloaded{large}"
        findings.append(passed("models", f"{name}: {seen}; {model.licence}"))
    except ClipItError as error:
        findings.append(failed("models", f"{name}: {error.what}", error.fix))
    if model.doubt:
        findings.append(warned("models", f"{name}: {model.doubt}", f"Compare with {model.origin}"))
    return findings


# -- What a profile needs of a machine, said without running or opening anything.


GIB = 2**30
BYTES_A_RUN = 30 * 2**20  # adapters of a large vision transformer, predictions, cards
FEATURES = 1024  # of the widest model


@dataclass(frozen=True)
class Needs:
    """Bytes of main memory a job and of disk in all, and whether cores alone would take weeks."""

    memory: int
    disk: int
    accelerator: bool


def needs(profile: Profile) -> Needs:
    """An upper estimate; the plan counts more closely, what is done left out."""
    names = {*profile.retrievers, *profile.backbones}
    published = [model for name, model in registry.published().items() if name in names]
    counts = [found for name in profile.data if (found := _sizes(profile, name)) is not None]
    patches = sum(one.total * one.side**2 * 3 for one in counts)
    embeddings = sum(one.total for one in counts) * FEATURES * 4 * len(names)
    weights = sum(model.parameters for model in published) * 4
    largest = max((one.total * FEATURES * 4 for one in counts), default=0)
    return Needs(
        memory=4 * GIB + largest + (8 * GIB if published else 0),
        disk=patches + embeddings + weights + 100 * BYTES_A_RUN * len(counts),
        accelerator=bool(published),
    )


def _sizes(profile: Profile, name: str) -> Sizes | None:
    try:
        return sizes(profile, name)
    except ClipItError:
        return None  # the user's own, and not there: said where the data are checked


# -- All checks of one profile, in the order in which they should be mended.


def diagnose(profile: Profile) -> list[Finding]:
    """Check the machine, the data and the models against a profile; nothing is downloaded."""
    needed = needs(profile)
    return [
        python(),
        packages(),
        accelerator(needed.accelerator),
        held_kernels(),
        memory(needed.memory),
        writable(),
        disk(needed.disk),
        *data(profile),
        *reports(profile),
        *models(profile),
    ]


def summary(findings: Sequence[Finding]) -> str:
    """Counts, and what they mean."""
    count = {status: sum(each.status is status for each in findings) for status in Status}
    counted = ", ".join(f"{number} {status}" for status, number in count.items())
    if count[Status.FAIL]:
        return f"{counted}: it will not run before every FAIL is mended"
    return f"{counted}: it can run" + ("; read every WARN" if count[Status.WARN] else "")


def main(arguments: list[str]) -> None:
    """`doctor --profile NAME`: PASS, WARN or FAIL a line, with the fix; exit code 1 on a FAIL."""
    parser = argparse.ArgumentParser(prog="python -m companion doctor", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    profile = load_profile(parser.parse_args(arguments).profile)
    findings = diagnose(profile)
    print(f"profile {profile.name}: {profile.summary}")
    for finding in findings:
        print(finding)
    print(summary(findings))
    if any(each.status is Status.FAIL for each in findings):
        sys.exit(1)
