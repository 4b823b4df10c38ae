"""What a table, a figure or a summary says where runs behind it have a doubtful course."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipit_lib import paths
from clipit_lib.files import whole

NAMED = 5  # so many runs are named; the others are counted


def doubtful(profile: str, keys: Sequence[str]) -> str:
    """One line that names the runs among `keys` whose course is doubtful; "" if there is none.

    Runs that are not here, or were stored by a version that took no notes, are passed over.
    """
    found = [name for key in dict.fromkeys(keys) if (name := _name_if_noted(profile, key))]
    if not found:
        return ""
    rest = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    rests, each = ("run rests", "its") if len(set(keys)) == 1 else ("runs rest", "each one's")
    return (
        f"**{len(found)} of {len(set(keys))} {rests} on a doubtful course** (no look at validation "
        f"was better than the start, or the training loss rose; {each} `done.json` says which): "
        f"{'; '.join(found[:NAMED])}{rest}."
    )


def _name_if_noted(profile: str, key: str) -> str:
    for store in ("runs", "survival_runs"):
        folder = paths.results(profile) / store / key
        if (folder / "done.json").exists() and _read(folder / "done.json").get("notes"):
            spec = _read(folder / "spec.json")
            about = [spec[name] for name in ("dataset", "backbone", "setting") if name in spec]
            return f"{', '.join(about)}, seed {spec['seed']} ({key})"
    return ""


def _read(path: Path) -> dict[str, Any]:
    with whole(path, "Delete the folder of this run and run again"):
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
