"""The machine: Python, packages, accelerator, memory, disk."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from clipit_lib import kernels, paths
from clipit_lib.doctor.finding import Finding, failed, passed, warned

PYTHON = (3, 11)
PACKAGES = ("torch", "timm", "open_clip_torch", "peft", "snakemake", "papermill")
GIB = 2**30


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
        seen = ", ".join(f"{card.name} ({card.total_memory / GIB:.0f} GiB)" for card in cards)
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
    seen = f"{total / GIB:.0f} GiB in all, about {needed / GIB:.0f} GiB needed a job"
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
