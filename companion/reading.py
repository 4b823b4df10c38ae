"""YAML files into strict settings, with mistakes said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from clipit_lib.errors import ClipItError


class _Loader(yaml.SafeLoader):
    """Plain values only, as `yaml.safe_load`; of a key given twice YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is given twice")
        return super().construct_mapping(node, deep)


def plain(text: str, where: object) -> Any:
    """Numbers, texts, lists and mappings out of YAML; a date is text.

    Raises:
        ClipItError: not YAML; a key given twice; a value of another kind, or within itself.
    """
    try:
        return json.loads(json.dumps(yaml.load(text, _Loader), default=str))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a circle
        raise ClipItError(f"not YAML ({str(error).splitlines()[0]})", where, "Mend it") from error


def read_strict(path: Path, kind: Any, absent: Any = None) -> Any:
    """Read a YAML file as `kind`, a model or a type made of models.

    Args:
        absent: plain values that an empty file stands for.

    Raises:
        ClipItError: not UTF-8 or not YAML; a key given twice or unknown; a value of the wrong type.
    """
    try:
        values = plain(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ClipItError(f"not UTF-8 ({error.reason})", path, "Save it as UTF-8") from error
    try:
        # Through JSON: strict validation then takes a list where a tuple is meant.
        text = json.dumps(absent if values is None else values)
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ClipItError(
            f"{key}: {first['msg']} (got {str(first['input'])[:60]!r})",
            path,
            "Mend this key; docs are in clipit_lib/settings.py and companion/profile.py",
        ) from error


def is_file_name(name: str) -> bool:
    """Whether a profile is given as a file of the user, not by its name."""
    return name.lower().endswith((".yaml", ".yml"))
