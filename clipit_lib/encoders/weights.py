"""The weight file of a published model: found, fetched if it may be, and named by its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipit_lib import paths
from clipit_lib.encoders import hub, published, store
from clipit_lib.encoders.sources import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, file_digest, whole, write_text
from clipit_lib.settings import RunSpec, trained_here


@dataclass(frozen=True)
class Reach:
    """Whether the weights of a model can be had.

    Attributes:
        state: `here` on this disk; `reachable` with one download; or why not.
        words: one line: where they are, or what to do.
        bytes: size of the file, where known.
    """

    state: Literal["here", "reachable", "refused", "absent", "full", "unreachable"]
    words: str
    bytes: int | None = None


def reach(name: str, copies: Mapping[str, str], endpoint: str | None = None) -> Reach:
    """Look for the weights of a published model and download nothing.

    Args:
        copies: local path of a model's weights, by its name.
        endpoint: another address of the hub; by default the library's own.

    Raises:
        ClipItError: no published model has this name.
    """
    try:
        path = here(name, copies)
        if path is not None:
            return Reach("here", str(path), path.stat().st_size)
        size = hub.size(name, endpoint)
    except hub.HubError as error:
        return Reach(error.failure, f"{error.what}. {error.fix}")
    except ClipItError as error:
        if name not in published.PUBLISHED:
            raise
        return Reach("absent", f"{error.what}. {error.fix}")
    return Reach("reachable", published.entry(name).page, size)


def here(name: str, copies: Mapping[str, str]) -> Path | None:
    """The file on this disk: the user's copy, or one that the hub's library keeps.

    Raises:
        ClipItError: a copy is named that does not exist.
    """
    return _copy(name, copies[name]) if name in copies else hub.cached(name)


def locate(name: str, sources: Sources) -> Path:
    """The weight file of a published model, downloaded if it is not here.

    Raises:
        ClipItError: not here and not to be had, see `hub.download`.
    """
    path = here(name, sources.copies)
    if path is not None:
        return path
    if not sources.download:
        raise ClipItError(
            f"the weights of {name} have not been downloaded yet",
            published.entry(name).page,
            "The first run that needs them fetches them",
        )
    return hub.download(name)


def weights_hash(name: str, sources: Sources) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the weight file, see `locate`.

    A file of gigabytes is read for this once: the digest is kept under its path, size and time.
    """
    path = locate(name, sources).resolve()
    kept = _digests() / f"{_state(path)}.json"
    if not kept.exists():
        found = {"file": str(path), "sha256": file_digest(path)}
        write_text(kept, json.dumps(found, indent=1))
    return _seen(kept)[1][:16]


def sources_of(spec: RunSpec) -> Sources:
    """Where the weights of a stored run come from.

    A run does not say where the user's copy of a published model lies: it is the file, seen
    before, whose digest the run states.
    """
    copies = {}
    if spec.backbone in published.PUBLISHED:
        for kept in _digests().glob("*.json"):
            path, sha256 = _seen(kept)
            if sha256.startswith(spec.backbone_hash) and path.exists():
                copies[spec.backbone] = str(path)
    return Sources(spec.pretraining, spec.stand_in, copies, kernels=spec.kernels)


def require(spec: RunSpec, found: str, folder: Path) -> None:
    """Look whether an encoder that was found for a stored run is the one it was trained with.

    Args:
        found: the name of its weights; for one that is trained here the bytes must agree too,
            with those that the run's card states.

    Raises:
        ClipItError: it is another.
    """
    asked = spec.backbone_hash
    if found == asked and trained_here(spec.backbone):
        with whole(folder / "card.json", "Delete the folder of this run and run again"):
            card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
            asked = card["weights"][spec.backbone]
        found = store.read_card(sources_of(spec).recipe(spec.backbone))["weights_hash"]
    if found != asked:
        raise ClipItError(
            f"the weights of {spec.backbone} are not those it was trained with "
            f"({found}, not {asked})",
            folder,
            "Train the run again, or bring back the cache it was trained with",
        )


def _digests() -> Path:
    return paths.cache() / "digests"


def _seen(kept: Path) -> tuple[Path, str]:
    """A file that was read before, and its SHA-256."""
    with whole(kept, "Delete this file and run again"):
        seen = json.loads(kept.read_text(encoding="utf-8"))
        return Path(seen["file"]), str(seen["sha256"])


def _state(path: Path) -> str:
    """Changes when a file does, without reading it."""
    found = path.stat()
    return digest(str(path), str(found.st_size), str(found.st_mtime_ns))


def _copy(name: str, given: str) -> Path:
    path = Path(given).expanduser()
    path = path if path.is_absolute() else paths.data() / path
    file = path / published.entry(name).file if path.is_dir() else path
    if not file.is_file():
        raise ClipItError(
            f"no weights of {name} here", file, "Mend its path under `weights` in the profile"
        )
    return file
