"""What the released code does step by step, in our own words: one at a time, nothing shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipit_lib.compute import device
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.training import MovingTargets


@torch.inference_mode()
def pair_one_by_one(
    clip: ClipEncoder, pixels: np.ndarray, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest report of each patch, [n] indices and [n] similarities.

    One report a forward pass, then one patch a forward pass, each against all reports.
    """
    embedded = []
    for text in texts:
        ids = clip.tokenizer.windows([text], "truncate").ids
        embedded.append(F.normalize(clip.text_tower(ids.to(device())), dim=-1))
    corpus = torch.cat(embedded)
    best, similarity = [], []
    for patch in pixels:
        image = clip.transform(patch[None])
        cosines = F.normalize(clip.image_tower(image), dim=-1) @ corpus.T
        value, index = cosines[0].max(dim=0)
        best.append(index.item())
        similarity.append(value.item())
    return np.array(best), np.array(similarity, dtype=np.float32)


@dataclass(frozen=True)
class EveryReport(MovingTargets):
    """A moving target that encodes the report of every patch, however often it occurs."""

    def __call__(self, rows: Tensor, epoch: int) -> Tensor:
        ids = self.windows.ids[self.report[rows]]  # truncated texts: one window each
        return F.normalize(self.tower(ids.to(device())), dim=-1)
