"""YAML files into strict settings, with mistakes said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from clipit_lib.errors import ClipItError


def read_strict(path: Path, kind: Any, absent: Any = None) -> Any:
    """Read a YAML file as `kind`, a model or a type made of models.

    Args:
        absent: plain values that an empty file stands for.

    Raises:
        ClipItError: not YAML; an unknown key; a value of the wrong type.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClipItError(f"not YAML ({str(error).splitlines()[0]})", path, "Mend it") from error
    try:
        # Through JSON: strict validation then takes a list where a tuple is meant.
        text = json.dumps(absent if values is None else values, default=str)
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ClipItError(
            f"{key}: {first['msg']} (got {str(first['input'])[:60]!r})",
            path,
            "Mend this key; docs are in clipit_lib/settings/",
        ) from error
