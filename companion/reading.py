"""What a user writes, read strictly: YAML files, arguments of commands, a yes or no."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from clipit_lib.errors import ClipItError

# -- YAML files into strict settings, with mistakes said in one line.


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
    return name.endswith((".yaml", ".yml"))


# -- What all commands have in common: how they read their arguments, and how they ask.


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []
        return action.help if none else super()._get_help_string(action)


def parser_of(command: str, about: str | None, profile: bool = True) -> argparse.ArgumentParser:
    """The parser of `python -m companion COMMAND`.

    Args:
        about: what its help says it does.
        profile: whether it takes a profile.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m companion {command}", description=about, formatter_class=_Help
    )
    if profile:
        parser.add_argument(
            "-p", "--profile", default="demo", metavar="NAME", help="its name, or a file of yours"
        )
    return parser


def whole_from(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least {least}")
        return int(text)

    return read


def agree(question: str, unattended: ClipItError, refused: ClipItError) -> None:
    """Go on only if somebody at a terminal says yes; raise what else is the case."""
    if not sys.stdin.isatty():
        raise unattended
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise refused
