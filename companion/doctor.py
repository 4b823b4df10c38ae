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
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch

from clipit_lib import kernels, paths
from clipit_lib.data.folder import FolderData
from clipit_lib.encoders import registry
from clipit_lib.encoders.weights import (
    Published,
    Trained,
    hub_size,
    on_disk,
    package_folder,
)
from clipit_lib.errors import ClipItError
from companion import crc5, findings
from companion.crc5 import Crc5Data
from companion.findings import Finding, Severity
from companion.plan import sizes
from companion.profile import Profile, load_profile, sources_of_profile
from companion.published import PUBLISHED_DATA, OfThePaper

PASS, WARN, FAIL = Severity.PASS, Severity.WARNING, Severity.STOP

# -- The machine: Python, packages, accelerator, memory, disk.


PYTHON = (3, 11)
PACKAGES = ("torch", "timm", "open_clip_torch", "peft", "snakemake", "papermill")
GIB = 2**30


def _graded(area: str, seen: str, fail: str | None = None, warn: str | None = None) -> Finding:
    """FAIL or WARN with its fix, if there is one to give, else PASS."""
    if fail is not None:
        return Finding(area, FAIL, seen, fix=fail)
    return Finding(area, PASS if warn is None else WARN, seen, fix=warn or "")


def python() -> Finding:
    """The version that this library is written and tested for."""
    old = "Use Python 3.11, for example by conda or pyenv"
    new = "Tested with 3.11 only; use that if something fails"
    here = sys.version_info[:2]
    return _graded(
        "python", f"Python {platform.python_version()}",
        old if here < PYTHON else None, new if here > PYTHON else None,
    )  # fmt: skip


def packages() -> Finding:
    """The packages that everything rests on."""
    try:
        seen = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    except PackageNotFoundError as error:
        missing = f"{error.name} is not installed"
        return _graded("packages", missing, "pip install -r requirements.lock")
    return _graded("packages", seen)


def held_kernels() -> Finding:
    """Whether numbers will be those of every other x86-64 CPU with AVX2."""
    if kernels.level() == "avx2":
        return _graded("kernels", "held to AVX2: the same bytes as on every x86-64 CPU with it")
    if torch.cuda.is_available():
        return _graded("kernels", "the GPU's own: another one gives other digits")
    fix = "Unset CLIPIT_KERNELS; a CPU without AVX2 cannot do better, see docs/reproducibility.md"
    return _graded("kernels", "this CPU's own: another one gives other digits", warn=fix)


def accelerator(wanted: bool) -> Finding:
    """GPUs as PyTorch sees them, and the driver; `wanted` says whether it takes days without."""
    driver = _driver()
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        seen = ", ".join(f"{card.name} ({card.total_memory / GIB:.0f} GiB)" for card in cards)
        return _graded("gpu", f"{seen}; driver {driver or 'unknown'}")
    if driver is not None:
        fix = f"Install a torch for your driver: this one is {torch.__version__}"
        return _graded("gpu", f"driver {driver}, but PyTorch sees no GPU", fix)
    cores = f"no GPU; {os.cpu_count()} cores"
    if not wanted:
        return _graded("gpu", f"{cores}, which this profile is made for")
    fix = "Run on a machine or cluster with GPUs; on cores it takes weeks"
    return _graded("gpu", cores, warn=fix)


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
    seen = f"{total / GIB:.0f} GiB in all, about {needed / GIB:.0f} GiB needed a job"
    fewer = "Run fewer jobs at a time (--jobs 1), or on more memory"
    return _graded("memory", seen, warn=fewer if total < needed else None)


def disk(needed: int) -> Finding:
    """Free space where caches go, against what may be written (bytes)."""
    free = shutil.disk_usage(_existing(paths.cache())).free
    seen = f"{free / 1e9:.0f} GB free, {needed / 1e9:.1f} GB at most will be written"
    full = "Free space, or set CLIPIT_CACHE and CLIPIT_OUTPUT to a disk"
    tight = "It will be tight; CLIPIT_CACHE can be on another disk"
    return _graded(
        "disk", seen, full if free < needed else None, tight if free < 1.2 * needed else None
    )


def writable() -> Finding:
    """Whether results and caches can be written where they go."""
    for folder in map(_existing, (paths.output(), paths.cache())):
        if not os.access(folder, os.W_OK):
            fix = "Give write permission or set CLIPIT_OUTPUT and CLIPIT_CACHE"
            return _graded("output", f"cannot write in {folder}", fix)
    return _graded("output", "results and caches can be written")


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


# -- The data sets and reports of a profile: are they there, are they whole, on which terms?


SHOWN = 3  # problems of one data set


def data(profile: Profile) -> list[Finding]:
    """Findings on all data sets of a profile; nothing is decoded, but for the user's own."""
    found = []
    for name in profile.data:
        settings = profile.data_settings(name)
        if isinstance(settings, OfThePaper):
            found += _published_data(name, settings)
        elif isinstance(settings, Crc5Data):
            found.append(_whole(name, crc5.check_crc5, crc5.LICENCE))
        elif isinstance(settings, FolderData):
            terms = f"licence: {settings.licence}"
            found.append(_whole(name, partial(settings.open, name), terms))
        else:
            found.append(_graded("data", f"{name}: drawn on the spot"))
    return found


def _whole(name: str, look: Callable[[], object], terms: str) -> Finding:
    try:
        look()
    except ClipItError as error:
        return _refused("data", name, error)
    return _graded("data", f"{name}: whole; {terms}")


def _published_data(name: str, settings: OfThePaper) -> list[Finding]:
    known = PUBLISHED_DATA[settings.source]
    try:
        problems = settings.problems()
    except ClipItError as error:
        problems = [error]
    if not problems:
        return [_graded("data", f"{name}: {known.title}, whole; {known.terms}")]
    found = [_refused("data", f"{name}: {known.name}", error) for error in problems[:SHOWN]]
    if (more := len(problems) - SHOWN) > 0:
        fix = "Mend the first; then ask again"
        found.append(_graded("data", f"{name}: {more} further problems", fix))
    terms = f"Read the terms at {known.page}"
    return [*found, _graded("data", f"{name}: {known.licence}", warn=terms)]


def reports(profile: Profile) -> list[Finding]:
    """Findings on all corpora: each is read and cleaned."""
    found = []
    for name, settings in profile.corpora.items():
        try:
            corpus = settings.open(name)
            seen = f"{name}: {len(corpus)} reports; licence: {corpus.licence}"
            found.append(_graded("reports", seen))
        except ClipItError as error:
            found.append(_refused("reports", name, error))
    return found


def _refused(area: str, name: str, error: ClipItError) -> Finding:
    return _graded(area, f"{name}: {error.what}: {error.where}", error.fix)


# -- The models of a profile: can their weights be had, and on which terms?


OPTIONAL = {"conch": "pip install git+https://github.com/mahmoodlab/CONCH.git, on its own terms"}


def models(profile: Profile) -> list[Finding]:
    """Findings on every retriever and backbone of a profile; nothing is downloaded."""
    found = []
    for name in dict.fromkeys((*profile.retrievers, *profile.backbones)):
        known = registry.clip_entry if name in profile.retrievers else registry.entry
        try:
            known(name)
            found += _model(name, profile)
        except ClipItError as error:
            found.append(_refused("models", name, error))
    return found


def _model(name: str, profile: Profile) -> list[Finding]:
    origin = registry.entry(name).weights
    if isinstance(origin, Published):
        return _published_model(origin, profile)
    for package in origin.packages:
        package_folder(package)
    seen = f"weights in an installed package; {origin.licence}"
    if isinstance(origin, Trained):
        out_of = " out of two installed packages" if origin.packages else ""
        seen = f"trained on the spot{out_of}"
    return [_graded("models", f"{name}: {seen}")]


def _published_model(model: Published, profile: Profile) -> list[Finding]:
    name, found = model.name, []
    if name in OPTIONAL and find_spec(name) is None:
        found.append(_graded("models", f"{name}: its own package is missing", OPTIONAL[name]))
    try:
        path = on_disk(model, sources_of_profile(profile).copies)
        size = None if path else hub_size(model)  # nothing is downloaded
        large = "" if size is None else f" ({size / 1e9:.1f} GB)"
        seen = path or f"will be downloaded{large}"
        found.append(_graded("models", f"{name}: {seen}; {model.licence}"))
    except ClipItError as error:
        found.append(_graded("models", f"{name}: {error.what}", error.fix))
    if model.doubt:
        doubt = f"{name}: {model.doubt}"
        found.append(_graded("models", doubt, warn=f"Compare with {model.origin}"))
    return found


# -- What a profile needs of a machine, said without running or opening anything.


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
    models, counts = {*profile.retrievers, *profile.backbones}, []
    for name in profile.data:
        try:
            counts.append(sizes(profile, name))
        except ClipItError:
            continue  # the user's own, and not there: said where the data are checked
    published = [row.parameters for name, row in registry.published().items() if name in models]
    features = [one.total * FEATURES * 4 for one in counts]
    patches = sum(one.total * one.side**2 * 3 for one in counts)
    kept = sum(features) * len(models) + sum(published) * 4 + 100 * BYTES_A_RUN * len(counts)
    used = max(features, default=0) + (8 * GIB if published else 0)
    return Needs(4 * GIB + used, patches + kept, bool(published))


# -- All checks of one profile, in the order in which they should be mended.


def diagnose(profile: Profile) -> list[Finding]:
    """Check the machine, the data and the models against a profile; nothing is downloaded."""
    needed = needs(profile)
    return [
        python(), packages(), accelerator(needed.accelerator), held_kernels(),
        memory(needed.memory), writable(), disk(needed.disk),
        *data(profile), *reports(profile), *models(profile),
    ]  # fmt: skip


def table(found: Iterable[Finding]) -> pd.DataFrame:
    """One row a finding: status, area, seen, fix."""
    columns = {"status": "status", "check": "area", "what": "seen", "fix": "fix"}
    return findings.table(found, columns)


def summary(found: Sequence[Finding]) -> str:
    """Counts, and what they mean."""
    said = [each.status for each in found]
    counted = ", ".join(f"{said.count(word)} {word}" for word in ("PASS", "WARN", "FAIL"))
    if "FAIL" in said:
        return f"{counted}: it will not run before every FAIL is mended"
    return f"{counted}: it can run" + ("; read every WARN" if "WARN" in said else "")


def main(arguments: list[str]) -> None:
    """`doctor --profile NAME`: PASS, WARN or FAIL a line, with the fix; exit code 1 on a FAIL."""
    parser = argparse.ArgumentParser(prog="python -m companion doctor", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    profile = load_profile(parser.parse_args(arguments).profile)
    found = diagnose(profile)
    print(f"profile {profile.name}: {profile.summary}", *found, summary(found), sep="\n")
    if any(each.severity is FAIL for each in found):
        sys.exit(1)
