"""Pair each patch with its most similar reports (equation 1, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

from clipit_lib.errors import ClipItError


@dataclass(frozen=True)
class Pairs:
    """The best reports of n patches, best first.

    Attributes:
        reports: [n, k] indices into the corpus.
        similarities: [n, k] cosine similarities.
    """

    reports: Int64[np.ndarray, "n k"]
    similarities: Float32[np.ndarray, "n k"]


def top_k(
    images: Float32[np.ndarray, "n d"], texts: Float32[np.ndarray, "m e"], k: int,
    block: int = 4096, device: torch.device | str = "cpu",
) -> Pairs:  # fmt: skip
    """Exact top-k by cosine similarity; equal similarities go to the lower report index.

    Memory beyond inputs and result is one block of [block, m] similarities.

    Raises:
        ClipItError: fewer than k reports, different widths, or embeddings that are not finite.
    """
    widths, where = (images.shape[1], texts.shape[1]), "pairing"
    if widths[0] != widths[1]:
        what = f"image embeddings are {widths[0]} wide, text embeddings {widths[1]}"
        raise ClipItError(what, where, "Use both towers of one retriever")
    if not 1 <= k <= len(texts):
        raise ClipItError(f"rank {k} of {len(texts)} reports", where, "Ask for a lower rank")
    # In blocks, so that memory does not grow.
    parts = (part[i : i + 4096] for part in (images, texts) for i in range(0, len(part), 4096))
    if not all(np.isfinite(part).all() for part in parts):
        raise ClipItError("embeddings hold NaN or infinity", where, "Train the retriever anew")
    # An accelerator may multiply float32 as TF32, whose 11 bits do not tell close reports apart.
    exact = torch.float32 if torch.device(device).type == "cpu" else torch.float64
    reports = F.normalize(torch.from_numpy(texts).to(device, exact), dim=-1)
    indices = np.empty((len(images), k), np.int64)
    values = np.empty((len(images), k), np.float32)
    # Written again and again: a new block each time costs as much as a tenth of the product.
    similarity = torch.empty(min(block, len(images)), len(texts), device=device, dtype=exact)
    for begin in range(0, len(images), block):
        rows = slice(begin, begin + block)
        patches = F.normalize(torch.from_numpy(images[rows]).to(device, exact), dim=-1)
        product = torch.mm(patches, reports.T, out=similarity[: len(patches)])
        value, index = _stable_top_k(product, k)
        values[rows], indices[rows] = value.cpu().numpy(), index.cpu().numpy()
    return Pairs(indices, values)


def _stable_top_k(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    reports = similarity.shape[1]
    value, index = similarity.topk(min(k + 1, reports), dim=1)
    # topk breaks ties as it likes: where the last report kept is as close as the first one left
    # out, the row is sorted in full.
    tied = (value[:, k - 1] == value[:, -1]) & (k < reports)
    value, index = value[:, :k], index[:, :k]
    if tied.any():
        full_value, full_index = similarity[tied].sort(dim=1, descending=True, stable=True)
        value[tied], index[tied] = full_value[:, :k], full_index[:, :k]
    index, by_index = index.sort(dim=1)
    value, by_value = value.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    return value, index.gather(1, by_value)


def effective_number(reports: Int64[np.ndarray, " n"]) -> float:
    """exp(entropy) of the distribution of chosen reports: 1 if one report serves all."""
    share = np.unique(reports, return_counts=True)[1] / len(reports)
    return float(np.exp(-(share * np.log(share)).sum()))
