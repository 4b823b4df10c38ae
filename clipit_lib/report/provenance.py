"""How the results of a profile were made, from what its runs have kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clipit_lib import archive, paths, runs
from clipit_lib.files import whole
from clipit_lib.settings import Profile, searched_path

CODE = ("clipit_lib", "notebooks", "profiles", "workflow")
KERNELS = {
    "avx2": "avx2: the same bytes on every x86-64 CPU with AVX2",
    "native": "native: those of the machine that made them; another gives other digits",
}


@dataclass(frozen=True)
class Provenance:
    """What the last section of the page says.

    Attributes:
        files: name and text of the files that ask for the runs.
        facts: a name and a sentence each.
        counts: number of cited runs, one row a setting, one column a data set.
    """

    files: dict[str, str]
    facts: dict[str, str]
    counts: pd.DataFrame


def provenance(profile: Profile) -> Provenance:
    """Read what is known of the runs that tables and figures cite."""
    asked = [paths.profiles() / f"{profile.name}.yaml", searched_path(profile.name)]
    cited = archive.listed(paths.results(profile.name))
    facts = {"Code": _code(), **_cost(cited), "Seeds": ", ".join(map(str, profile.seeds))}
    facts |= _software(profile.name, cited["key"]) | {"Machine of this page": _machine()}
    return Provenance(
        files={path.name: path.read_text(encoding="utf-8") for path in asked if path.exists()},
        facts=facts,
        counts=pd.crosstab(cited["setting"], cited["dataset"]),
    )


def _cost(cited: pd.DataFrame) -> dict[str, str]:
    if cited.empty:
        return {"Runs": "none is listed: runs.csv is not there"}
    hours, minutes = divmod(round(cited["seconds"].sum() / 60), 60)
    facts = {
        "Runs": f"{len(cited)} runs are behind the tables and figures, counted below",
        "Time": f"{hours} h {minutes} min in all, summed over these runs",
        "Kernels": "; ".join(KERNELS.get(each, each) for each in sorted(set(cited["kernels"]))),
    }
    if (peak := cited["peak_memory_mib"].max()) > 0:  # NaN where no run has measured it
        facts["Peak memory"] = f"{peak / 1024:.1f} GiB of the process of one run, at most"
    return facts


def _software(profile: str, keys: pd.Series[str]) -> dict[str, str]:
    """Versions that the cited runs were made with; several where runs differ."""
    found: dict[str, set[str]] = {}
    for path in (paths.runs(profile) / key / runs.DONE for key in keys):
        if not path.exists():
            continue
        with whole(path, runs.AGAIN):
            done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for name, version in {"Python": done["python"], **done["versions"]}.items():
                found.setdefault(name, set()).add(version)
    said = "; ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in found)
    return {"Versions": said or "unknown here: the folders of the runs are not kept"}


def _code() -> str:
    """The commit, if this is a git repository, and whether the code was as committed."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "version unknown: no git repository"
    changed = _git("status", "--porcelain", "--", *CODE)
    return f"commit {commit[:12]}" + (", with changes that are not committed" if changed else "")


def _git(*arguments: str) -> str:
    """What git prints; nothing if there is no git or no repository here."""
    root = paths.repository()
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _machine() -> str:
    """System, processor and cores."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{platform.system()}, {processor}, {os.cpu_count()} cores"
