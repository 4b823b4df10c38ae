"""PyTorch held to kernels that round alike on every x86-64 CPU with AVX2; see `kernels`.

MKL multiplies matrices alike on CPUs of Intel and AMD only in its SSE2 branch, which takes twice
as long. So products of matrices go through NumPy to OpenBLAS, whose AVX2 kernels can be chosen on
both. MKL's square root is not held in any branch: it begins from an approximation that differs
between makers of CPUs. NumPy's is exact. What is left to MKL (exp, log, products of a matrix and a
vector) is held, and a small part of the time.

Importing this module changes PyTorch; only `kernels` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

Plain = Callable[..., Tensor]
Number = float | int | bool
THROUGH_NUMPY = (torch.float32, torch.float64)


def _fits(*tensors: Tensor) -> bool:
    """Whether NumPy can take them; PyTorch has the right words for types that do not meet."""
    dtype = tensors[0].dtype
    return dtype in THROUGH_NUMPY and all(e.dtype == dtype and not e.is_neg() for e in tensors)


def _multiply(first: Tensor, second: Tensor, dimensions: int) -> bool:
    shapes = first.shape, second.shape
    return (
        first.dim() == second.dim() == dimensions
        and shapes[0][:-2] == shapes[1][:-2]
        and shapes[0][-1] == shapes[1][-2]
        and _fits(first, second)
    )


def _array(tensor: Tensor) -> np.ndarray:
    """As an array that BLAS takes as it is: NumPy's loops for other strides are slow."""
    rows, columns = tensor.shape[-2:]
    below, beside = tensor.stride()[-2:]
    if not ((beside == 1 and below >= columns) or (below == 1 and beside >= rows)):
        tensor = tensor.contiguous()
    return tensor.detach().numpy()


def multiplied(plain: Plain, dimensions: int, first: Tensor, second: Tensor) -> Tensor:
    """`mm` or `bmm`; what NumPy cannot take is left to the plain one."""
    if not _multiply(first, second, dimensions):
        return plain(first, second, out=first.new_empty(0))
    return _product(first, second)


def added(
    plain: Plain, dimensions: int, bias: Tensor, first: Tensor, second: Tensor, *,
    beta: Number = 1, alpha: Number = 1,
) -> Tensor:  # fmt: skip
    """`addmm` or `baddbmm`, likewise."""
    if not (_multiply(first, second, dimensions) and _fits(bias, first)):
        return plain(bias, first, second, beta=beta, alpha=alpha, out=first.new_empty(0))
    product = _product(first, second)
    if alpha != 1:
        product *= alpha
    if beta != 0:  # a bias that does not count may hold anything
        product += bias if beta == 1 else beta * bias
    return product


def _product(first: Tensor, second: Tensor) -> Tensor:
    product = first.new_empty(*first.shape[:-1], second.shape[-1])
    with np.errstate(all="ignore"):  # PyTorch says nothing of numbers that are not finite
        np.matmul(_array(first), _array(second), out=product.numpy())
    return product


def sqrt(values: Tensor) -> Tensor:
    if not _fits(values):
        inexact = values.is_floating_point() or values.is_complex()
        dtype = values.dtype if inexact else torch.get_default_dtype()
        return torch.sqrt(values, out=torch.empty_like(values, dtype=dtype))
    with np.errstate(invalid="ignore"):  # PyTorch says nothing of roots of negative numbers
        return torch.from_numpy(np.asarray(np.sqrt(values.detach().numpy())))


def _hold() -> torch.library.Library:
    """Put the above in the place of PyTorch's own, for dense tensors on the CPU."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was a kernel is known
        library.impl("mm", partial(multiplied, torch.mm, 2), "CPU")
        library.impl("bmm", partial(multiplied, torch.bmm, 3), "CPU")
        library.impl("addmm", partial(added, torch.addmm, 2), "CPU")
        library.impl("baddbmm", partial(added, torch.baddbmm, 3), "CPU")
        library.impl("sqrt", sqrt, "CPU")
        library.impl("sqrt_", lambda values: values.copy_(sqrt(values)), "CPU")
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        # Has products of its own within, by MKL. Without it attention is made of those above.
        torch.backends.cuda.enable_flash_sdp(False)
    return library


LIBRARY = _hold()  # kept: when it goes, so do the kernels
