"""Whether results are those of another machine: tables of two folders, digests of all stages."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from clipit_lib import kernels, runs
from clipit_lib.encoders import weights
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, file_digest, whole, write_text
from clipit_lib.predictions import LOGIT
from companion import paths
from companion.profile import Profile, Workbench, load_profile
from companion.survival import PREDICTIONS as RISKS

# -- `compare`: two folders of results, identical, within a tolerance, or not.

TIMED = ("inference_latency", "inference_cost")  # tables and figures that hold measured times
# What names a row, where a table has it.
NAMED = ("id", "dataset", "backbone", "setting", "seed", "fold", "variant", "comparison")
KEY = re.compile("[0-9a-f]{16}")  # of a run: it names the CPU's kernels too, which are not results


def tables(results: Path) -> dict[str, Path]:
    """The tables of a folder such as results/demo, by their place in it.

    Raises:
        ClipItError: there is none.
    """
    found = [*results.glob("claims.csv"), *results.glob("tables/*.csv")]
    if not found:
        raise ClipItError("no tables here", results, "Name a folder such as results/demo")
    return {str(path.relative_to(results)): path for path in found if path.stem not in TIMED}


def differences(first: Path, second: Path, tolerance: float) -> Iterator[str]:
    """What differs between two tables, a line each: every text, and of numbers the largest.

    Numbers a and b agree if |a - b| <= tolerance (1 + |b|).

    Raises:
        ClipItError: one is damaged.
    """
    frames = []
    for path in (first, second):
        with whole(path, "Make it again"):
            frames.append(pd.read_csv(path))
    here, there = frames
    if list(here) != list(there) or len(here) != len(there):
        yield f"{len(here)} against {len(there)} rows of {', '.join(map(str, here))}"
        yield f"columns in one only: {', '.join(sorted({*here} ^ {*there})) or 'none'}"
        return
    names = here[[each for each in NAMED if each in here] or list(here)[:1]].astype(str)
    row = names.agg(" ".join, axis=1)
    for column in here:
        ours, theirs = here[column], there[column]
        if all(pd.api.types.is_numeric_dtype(each) for each in (ours, theirs)):
            far = ~np.isclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
            if far.any():
                distance = abs(ours.to_numpy(float) - theirs.to_numpy(float))
                at = int(np.where(far, np.nan_to_num(distance, nan=np.inf), -1.0).argmax())
                most = f"most in {row.iloc[at]}: {ours.iloc[at]} against {theirs.iloc[at]}"
                yield f"{column}: {far.sum()} of {len(far)} numbers, {most}"
            continue
        texts = [each.fillna("").astype(str) for each in (ours, theirs)]
        for name, one, other in zip(row, *texts, strict=True):
            if one != other and not (KEY.fullmatch(one) and KEY.fullmatch(other)):
                yield f"{column} of {name}: {one!r} against {other!r}"


def main(options: Namespace) -> None:
    """Print how each table of two folders compares; exit code 1 if any differs."""
    first, second = tables(options.first), tables(options.second)
    counts = Counter[str]()
    for name in sorted(first | second):
        if name in first and name in second:
            lines = list(differences(first[name], second[name], options.tolerance))
            same = first[name].read_bytes() == second[name].read_bytes()
        else:
            lines, same = [f"only in {options.first if name in first else options.second}"], False
        said = "identical" if same else "different" if lines else f"within {options.tolerance:g}"
        counts[said] += 1
        print(f"{said:14}{name}", *lines, sep="\n    ")
    print("; ".join(f"{count} {said}" for said, count in sorted(counts.items())))
    if counts["different"]:
        sys.exit(1)


# -- `fingerprint`: digests of what results rest on, stage by stage: where two machines part.

Stages = dict[str, dict[str, str]]  # stage, what, digest; in the order in which they are made
PAIRS = 5


def committed(profile: str) -> Path:
    """Where the fingerprint of a profile is kept that every machine must give."""
    return paths.repository() / "results" / "fingerprints" / f"{profile}.json"


def stages(profile: Profile) -> Stages:
    """The digests of everything that a profile has made so far.

    Raises:
        ClipItError: an encoder has not been trained, or something kept is damaged.
    """
    bench = Workbench(profile, download=False)
    datasets, retrievers = sorted(profile.data), sorted(profile.retrievers)
    cards = {
        name: weights.read_card(bench.sources.recipe(name)) for name in profile.trained_encoders
    }
    return {
        "patches": {name: bench.dataset(name).content_hash for name in datasets},
        "reports": {name: bench.named_corpus(name).content_hash for name in profile.corpora},
        "encoders": {name: str(card["weights_hash"]) for name, card in cards.items()},
        "embeddings": {
            f"{name} by {retriever}": digest(
                bench.image_embeddings(name, "train", retriever).tobytes()
            )
            for name in datasets
            for retriever in retrievers
        },
        "pairs": {
            name: digest(bench.pairs(name, "train", PAIRS).reports.tobytes()) for name in datasets
        },
        "runs": dict(sorted(_runs(profile.name))),
        "tables": _files(paths.tables(profile.name), "*.csv"),
        "figures": _files(paths.figures(profile.name), "*.svg"),
    }


def _runs(profile: str) -> Iterator[tuple[str, str]]:
    """Key and digest of all test logits, or risks, of each stored run."""
    for run in runs.stored(profile):
        spec = run.spec
        logits = run.predictions().filter(like=LOGIT).to_numpy()
        name = f"{spec.dataset} {spec.backbone} {spec.setting} seed {spec.seed}"
        yield name, f"{run.key} {digest(logits.tobytes())}"
    for path in (paths.results(profile) / "survival_runs").glob(f"[0-9a-f]*/{RISKS}"):
        spec_of = json.loads((path.parent / "spec.json").read_text(encoding="utf-8"))
        name = f"survival {spec_of['setting']} seed {spec_of['seed']}"
        yield name, f"{path.parent.name} {file_digest(path)[:16]}"


def _files(folder: Path, pattern: str) -> dict[str, str]:
    found = [path for path in sorted(folder.glob(pattern)) if path.stem not in TIMED]
    return {path.name: file_digest(path)[:16] for path in found}


def parted(found: Stages, expected: Stages) -> list[str]:
    """One line a stage that differs, the first that does first; nothing if all is equal.

    Only what is expected is looked at: a machine may have made more.
    """
    said = []
    for stage, digests in expected.items():
        here = found.get(stage, {})
        other = [what for what, value in digests.items() if here.get(what) != value]
        if other:
            said.append(f"{stage}: {len(other)} of {len(digests)} differ, first {other[0]}")
    return said


def read(path: Path) -> Stages:
    """A fingerprint from a file.

    Raises:
        ClipItError: missing or damaged.
    """
    with whole(path, "Name a file that this command has written with --output"):
        return TypeAdapter(Stages).validate_json(path.read_bytes())


def fingerprint(options: Namespace) -> None:
    """Say whether patches, encoders, runs and tables are those of another machine."""
    profile = load_profile(options.profile)
    found = stages(profile)
    if options.output is not None:
        write_text(options.output, json.dumps(found, indent=1) + "\n")
        print(f"{sum(map(len, found.values()))} digests in {options.output}")
        return
    against = options.against or committed(profile.name)
    expected = read(against)
    if said := parted(found, expected):
        fix = f"Kernels here: {kernels.level()}. See docs/reproducibility.md"
        raise ClipItError("; ".join(said), against, fix)
    print(f"{sum(map(len, expected.values()))} digests are equal, stage by stage")
