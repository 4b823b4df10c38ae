"""Print what this Python lacks of pyproject.toml and of the extras named; exit 1 if anything."""

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path


def missing(extras: list[str]) -> Iterator[str]:
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        yield "Python 3.11 or 3.12"
        return
    import tomllib
    from importlib.metadata import PackageNotFoundError, version

    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield "packaging"
        return
    file = Path(__file__).resolve().parent.parent / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][name] for name in extras)]
    for requirement in map(Requirement, chain.from_iterable(lists)):
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                yield str(requirement)
        except PackageNotFoundError:
            yield requirement.name


if __name__ == "__main__":
    found = list(missing(sys.argv[1:]))
    print(", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else ""))
    sys.exit(bool(found))
