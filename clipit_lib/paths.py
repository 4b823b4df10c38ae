"""The only place that knows folders and environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from clipit_lib.errors import ClipItError


def expanded(given: str) -> Path:
    """A path as its user means it: `~` is a home folder; a ClipItError if nobody has one."""
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ClipItError("no such home folder", given, "Write the path without ~") from error


def named(variable: str) -> Path | None:
    """The folder that a variable names, absolute; None if it is not set."""
    value = os.environ.get(variable)
    return expanded(value).resolve() if value else None


def repository() -> Path:
    """The folder that holds `clipit_lib`, `notebooks` and `profiles`."""
    return Path(__file__).resolve().parent.parent


def output() -> Path:
    """Where results, figures and caches go: `$CLIPIT_OUTPUT`, or the repository."""
    return named("CLIPIT_OUTPUT") or repository()


def data_to_be() -> Path:
    """`$CLIPIT_DATA`, which need not exist yet; a ClipItError if the variable is unset."""
    folder = named("CLIPIT_DATA")
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


def results(profile: str) -> Path:
    return output() / "results" / profile


def runs(profile: str) -> Path:
    return results(profile) / "runs"


def cache() -> Path:
    """Decoded patches, embeddings and trained encoders: `$CLIPIT_CACHE`, or `cache/`."""
    return named("CLIPIT_CACHE") or output() / "cache"
