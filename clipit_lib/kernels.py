"""One set of CPU kernels for every x86-64 CPU with AVX2, so that equal input gives equal bytes.

Libraries choose kernels by what a CPU offers and by who made it, and kernels round differently.
The variables below hold that choice; they must be set before NumPy is imported and PyTorch
computes. `held_torch` does the rest in PyTorch, as soon as something imports it.
docs/reproducibility.md tells what holds what, and what it costs.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal

Level = Literal["avx2", "native"]
CHOICE = "CLIPIT_KERNELS"  # `native` leaves all variables as they are
HELD = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions, GELU
    # Any other branch holds on Intel's CPUs only. It is slow, see `held_torch`.
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",  # matrix products of NumPy and SciPy, and through them ours
    # All that NumPy chooses at run time: what is left is the same on every x86-64-v2.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    # Sums are split among threads.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# cuBLAS needs a workspace of fixed size for `torch.use_deterministic_algorithms`.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
NEEDS = {"avx2", "fma"}
NUMPY = (2, 4)  # which first called its levels X86_V3 and so on
EARLY = ("numpy", "torch")

_level: Level = "native"


def level() -> Level:
    """What this process computes with on the CPU: `avx2` where it is held, else `native`."""
    return _level


def pin() -> None:
    """Set the variables, unless told otherwise or they cannot hold here.

    Where they are not set and NumPy or PyTorch came first it is too late: this is said in one line,
    and the process is `native`.
    """
    global _level
    os.environ.setdefault(*WORKSPACE)
    if os.environ.get(CHOICE, "").strip().lower() == "native" or not _can_hold():
        return
    early = [name for name in EARLY if name in sys.modules]
    if early and any(os.environ.get(name) != value for name, value in HELD.items()):
        said = "%s came before clipit_lib: numbers depend on this CPU. Import clipit_lib first"
        logging.getLogger(__name__).warning(said, " and ".join(early))
        return
    os.environ.update(HELD)
    _level = "avx2"
    if "torch" in sys.modules:
        importlib.import_module(_AfterTorch.THEN)
    else:
        sys.meta_path.insert(0, _AfterTorch())


def _can_hold() -> bool:
    """Whether this is an x86-64 CPU with AVX2, and a NumPy that knows the names above."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        numpy = tuple(map(int, version("numpy").split(".")[:2]))
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except (OSError, PackageNotFoundError, ValueError):
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return numpy >= NUMPY and set(flags.split()) >= NEEDS


class _AfterTorch(MetaPathFinder):
    """Imports `held_torch` when PyTorch has been imported, whoever did it: it is slow to import."""

    THEN = "clipit_lib.held_torch"

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            importlib.import_module(self.THEN)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
