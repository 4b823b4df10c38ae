"""What every test shares: checked shapes, an output folder of its own, one thread a worker."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from beartype.roar import BeartypeDecorHintException

# Holds the CPU's kernels, so before the hook's own package, which imports NumPy.
import clipit_lib  # noqa: F401

import jaxtyping  # isort: skip
from jaxtyping import _import_hook  # isort: skip

if TYPE_CHECKING:
    from companion.profile import Workbench

# Both lines must come before any test imports from clipit_lib or torch: the hook sees later
# imports only, and torch reads its number of threads once. Notebook kernels inherit the variables.
jaxtyping.install_import_hook(("clipit_lib", "companion"), "beartype.beartype")


def checked_code(loader: _import_hook._JaxtypingLoader, name: str) -> CodeType | None:
    """A module with its checks, compiled or from the file that compiled code of this kind has."""
    own_name = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", own_name):
        return SourceFileLoader.get_code(loader, name)


Decorator = Callable[[Callable[..., Any]], Any]


def checks(typechecker: Decorator, shaped: Callable[..., Any] = jaxtyping.jaxtyped) -> Decorator:
    """The hook's decorator where a signature states shapes; elsewhere of types alone, for the
    other takes ten times as long as what a small function does."""

    def decorate(what: Callable[..., Any]) -> Any:
        if not isinstance(what, type):
            words = re.findall(r"\w+", " ".join(map(str, what.__annotations__.values())))
            if not any("jaxtyping" in repr(what.__globals__.get(word)) for word in words):
                with suppress(BeartypeDecorHintException):  # a name for type checkers alone
                    return typechecker(what)
        return shaped(what, typechecker=typechecker)

    return decorate


jaxtyping.jaxtyped = checks
# The hook has such names in force while a checked module runs, thus for all that it imports too:
# PyTorch, transformers and others would be compiled again, which takes each worker 20 seconds.
_import_hook._JaxtypingLoader.get_code = checked_code
_import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")


@pytest.fixture(scope="session", autouse=True)
def output_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Send results and caches of the whole session to a temporary folder."""
    folder = tmp_path_factory.mktemp("clipit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPIT_OUTPUT", str(folder))
        patch.setenv("CLIPIT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def bench(output_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The smoke profile with its encoders trained, once for all workers, opened in this process."""
    from companion.profile import Workbench, get_or_train, load_profile, sources_of_profile

    profile, place = load_profile("smoke"), tmp_path_factory.getbasetemp()
    common = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    for name in profile.trained_encoders:
        recipe = sources_of_profile(profile).recipe(name)
        own = recipe.folder
        if not own.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CLIPIT_CACHE", str(common / "encoders"))
                get_or_train(name, profile)
                shutil.copytree(recipe.folder, own)
    return Workbench(profile)
