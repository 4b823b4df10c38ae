"""PyTorch held to kernels that round alike on every x86-64 CPU with AVX2; see `kernels`.

MKL multiplies matrices alike on CPUs of Intel and AMD only in its SSE2 branch, which takes twice
as long. So products of matrices go through NumPy to OpenBLAS, whose AVX2 kernels can be chosen on
both. What is left to MKL (exp, log, products of a matrix and a vector) is a small part of the time.
Its square root is not held: it begins from an approximation that differs between makers. Here only
optimisers took roots of tensors, and fused ones take them elsewhere.

Importing this module changes PyTorch; only `kernels` does.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

Number = float | int | bool
THROUGH_NUMPY = (torch.float32, torch.float64)


def _fits(*tensors: Tensor) -> bool:
    return all(each.dtype in THROUGH_NUMPY and not each.is_neg() for each in tensors)


def _array(tensor: Tensor) -> np.ndarray:
    """As an array that BLAS takes as it is: NumPy's loops for other strides are slow."""
    rows, columns = tensor.shape[-2:]
    below, beside = tensor.stride()[-2:]
    if not ((beside == 1 and below >= columns) or (below == 1 and beside >= rows)):
        tensor = tensor.contiguous()
    return tensor.detach().numpy()


def mm(first: Tensor, second: Tensor) -> Tensor:
    product = first.new_empty(first.shape[0], second.shape[1])
    if not _fits(first, second) or first.shape[1] != second.shape[0]:
        return torch.mm(first, second, out=product)  # which has the right words for a mistake
    np.matmul(_array(first), _array(second), out=product.numpy())
    return product


def bmm(first: Tensor, second: Tensor) -> Tensor:
    product = first.new_empty(first.shape[0], first.shape[1], second.shape[2])
    if not _fits(first, second) or first.shape[::2] != second.shape[:2]:
        return torch.bmm(first, second, out=product)
    np.matmul(_array(first), _array(second), out=product.numpy())
    return product


def addmm(
    bias: Tensor, first: Tensor, second: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    if not _fits(bias, first, second):
        out = first.new_empty(first.shape[0], second.shape[1])
        return torch.addmm(bias, first, second, beta=beta, alpha=alpha, out=out)
    return _add(mm(first, second), bias, beta, alpha)


def baddbmm(
    bias: Tensor, first: Tensor, second: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    if not _fits(bias, first, second):
        out = first.new_empty(first.shape[0], first.shape[1], second.shape[2])
        return torch.baddbmm(bias, first, second, beta=beta, alpha=alpha, out=out)
    return _add(bmm(first, second), bias, beta, alpha)


def _add(product: Tensor, bias: Tensor, beta: Number, alpha: Number) -> Tensor:
    if alpha != 1:
        product *= alpha
    if beta != 0:  # a bias that does not count may hold anything
        product += bias if beta == 1 else beta * bias
    return product


def _hold() -> torch.library.Library:
    """Put the above in the place of PyTorch's own, for dense tensors on the CPU."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was a kernel is known
        for kernel in (mm, bmm, addmm, baddbmm):
            library.impl(kernel.__name__, kernel, "CPU")
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        # Has products of its own within, by MKL. Without it attention is made of those above.
        torch.backends.cuda.enable_flash_sdp(False)
    return library


LIBRARY = _hold()  # kept: when it goes, so do the kernels
