"""The only place that knows folders and environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from clipit_lib.errors import ClipItError


def repository() -> Path:
    """The folder that holds `clipit_lib`, `notebooks` and `profiles`."""
    return Path(__file__).resolve().parent.parent


def output() -> Path:
    """Where results, figures and caches go: `$CLIPIT_OUTPUT`, or the repository."""
    return Path(os.environ.get("CLIPIT_OUTPUT") or repository()).resolve()


def data_to_be() -> Path:
    """`$CLIPIT_DATA`, which need not exist yet.

    Raises:
        ClipItError: the variable is unset.
    """
    value = os.environ.get("CLIPIT_DATA")
    if not value:
        raise ClipItError(
            "the variable is not set",
            "CLIPIT_DATA",
            "Set it to the folder of the data, for example by `export CLIPIT_DATA=/data`; "
            "`python -m companion fetch --list` says what can be brought there",
        )
    return Path(value).expanduser().resolve()


def data() -> Path:
    """The folder of the user's images and reports: `$CLIPIT_DATA`.

    Raises:
        ClipItError: the variable is unset or names no folder.
    """
    folder = data_to_be()
    if not folder.is_dir():
        raise ClipItError(f"no folder {folder}", "CLIPIT_DATA", "Point it at an existing folder")
    return folder


def in_data(path: str) -> Path:
    """A path of a profile: as it is if absolute, else under `$CLIPIT_DATA`.

    Raises:
        ClipItError: it is relative, and the variable is unset or names no folder.
    """
    given = Path(path).expanduser()
    return given if given.is_absolute() else data() / given


def profiles() -> Path:
    return repository() / "profiles"


def notebooks() -> Path:
    return repository() / "notebooks"


def workflow() -> Path:
    return repository() / "workflow"


def results(profile: str) -> Path:
    return output() / "results" / profile


def tables(profile: str) -> Path:
    return results(profile) / "tables"


def executed_notebooks(profile: str) -> Path:
    return results(profile) / "notebooks"


def runs(profile: str) -> Path:
    return results(profile) / "runs"


def figures(profile: str) -> Path:
    return output() / "figures" / profile


def cache() -> Path:
    """Decoded patches, embeddings and trained encoders: `$CLIPIT_CACHE`, or `cache/`."""
    return Path(os.environ.get("CLIPIT_CACHE") or output() / "cache").resolve()


def language_model_key() -> str | None:
    """The key of the language model's endpoint, from `$CLIPIT_LLM_KEY`: never shown or kept."""
    return os.environ.get("CLIPIT_LLM_KEY", "").strip() or None


def threads() -> int | None:
    """Threads this process may use, from `$OMP_NUM_THREADS`; None leaves it to the libraries.

    It is 1 where `kernels` holds the CPU's.
    """
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else None
