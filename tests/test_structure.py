"""The house: one direction of imports, small files, one place that knows the environment."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import clipit_lib
from clipit_lib.paths import repository

LIBRARY = repository() / "clipit_lib"
FILES = sorted(LIBRARY.rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(repository()).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of the library that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_imports_have_one_direction() -> None:
    names = {module(path) for path in FILES}
    graph = {module(path): (imported(path) & names) - {"clipit_lib"} for path in FILES}
    # The package's own __init__ is imported with every part of it and imports nothing back.
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError on a circle
    assert len(order) >= len(FILES) and "clipit_lib.runs" in order


def room(name: str) -> str:
    return name.split(".")[1]


def test_rooms_import_from_those_before_them() -> None:
    words = (clipit_lib.__doc__ or "").split("Rooms", 1)[1].split("\n\n", 1)[1]
    order = re.findall(r"[a-z_]+(?=[,.])", words)
    files = [path for path in FILES if path.parent != LIBRARY or not path.stem.startswith("__")]
    assert sorted(order) == sorted({room(module(path)) for path in files})
    for path in files:
        own = order.index(room(module(path)))
        for name in imported(path):
            if name.startswith("clipit_lib.") and room(name) in order:
                assert order.index(room(name)) <= own, f"{path} imports {name}"


def test_files_are_small() -> None:
    folders = [repository() / name for name in ("tests", "benchmarks", "workflow")]
    files = [*FILES, *(path for folder in folders for path in folder.rglob("*.py"))]
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in files}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_only_paths_reads_the_environment() -> None:
    readers = {path.name for path in FILES if "os.environ" in path.read_text(encoding="utf-8")}
    # A notebook's kernel inherits the environment; the CPU's kernels are chosen by it.
    assert readers <= {"paths.py", "notebook.py", "kernels.py"}
