"""The command `doctor`: whether machine, data and models are as a profile needs them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import huggingface_hub as hub
import pandas as pd
import torch

from clipit_lib import kernels
from clipit_lib.data.folder import FolderData
from clipit_lib.encoders import clips, registry, weights
from clipit_lib.encoders.weights import Held, Published, Trained
from clipit_lib.errors import ClipItError
from companion import crc5, fetch, findings, paths
from companion.conch import untrained_backbone
from companion.crc5 import Crc5Data
from companion.findings import Finding, Severity
from companion.plan import sizes
from companion.profile import PATH_KEYS, FileSlides, Profile, load_profile, sources_of_profile
from companion.published import PUBLISHED_DATA, OfThePaper
from companion.survival.cohort import open_cohort

PASS, WARN, FAIL = Severity.PASS, Severity.WARNING, Severity.STOP

# -- The machine: Python, packages, accelerator, memory, disk.

PACKAGES = ("torch", "timm", "open_clip_torch", "peft", "snakemake", "papermill")
GIB = 2**30


def _graded(area: str, seen: str, fail: str | None = None, warn: str | None = None) -> Finding:
    """FAIL or WARN with its fix, if there is one to give, else PASS."""
    if fail is not None:
        return Finding(area, FAIL, seen, fix=fail)
    return Finding(area, PASS if warn is None else WARN, seen, fix=warn or "")


def packages() -> Finding:
    """Python, with an older one of which this does not start, and what everything rests on."""
    try:
        seen = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    except PackageNotFoundError as error:
        return _graded("packages", f"no {error.name} here", "pip install -r requirements.lock")
    new = "Tested with 3.11 only; use that if something fails"
    warn = new if sys.version_info[:2] > (3, 11) else None
    return _graded("packages", f"Python {platform.python_version()}, {seen}", warn=warn)


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
    if driver is not None and paths.gpus() != []:
        fix = f"Install a torch for your driver: this one is {torch.__version__}"
        return _graded("gpu", f"driver {driver}, but PyTorch sees no GPU", fix)
    days = "Run on a machine or cluster with GPUs; on cores it takes weeks" if wanted else None
    enough = "" if wanted else ", which this profile is made for"
    return _graded("gpu", f"no GPU; {os.cpu_count()} cores{enough}", warn=days)


def precision(profile: Profile) -> Finding:
    """Whether the machine is fast at the numbers that training computes with."""
    gpu, every = torch.cuda.is_available(), (profile.training, *profile.training_for.values())
    if all(each.precision == "no" for each in every):
        return _graded("precision", "float32" + ", multiplied as TF32" * gpu)
    level = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_bf16_supported(including_emulation=False) if gpu else "AVX512" in level:
        return _graded("precision", "bfloat16 in training, float32 in features and predictions")
    lacks = "this GPU" if gpu else f"a CPU, held to {level},"
    seen = f"bfloat16 in training, for which {lacks} has no instructions: slower than float32"
    fix = 'Train on a GPU from Ampere on, or write `precision: "no"` in `training`: other runs'
    return _graded("precision", seen, warn=fix)


def _driver() -> str | None:
    """The driver's version, or None if there is none to ask."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return said.stdout.strip().partition("\n")[0] or None
    return None


def memory(needed: int) -> Finding:
    """Main memory in all, against what one job needs (bytes)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    seen = f"{total / GIB:.0f} GiB in all, about {needed / GIB:.0f} GiB needed a job"
    fewer = "Run fewer jobs at a time (--jobs 1), or on more memory"
    return _graded("memory", seen, warn=fewer if total < needed else None)


def disk(most: int) -> Finding:
    """Whether results and caches can be written, and free space against what may be (bytes)."""
    for place in (paths.output(), paths.cache()):
        folder = next(each for each in (place, *place.parents) if each.exists())
        if not os.access(folder, os.W_OK):
            fix = "Give write permission or set CLIPIT_OUTPUT and CLIPIT_CACHE"
            return _graded("disk", f"cannot write in {folder}", fix)
    free = shutil.disk_usage(folder).free  # of the caches
    seen = f"{free / 1e9:.0f} GB free, {most / 1e9:.1f} GB at most will be written"
    full = "Free space, or set CLIPIT_CACHE and CLIPIT_OUTPUT to a disk"
    tight = "It will be tight; CLIPIT_CACHE can be on another disk"
    fail, warn = full if free < most else None, tight if free < 1.2 * most else None
    return _graded("disk", seen, fail, warn)


# -- The data sets, reports and models of a profile: can they be had, whole, and on which terms?

SHOWN = 3  # problems of one data set


def _each(
    area: str, names: Iterable[str], look: Callable[[str], Iterator[Finding]]
) -> list[Finding]:
    """What is found on each name, up to what it cannot be used for."""
    found = []
    for name in names:
        try:
            for one in look(name):
                found.append(one)
        except ClipItError as error:
            found.append(_refused(area, name, error))
    return found


def _refused(area: str, name: str, error: ClipItError) -> Finding:
    return _graded(area, f"{name}: {error.what}: {error.where}", error.fix)


def data(profile: Profile) -> list[Finding]:
    """Findings on all data sets of a profile; nothing is decoded, but for the user's own."""

    def look(name: str) -> Iterator[Finding]:
        settings, seen, terms = profile.data_settings(name), "drawn on the spot", ""
        problems, notes = list[ClipItError](), tuple[str, ...]()
        if isinstance(settings, OfThePaper):
            known, source = settings.published, settings.source
            terms, seen = known.terms, f"{known.title}, whole by {fetch.judged_by(source)}"
            try:
                recipe = settings.recipe(name)
                recipe.gather()
                notes, problems = recipe.notes, list(settings.problems())
                if known is PUBLISHED_DATA[source]:  # not a part of it
                    problems += fetch.faults(source, paths.in_data(settings.folder))
            except ClipItError as first:
                problems.append(first)
        elif isinstance(settings, Crc5Data):
            terms, seen = crc5.LICENCE, f"whole by {fetch.judged_by('crc5')}"
            problems = fetch.faults("crc5", paths.in_data("crc5"))
        elif isinstance(settings, FolderData):
            settings.open(name)
            terms, seen = f"licence: {settings.licence}", "whole"
        for error in problems[:SHOWN]:
            yield _refused("data", name, error)
        if (more := len(problems) - SHOWN) > 0:
            yield _graded("data", f"{name}: {more} further problems", "Fix the first; ask again")
        if problems:
            yield _graded("data", f"{name}: {terms}", warn="Read them before you fetch it")
            return
        yield _graded("data", "; ".join(filter(None, (f"{name}: {seen}", terms))))
        for note in notes:
            yield _graded("data", f"{name}: {note}", warn="Look whether they should be there")
        yield from kept_smaller(profile, name)

    return _each("data", profile.data, look)


def kept_smaller(profile: Profile, name: str) -> list[Finding]:
    """Whether a model reads enlarged what is kept smaller than it is published."""
    settings = profile.data_settings(name)
    if not isinstance(settings, OfThePaper):
        return []
    models = (*profile.retrievers, *profile.backbones)
    size, largest = max((registry.entry(each).size or 0, each) for each in models)
    side = min(size, *settings.published.image_size)
    seen = f"{name}: kept at {settings.side} pixels, of which {largest} reads {size}"
    fix = f"Write `side: {side}` at this data set in the profile"
    return [_graded("data", seen, warn=fix)] if settings.side < side else []


def reports(profile: Profile) -> list[Finding]:
    """Findings on all corpora: each is read and cleaned."""

    def look(name: str) -> Iterator[Finding]:
        settings = profile.corpora[name]
        corpus = settings.open(name)
        for key in PATH_KEYS:
            fetch.require_at(getattr(settings, key, None))
        yield _graded("reports", f"{name}: {len(corpus)} reports; licence: {corpus.licence}")

    return _each("reports", profile.corpora, look)


def slides(profile: Profile) -> list[Finding]:
    """Findings on the user's slides for the survival study, if there are any: all are read."""

    def look(name: str) -> Iterator[Finding]:
        yield _graded("slides", f"{name}: {len(open_cohort(profile))} patients, whole")

    own = profile.survival is not None and isinstance(profile.survival.slides, FileSlides)
    return _each("slides", ["survival"] if own else [], look)


def models(profile: Profile) -> list[Finding]:
    """Findings on every retriever and backbone of a profile; nothing is downloaded."""

    def look(name: str) -> Iterator[Finding]:
        row = registry.entry(name, clip=name in profile.retrievers)
        origin = row.weights
        if isinstance(origin, Published):
            if origin.doubt:
                doubt = f"Compare with {origin.origin}"
                yield _graded("models", f"{name}: {origin.doubt}", warn=doubt)
            sources = sources_of_profile(profile)
            here = [weights.on_disk(file, of.copies) for file, of in weights.parts(origin, sources)]
            if (path := here[0]) and all(here):
                held = Held(weights.read_checkpoint(path), path)
                with torch.device("meta"):  # nothing is computed
                    untrained_backbone(name, None, None, held, profile.depth)
                weights.published_hash(origin, sources)
                kept = path.resolve().parent.name == weights.BLOBS
                by = "its published checksum" if kept else "the names and shapes of its weights"
                seen = f"{path}, whole by {by}"
            else:
                size = hub_size(origin)
                seen = "will be downloaded" + (f" ({size / 1e9:.1f} GB)" if size else "")
            yield _graded("models", f"{name}: {seen}; {origin.licence}")
            if row.library == "conch":
                clips.conch_package()
            return
        for package in origin.packages:
            weights.package_folder(package)
        seen = f"weights in an installed package; {origin.licence}"
        if isinstance(origin, Trained):
            seen = "trained on the spot" + " out of two installed packages" * bool(origin.packages)
        yield _graded("models", f"{name}: {seen}")

    return _each("models", dict.fromkeys((*profile.retrievers, *profile.backbones)), look)


def hub_size(model: Published, endpoint: str | None = None) -> int | None:
    """Bytes of the model's file as the hub states them, without a download.

    Raises:
        ClipItError: as `weights.hub_download`.
    """
    where = hub.hf_hub_url(model.repo, model.file, revision=model.revision, endpoint=endpoint)
    with weights.plainly(model):
        return hub.get_hf_file_metadata(where, token=hub.get_token(), endpoint=endpoint).size


# -- What a profile needs of a machine, said without running or opening anything.

BYTES_A_RUN = 30 * 2**20  # adapters of a large vision transformer, predictions, cards
FEATURES = 1536  # of the widest model


def needs(profile: Profile) -> tuple[int, int, bool]:
    """Bytes of main memory a job and of disk in all, and whether cores alone would take weeks.

    An upper estimate; the plan counts more closely, what is done left out.
    """
    models, counts = {*profile.retrievers, *profile.backbones}, []
    for name in profile.data:
        with suppress(ClipItError):  # the user's own, and not there: said with the data
            counts.append(sizes(profile, name))
    published = [row.parameters for name, row in registry.published().items() if name in models]
    features = [one.total * FEATURES * 4 for one in counts]
    patches = sum(one.total * one.side**2 * 3 for one in counts)
    kept = sum(features) * len(models) + sum(published) * 4 + 100 * BYTES_A_RUN * len(counts)
    used = max(features, default=0) + (8 * GIB if published else 0)
    return 4 * GIB + used, patches + kept, bool(published)


def diagnose(profile: Profile) -> list[Finding]:
    """Check the machine, the data and the models against a profile; nothing is downloaded."""
    memory_needed, disk_needed, weeks = needs(profile)
    return [
        packages(), accelerator(weeks), precision(profile), held_kernels(),
        memory(memory_needed), disk(disk_needed),
        *data(profile), *reports(profile), *slides(profile), *models(profile),
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
        return f"{counted}: it will not run before every FAIL is fixed"
    return f"{counted}: it can run" + ("; read every WARN" if "WARN" in said else "")


def main(options: Namespace) -> None:
    """PASS, WARN or FAIL a line, with the fix; exit code 1 on a FAIL."""
    profile = load_profile(options.profile)
    found = diagnose(profile)
    print(f"profile {profile.name}: {profile.summary}", *found, summary(found), sep="\n")
    if any(each.severity is FAIL for each in found):
        sys.exit(1)
