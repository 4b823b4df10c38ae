"""The CPU's kernels are held, whatever the surroundings ask for, and let go when told so."""

import os
import subprocess
import sys

import pytest
import torch

from clipit_lib import kernels
from clipit_lib.paths import repository

held = pytest.mark.skipif(kernels.level() != "avx2", reason="kernels are not held on this machine")

TRAINING = """
import hashlib
from clipit_lib.compute import device
from clipit_lib.encoders import registry
import numpy as np
import torch
from torch import nn

state = hashlib.sha256()
whole = np.random.default_rng(0).integers(-512, 513, (96, 130)) / 256.0
for values in (np.exp(whole), np.exp(whole.astype("f4")), whole @ whole.T, np.tanh(whole)):
    state.update(values.tobytes())
torch.manual_seed(0)
vit = registry.build_backbone("phantom_vit_s16", 48, None).model
model = nn.Sequential(vit, nn.Linear(64, 9))
optimiser = torch.optim.Adam(model.parameters(), 1e-3)
images = torch.from_numpy(whole[:, :96].reshape(4, 3, 768).repeat(3, 2)).float().view(4, 3, 48, 48)
for _ in range(20):
    loss = nn.functional.cross_entropy(model(images), torch.arange(4))
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
for value in (*model.state_dict().values(), images.exp(), images.abs().log(), images.erf()):
    state.update(value.detach().numpy().tobytes())
print(state.hexdigest()[:16])
"""
# The same on CPUs of Intel and AMD, with AVX-512 and without. It changes with PyTorch or NumPy.
EXPECTED = "0b644c934955ab76"
SURROUNDINGS = {
    "none": {},
    "slow": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "mkl": {"MKL_CBWR": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "openblas": {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "X86_V4"},
    "threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
}


def said(code: str, **surroundings: str) -> subprocess.CompletedProcess[str]:
    """What a fresh process says, in which nothing is held yet."""
    free = {k: v for k, v in os.environ.items() if k not in (*kernels.HELD, kernels.CHOICE)}
    environment = free | {"PYTHONPATH": str(repository())} | surroundings
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


@held
@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_training_has_the_same_bytes_whatever_the_surroundings(name: str) -> None:
    assert said(TRAINING, **SURROUNDINGS[name]).stdout.strip() == EXPECTED


@held
def test_variables_are_there_before_numpy() -> None:
    code = (
        "import os, sys, clipit_lib\n"
        "assert 'numpy' not in sys.modules and 'torch' not in sys.modules\n"
        "from clipit_lib import kernels\n"
        "import numpy, torch, threadpoolctl\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as found\n"
        "pools = threadpoolctl.threadpool_info()\n"
        "print(kernels.level(), all(os.environ[k] == v for k, v in kernels.HELD.items()),\n"
        "      any(found[level] for level in kernels.HELD['NPY_DISABLE_CPU_FEATURES'].split()),\n"
        "      {pool['num_threads'] for pool in pools}, torch.get_num_threads(),\n"
        "      torch.backends.cpu.get_cpu_capability(), *sorted(\n"
        "      {pool['architecture'] for pool in pools if pool['internal_api'] == 'openblas'}))"
    )
    assert said(code, OMP_NUM_THREADS="2").stdout.split() == [
        "avx2", "True", "False", "{1}", "1", "AVX2", "Haswell"
    ]  # fmt: skip


def test_who_opts_out_keeps_the_surroundings() -> None:
    code = (
        "import os, clipit_lib\n"
        "from clipit_lib import kernels\n"
        "before = {k: os.environ.get(k) for k in kernels.HELD}\n"
        "import torch, sys\n"
        "print(kernels.level(), 'clipit_lib.held_torch' in sys.modules,\n"
        "      [k for k, v in before.items() if v is not None])"
    )
    seen = said(code, CLIPIT_KERNELS="native", OMP_NUM_THREADS="2")
    assert seen.stdout.split(maxsplit=2) == ["native", "False", "['OMP_NUM_THREADS']\n"]
    assert seen.stderr == ""


@held
def test_too_late_is_said_in_one_line() -> None:
    code = "import numpy, clipit_lib; from clipit_lib import kernels; print(kernels.level())"
    seen = said(code)
    assert seen.stdout.strip() == "native"
    assert seen.stderr.startswith("numpy came before clipit_lib") and seen.stderr.count("\n") == 1
    # The kernel of a notebook inherits the variables: there any order will do.
    assert said(code, **kernels.HELD).stdout.strip() == "avx2"


@held
def test_products_and_roots_are_pytorchs_own_to_rounding() -> None:
    code = (
        "import torch\n"
        "rng = torch.Generator().manual_seed(0)\n"
        "def cases():\n"
        "    a, b, c = (torch.randn(s, generator=rng) for s in ((5, 7), (7, 3), (3,)))\n"
        "    q = torch.randn(2, 4, 5, 6, generator=rng, requires_grad=True)\n"
        "    yield from (a @ b, b.T @ a.T, torch.addmm(c, a, b, beta=0.5, alpha=2))\n"
        "    yield a.abs().sqrt()\n"
        "    yield torch.addmm(c * torch.nan, a, b, beta=0)\n"
        "    yield a.double() @ b.double()\n"
        "    yield a.bfloat16() @ b.bfloat16()\n"
        "    yield a[:, :1].expand(5, 7) @ b[:1].expand(7, 3)\n"
        "    yield torch.zeros(2, 0) @ torch.zeros(0, 3)\n"
        "    out = torch.nn.functional.scaled_dot_product_attention(q, q, q)\n"
        "    yield from (out, *torch.autograd.grad(out.sum(), q))\n"
        "    yield torch.baddbmm(torch.ones(3), q[0, :, :, :4].detach(), torch.ones(4, 4, 3))\n"
        "    yield a.square().sqrt_()\n"
        "before = list(cases())\n"
        "rng.manual_seed(0)\n"
        "import clipit_lib\n"
        "from clipit_lib import held_torch\n"
        "after = list(cases())\n"
        "for one, other in zip(before, after, strict=True):\n"
        "    torch.testing.assert_close(one, other)\n"
        "print(len(after))"
    )
    assert said(code).stdout.strip() == "13"


@held
def test_mistakes_are_told_in_pytorchs_words() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.ones(3, 4) @ torch.ones(3, 4)
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.mm(torch.ones(3, 4), torch.ones(4, 2).double())
