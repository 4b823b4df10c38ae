"""The house: one direction of imports, small files, one place that knows the environment."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

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


def test_files_are_small() -> None:
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in FILES}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_only_paths_reads_the_environment() -> None:
    readers = {path.name for path in FILES if "os.environ" in path.read_text(encoding="utf-8")}
    assert readers <= {"paths.py", "notebook.py"}  # a kernel inherits the environment
