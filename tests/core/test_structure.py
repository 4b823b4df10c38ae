"""The house: one direction of imports, one place that knows the environment."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import jaxtyping
import mutants
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from clipit_lib import losses
from clipit_lib.files import digest
from clipit_lib.paths import repository

PACKAGES = ("clipit_lib", "companion")
FILES = sorted(path for name in PACKAGES for path in (repository() / name).rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(repository()).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of the house that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_imports_have_one_direction() -> None:
    names = {module(path) for path in FILES}
    graph = {module(path): (imported(path) & names) - {*PACKAGES} for path in FILES}
    # A package's own __init__ is imported with every part of it and imports nothing back.
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError on a circle
    assert len(order) >= len(FILES) and "clipit_lib.runs" in order


def test_the_library_does_not_know_the_companion() -> None:
    for path in FILES:
        if module(path).startswith("clipit_lib"):
            assert not any(name.startswith("companion") for name in imported(path)), path


@pytest.mark.slow
def test_the_library_is_imported_where_the_companion_is_not() -> None:
    """Nor is anything else that is the study's: workflow, notebooks, figures, search, ONNX."""
    absent = ("companion", "snakemake", "papermill", "matplotlib", "seaborn", "optuna", "onnx")
    names = [module(path) for path in FILES if module(path).startswith("clipit_lib")]
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {names!r}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository())


def test_packages_stay_within_their_budgets() -> None:
    """Lines and files: a package may shrink. What is added takes the place of something."""
    budgets = {"clipit_lib": (6000, 34), "companion": (16698, 60)}
    for name, (lines, count) in budgets.items():
        files = [path for path in FILES if module(path).split(".")[0] == name]
        assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= lines
        assert len(files) <= count


def test_only_paths_reads_the_environment() -> None:
    readers = {path.name for path in FILES if "os.environ" in path.read_text(encoding="utf-8")}
    # A notebook's kernel inherits the environment, as do its cells where they are rebuilt here; the
    # CPU's kernels are chosen by it.
    assert readers <= {"paths.py", "notebook.py", "archive.py", "kernels.py"}


def test_planted_mistakes_have_their_place() -> None:
    """`tests/mutants.py` is run by hand: here only that each of its mistakes can still be made."""
    for file, listed in mutants.MISTAKES.items():
        source = (repository() / file).read_text(encoding="utf-8")
        for words in listed:
            assert mutants.Mistake(file, *words).made(source) != source


def test_types_and_shapes_are_checked_while_tests_run() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="parts=3"):
        digest(3)
    logits, labels = torch.zeros(2, 3), torch.zeros(3, dtype=torch.long)
    with pytest.raises(jaxtyping.TypeCheckError, match="'labels'"):  # an alias states their shape
        losses.double_softmax(logits, labels)
