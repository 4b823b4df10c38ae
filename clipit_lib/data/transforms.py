"""Patches as network input, and light augmentation, on tensors in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Resize to `size` pixels and normalise by channel mean and standard deviation."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: UInt8[Tensor, "b s s 3"] | np.ndarray) -> Float32[Tensor, "b 3 h w"]:
        patches = torch.as_tensor(pixels)
        images = patches.permute(0, 3, 1, 2).float().div(255)
        if images.shape[-1] != self.size:
            shape = (self.size, self.size)
            images = F.interpolate(images, shape, mode="bicubic", antialias=True).clamp(0, 1)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return (images - mean) / std


def augment(
    pixels: UInt8[Tensor, "b s s 3"], generator: torch.Generator, jitter: float = 0.1
) -> UInt8[Tensor, "b s s 3"]:
    """Random mirror, quarter turn and stain strength for each patch.

    Args:
        jitter: relative spread of the optical density of each channel.
    """
    count = len(pixels)
    turned = pixels.clone()
    turns = torch.randint(0, 4, (count,), generator=generator)
    for quarter in range(1, 4):
        chosen = turns == quarter
        turned[chosen] = turned[chosen].rot90(quarter, (1, 2))
    mirrored = torch.rand(count, generator=generator) < 0.5
    turned[mirrored] = turned[mirrored].flip(2)
    strength = 1 + jitter * torch.randn(count, 1, 1, 3, generator=generator)
    density = -torch.log((turned.float() + 1) / 256) * strength.clamp(0.5, 1.5)
    return (256 * torch.exp(-density) - 1).clamp(0, 255).round().to(torch.uint8)
