"""Rename committed runs of a profile after a change of what names a run; nothing is computed anew.

usage: CLIPIT_KERNELS=native python workflow/migrate_keys.py PROFILE

A run is found again by data set, backbone, setting and seed, which are unique within a profile,
and gets the key that its specification has now, under the kernels that runs.csv says it was made
with (native where it does not say). Keys are replaced in every file below results/PROFILE and
figures/PROFILE. Only for results whose numbers the change does not touch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from clipit_lib import kernels
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text
from companion import archive, paths, specs
from companion import survival as study
from companion.conch import untrained_backbone
from companion.profile import Workbench, load_profile
from companion.survival import cohort
from companion.survival.cohort import Bag, Cohort

TEXT = (".csv", ".md", ".json", ".html", ".svg")


def named_now(profile: str) -> dict[str, str]:
    """Old key to new key of all runs in runs.csv."""
    bench = Workbench(load_profile(profile), download=False)
    listed = pd.read_csv(paths.results(profile) / archive.RUNS, dtype=str, keep_default_na=False)
    made = set(listed.get("kernels", pd.Series("native", index=listed.index)))
    if made != {kernels.level()}:
        raise ClipItError(
            f"runs were made with {made} kernels, here are {kernels.level()} ones", profile,
            "Set CLIPIT_KERNELS=native for native ones, unset it for others",
        )  # fmt: skip
    found = {}
    for row in listed.itertuples():
        if row.dataset == archive.SLIDES:
            spec = study.resolve(bench, stub(bench), row.setting, int(row.seed))
        else:
            spec = specs.resolve(bench, row.dataset, row.backbone, row.setting, int(row.seed))
        found[row.key] = spec.key
    if len(set(found.values())) != len(found):
        raise ClipItError("two runs would share a key", profile, "Compute them anew")
    return found


def stub(bench: Workbench) -> Cohort:
    """The phantom's cohort by name and width, without embedding its slides."""
    profile = bench.profile
    width = untrained_backbone(profile.retriever, bench.sources.side, profile.stand_in).width
    bag = Bag(np.zeros((1, width), np.float32), np.zeros((1, width), np.float32))
    clinical = pd.DataFrame({"slide": ["-"], "time": [1.0], "event": [True], "fold": [1]})
    return Cohort(clinical, (bag,), cohort.phantom_name(profile))


def files(profile: str) -> Iterator[Path]:
    for folder in (paths.results(profile), paths.figures(profile)):
        for path in sorted(folder.rglob("*")):
            kept = {"runs", "survival_runs", "notebooks", "pairing"} & set(path.parts)
            if path.is_file() and not kept:
                yield path


def main(profile: str) -> None:
    new, changed = named_now(profile), 0
    for path in files(profile):
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            names = [name for name in ("run", "sample", "group", "slide") if name in frame]
            frame["run"] = frame["run"].astype(str).map(new)
            archive.write(path, frame, names)
        elif path.name == archive.RUNS:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            table["key"], table["kernels"] = table["key"].map(new), kernels.level()
            write_text(path, table[list(archive.LISTED)].sort_values("key").to_csv(index=False))
        elif path.name.endswith(".runs.json"):
            keys = sorted(new[key] for key in archive.keys(path))
            write_text(path, json.dumps(keys, indent=1) + "\n")
        elif path.suffix in TEXT:
            text = before = path.read_text(encoding="utf-8")
            for old, key in new.items():
                text = text.replace(old, key)
            if text == before:
                continue
            write_text(path, text)
        else:
            continue
        changed += 1
    print(f"{profile}: {len(new)} runs renamed in {changed} files")


if __name__ == "__main__":
    main(sys.argv[1])
