"""The only place that knows folders and environment variables."""

from __future__ import annotations

import os
import re
from itertools import takewhile
from pathlib import Path

from clipit_lib.errors import ClipItError

FOLDERS = ("CLIPIT_OUTPUT", "CLIPIT_CACHE", "CLIPIT_DATA")


def expanded(given: str) -> Path:
    """A path as its user means it: `~` is a home folder; a ClipItError if nobody has one."""
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ClipItError("no such home folder", given, "Write the path without ~") from error


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return expanded(value).resolve() if value else None


def settled() -> dict[str, str]:
    """The variables of folders that are set, absolute: for what starts in another folder."""
    return {name: str(folder) for name in FOLDERS if (folder := _named(name))}


def unsettled() -> list[str]:
    """The variables of folders whose values mean another place in every folder."""
    return [name for name in FOLDERS if (os.environ.get(name) or "/")[0] not in "/~"]


def repository() -> Path:
    """The folder that holds `clipit_lib`, `notebooks` and `profiles`."""
    return Path(__file__).resolve().parent.parent


def output() -> Path:
    """Where results, figures and caches go: `$CLIPIT_OUTPUT`, or the repository."""
    return _named("CLIPIT_OUTPUT") or repository()


def data_to_be() -> Path:
    """`$CLIPIT_DATA`, which need not exist yet; a ClipItError if the variable is unset."""
    folder = _named("CLIPIT_DATA")
    if folder is None:
        fix = "Set it to the folder of the data, for example by `export CLIPIT_DATA=/data`; "
        more = "`python -m companion fetch --list` says what can be brought there"
        raise ClipItError("the variable is not set", "CLIPIT_DATA", fix + more)
    return folder


def in_data(path: str) -> Path:
    """A path of a profile: as it is if absolute, else under `$CLIPIT_DATA`.

    Raises:
        ClipItError: it is relative, and the variable is unset or names no folder.
    """
    given = expanded(path)
    if given.is_absolute():
        return given
    folder = data_to_be()
    if not folder.is_dir():
        raise ClipItError(f"no folder {folder}", "CLIPIT_DATA", "Point it at an existing folder")
    return folder / given


def profiles() -> Path:
    return repository() / "profiles"


def notebooks() -> Path:
    return repository() / "notebooks"


def results(profile: str) -> Path:
    return output() / "results" / profile


def tables(profile: str) -> Path:
    return results(profile) / "tables"


def runs(profile: str) -> Path:
    return results(profile) / "runs"


def figures(profile: str) -> Path:
    return output() / "figures" / profile


def cache() -> Path:
    """Decoded patches, embeddings and trained encoders: `$CLIPIT_CACHE`, or `cache/`."""
    return _named("CLIPIT_CACHE") or output() / "cache"


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
