"""What every test shares: checked shapes, an output folder of its own, one thread a worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Holds the CPU's kernels, so before the hook's own package, which imports NumPy.
import clipit_lib  # noqa: F401

from jaxtyping import install_import_hook  # isort: skip

if TYPE_CHECKING:
    from companion.profile import Workbench

# Both lines must come before any test imports from clipit_lib or torch: the hook sees later
# imports only, and torch reads its number of threads once. Notebook kernels inherit the variables.
install_import_hook(("clipit_lib", "companion"), "beartype.beartype")
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
def bench(output_folder: Path) -> Workbench:
    """The smoke profile with its encoders trained, opened in this process."""
    from companion.profile import Workbench, get_or_train, load_profile

    profile = load_profile("smoke")
    for name in profile.trained_encoders:
        get_or_train(name, profile)
    return Workbench(profile)
