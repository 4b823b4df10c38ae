"""The library's folders, those of the study, and what else the environment says."""

from __future__ import annotations

import os
import re
from itertools import takewhile
from pathlib import Path

from clipit_lib.paths import *  # noqa: F403 - what has the study's folders has the library's too
from clipit_lib.paths import named, output, repository, results

FOLDERS = ("CLIPIT_OUTPUT", "CLIPIT_CACHE", "CLIPIT_DATA", "CLIPIT_PREDICTIONS")


def settled() -> dict[str, str]:
    """The variables of folders that are set, absolute: for what starts in another folder."""
    return {name: str(folder) for name in FOLDERS if (folder := named(name))}


def unsettled() -> list[str]:
    """The variables of folders whose values mean another place in every folder."""
    return [name for name in FOLDERS if (os.environ.get(name) or "/")[0] not in "/~"]


def profiles() -> Path:
    return repository() / "profiles"


def notebooks() -> Path:
    return repository() / "notebooks"


def tables(profile: str) -> Path:
    return results(profile) / "tables"


def figures(profile: str) -> Path:
    return output() / "figures" / profile


def archived(profile: str) -> Path | None:
    """The results whose predictions stand for trained runs, below `$CLIPIT_PREDICTIONS`, if set."""
    folder = named("CLIPIT_PREDICTIONS")
    return folder / profile if folder else None


def language_model_key() -> str | None:
    """The key of the language model's endpoint, from `$CLIPIT_LLM_KEY`: never shown or kept."""
    return os.environ.get("CLIPIT_LLM_KEY", "").strip() or None


def threads() -> int | None:
    """Threads this process may use: `$OMP_NUM_THREADS`, 1 where `kernels` holds the CPU's."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else None


def gpus() -> list[str] | None:
    """What `$CUDA_VISIBLE_DEVICES` shows: as in CUDA, `-1` hides all after it; None: unset."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return None
    return list(takewhile(re.compile(r"\d+$|GPU-|MIG-").match, map(str.strip, shown.split(","))))
