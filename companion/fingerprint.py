"""Digests of what a profile's results rest on, stage by stage: where two machines part."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from clipit_lib import kernels, runs
from clipit_lib.encoders import weights
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, file_digest, whole, write_text
from clipit_lib.predictions import LOGIT
from companion import paths
from companion.compare import TIMED
from companion.profile import Profile, Workbench, load_profile
from companion.survival import PREDICTIONS as RISKS

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


def differences(found: Stages, expected: Stages) -> list[str]:
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


def main(options: Namespace) -> None:
    """Say whether patches, encoders, runs and tables are those of another machine."""
    profile = load_profile(options.profile)
    found = stages(profile)
    if options.output is not None:
        write_text(options.output, json.dumps(found, indent=1) + "\n")
        print(f"{sum(map(len, found.values()))} digests in {options.output}")
        return
    against = options.against or committed(profile.name)
    expected = read(against)
    if said := differences(found, expected):
        fix = f"Kernels here: {kernels.level()}. See docs/reproducibility.md"
        raise ClipItError("; ".join(said), against, fix)
    print(f"{sum(map(len, expected.values()))} digests are equal, stage by stage")
