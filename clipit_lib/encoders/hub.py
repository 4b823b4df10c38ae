"""Files on the Hugging Face hub, and its refusals in one line.

A token comes from where the hub's own library looks for it: its environment variable or its login.
It is never asked for here, kept or shown.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clipit_lib.encoders import published
from clipit_lib.errors import ClipItError

Failure = Literal["refused", "absent", "full", "unreachable"]
# What the library's own HTTP client raises where it gets no answer at all.
NO_ANSWER: type[Exception] = HfHubHTTPError.__bases__[0]


def cached(name: str) -> Path | None:
    """The file of a model in the hub's local cache, if it was downloaded before."""
    model = published.entry(name)
    found = huggingface_hub.try_to_load_from_cache(model.repo, model.file, revision=model.revision)
    return Path(found) if isinstance(found, str) else None


def download(name: str, endpoint: str | None = None) -> Path:
    """The file of a model, fetched into the hub's local cache unless it is there.

    Args:
        endpoint: another address of the hub; by default the library's own.

    Raises:
        ClipItError: access is refused; no such file; no connection; no space.
    """
    model = published.entry(name)
    with _plainly(name):
        return Path(
            huggingface_hub.hf_hub_download(
                model.repo, model.file, revision=model.revision, endpoint=endpoint
            )
        )


def size(name: str, endpoint: str | None = None) -> int | None:
    """Bytes of the model's file as the hub states them; nothing is downloaded.

    Raises:
        ClipItError: as `download`.
    """
    model = published.entry(name)
    url = huggingface_hub.hf_hub_url(
        model.repo, model.file, revision=model.revision, endpoint=endpoint
    )
    with _plainly(name):
        return huggingface_hub.get_hf_file_metadata(
            url, token=huggingface_hub.get_token(), endpoint=endpoint
        ).size


class HubError(ClipItError):
    """A refusal of the hub.

    Attributes:
        failure: its kind.
    """

    def __init__(self, failure: Failure, what: str, where: object, fix: str) -> None:
        self.failure = failure
        super().__init__(what, where, fix)


@contextmanager
def _plainly(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, NO_ANSWER) as error:
        failure = _kind(error)
        what, fix = _words(name, failure)
        raise HubError(failure, what, published.entry(name).page, fix) from error


def _kind(error: BaseException) -> Failure:
    # What the library could not do may hide behind "not in the local cache".
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return _kind(error.__cause__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return "refused"
    absent = (RemoteEntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError)
    if isinstance(error, absent) or status == 404:
        return "absent"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    return "unreachable"


def _words(name: str, failure: Failure) -> tuple[str, str]:
    model = published.entry(name)
    own = f"`weights: {{{name}: PATH}}` in the profile names a copy of {model.file} of yours"
    if failure == "refused":
        what = f"the hub refuses the weights of {name} ({model.licence})"
        asked = f"Ask for access at {model.terms} and log in with `hf auth login`"
        again = "Log in anew with `hf auth login`, or remove a token that has expired"
        return what, f"{asked if model.gated else again}; or {own}"
    if failure == "absent":
        what = f"the hub has no {model.file} of {name} at revision {model.revision[:12]}"
        return what, f"Look for it on its page; {own}"
    if failure == "full":
        what = f"no space left for the weights of {name}"
        return what, f"Free some, or set HF_HOME to a folder on another disk; or {own}"
    what = f"the weights of {name} are not here and the hub cannot be reached"
    return what, f"Connect to the internet (and unset HF_HUB_OFFLINE); or {own}"
