"""What a user writes, read strictly: YAML files, a yes or no."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from clipit_lib.errors import ClipItError

TAG = "tag:yaml.org,2002:"
KINDS = {None, *(TAG + kind for kind in ("bool", "null", "int", "float", "str", "seq", "map"))}
# As YAML 1.2 and Python have them; in YAML 1.1, 1e-4 is a text, 010 is 8 and 1:30 is 90.
NUMBERS = {
    "int": r"[-+]?(0|[1-9][0-9_]*)\Z",
    "float": r"([-+]?((\.[0-9]+|[0-9]+\.?[0-9]*)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))"
    r"|\.(nan|NaN|NAN))\Z",
}


class _Loader(yaml.SafeLoader):
    """Plain values only; a date is text, and so is every key, as it is written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        for key, _ in node.value:
            what = f"{key.value} is given twice" if key.value in keys else "a key must be a text"
            if key.value in keys or not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            keys.append(key.value)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


_Loader.yaml_constructors = {
    tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in KINDS
}
_Loader.yaml_implicit_resolvers = {
    first: [each for each in tags if each[0] in (TAG + "bool", TAG + "null", TAG + "merge")]
    for first, tags in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern in NUMBERS.items():
    _Loader.add_implicit_resolver(TAG + _kind, re.compile(_pattern), list("-+.0123456789"))


def plain(text: str, where: object) -> Any:
    """Numbers, texts, lists and mappings out of YAML; a date is text.

    Raises:
        ClipItError: not YAML; a key given twice; a value of another kind, or within itself.
    """
    node = _composed(text, where)
    return None if node is None else _values(node)


def read_strict(path: Path, kind: Any, absent: Any = None) -> Any:
    """Read a YAML file as `kind`, a model or a type made of models.

    Where a text is wanted, a value without quotes is the text that is written: 1e3, no, 007.

    Args:
        absent: plain values that an empty file stands for.

    Raises:
        ClipItError: not UTF-8 or not YAML; a key given twice or unknown; a value of the wrong type.
    """
    try:
        node = _composed(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ClipItError(f"not UTF-8 ({error.reason})", path, "Save it as UTF-8") from error
    wanted = TypeAdapter(kind)
    while True:
        values = absent if node is None else _values(node)
        try:
            # Through JSON: strict validation then takes a list where a tuple is meant.
            return wanted.validate_json(json.dumps(absent if values is None else values))
        except ValidationError as error:
            faults = error.errors(include_url=False)
            if not sum([_as_written(node, fault) for fault in faults]):
                raise _fault(faults, node, wanted, path) from error


def is_file_name(name: str) -> bool:
    """Whether a profile is given as a file of the user, not by its name."""
    return name.lower().endswith((".yaml", ".yml"))


def _composed(text: str, where: object) -> yaml.Node | None:
    """The nodes of a text; none if it is empty."""
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
        if node is not None:
            loader.construct_object(node, deep=True)
        return node
    except yaml.MarkedYAMLError as error:
        what, mark = f"not YAML: {error.problem}", error.problem_mark or error.context_mark
        if error.context and error.context_mark:
            what += f" {error.context} of line {error.context_mark.line + 1}"
        raise ClipItError(what, _line(where, mark), "Fix it") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"not YAML: {text[error.position]} is no character of a text"
        raise ClipItError(what, f"{where}, line {line}", "Take it out") from error
    except (KeyError, ValueError, RecursionError) as error:  # a tag that does not fit: !!int many
        raise ClipItError(f"not YAML ({error})", where, "Fix it") from error


def _values(node: yaml.Node) -> Any:
    return _Loader("").construct_object(node, deep=True)


def _line(where: object, mark: yaml.Mark | None) -> str:
    return f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(where)


def _as_written(node: yaml.Node | None, fault: Any) -> bool:
    """Make a plain value that was taken for something else the text it is; whether it was one."""
    at = _reached(node, fault["loc"])[1]
    text = fault["type"] in ("string_type", "literal_error") and isinstance(at, yaml.ScalarNode)
    if not text or at is None or at.tag == TAG + "str" or at.value in ("", "~"):
        return False
    at.tag = TAG + "str"
    return True


def _reached(
    node: yaml.Node | None, places: Sequence[str | int]
) -> tuple[list[str], yaml.Node | None]:
    """The keys on the way to a place, as they are written, and the node there or nearest to it."""
    keys: list[str] = []
    kind_named = False
    for place in places:
        held: dict[Any, Any] = {}
        if isinstance(node, yaml.MappingNode):
            held = {key.value: value for key, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            held = dict(enumerate(node.value))
        # Before the keys of one kind of several, pydantic names the kind.
        if not kind_named and getattr(held.get("source"), "value", None) == place:
            kind_named = True
            continue
        kind_named = False
        keys += [place] if isinstance(place, str) else []
        node = held.get(place, node)
    return keys, node


def _fault(faults: Sequence[Any], node: yaml.Node | None, wanted: Any, path: Path) -> ClipItError:
    """The first fault in words; an unknown key before all others, which may come of it."""
    fault = min(faults, key=lambda each: each["type"] != "extra_forbidden")
    keys, at = _reached(node, fault["loc"])
    mark = at.start_mark if at else None
    what = f"{'.'.join(keys) or 'the whole file'}: {fault['msg'].removeprefix('Value error, ')}"
    if fault["type"] == "extra_forbidden":
        around = _reached(node, fault["loc"][:-1])[1]
        assert around is not None
        mark = next(key.start_mark for key, _ in around.value if key.value == keys[-1])
        near = get_close_matches(keys[-1], _known(wanted.json_schema(), fault["loc"]), 1)
        what = f"{'.'.join(keys)}: unknown key" + (f"; perhaps {near[0]} is meant" if near else "")
    elif fault["type"] != "missing":
        got = at.value if isinstance(at, yaml.ScalarNode) else fault["input"]
        what += f" (got {str(got)[:60]!r})"
    fix = "Fix this key; see docs/your_data.md and companion/profile.py"
    return ClipItError(what, _line(path, mark), fix)


def _known(schema: Any, places: Sequence[str | int]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    here, keys = schema, {}
    for place in places:
        here = next((each for each in here.get("anyOf", ()) if "$ref" in each), here)
        if "$ref" in here:
            here = schema["$defs"][here["$ref"].rpartition("/")[2]]
        kinds = here.get("discriminator", {}).get("mapping", {})
        inner = here.get("additionalProperties") or here.get("items") or {}
        keys = here.get("properties", {})
        here = {"$ref": kinds[place]} if place in kinds else keys.get(place, inner)
    return list(keys)


def agree(question: str, unattended: ClipItError, refused: ClipItError) -> None:
    """Go on only if somebody at a terminal says yes; raise what else is the case."""
    if not sys.stdin.isatty():
        raise unattended
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise refused
