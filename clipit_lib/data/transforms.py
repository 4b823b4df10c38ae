"""Patches as network input, and light augmentation, on tensors in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

Patches = UInt8[Tensor, "b s s 3"] | Float[Tensor, "b s s 3"]


@dataclass(frozen=True)
class Transform:
    """Resize to `size` pixels, then normalise by the mean and deviation of each channel."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __call__(self, pixels: Patches | np.ndarray) -> Float[Tensor, "b 3 size size"]:
        """Network input, float32, of patches as uint8 or as floats from 0 to 1."""
        # A copy of an array: torch warns about read-only maps.
        patches = torch.from_numpy(np.array(pixels)) if isinstance(pixels, np.ndarray) else pixels
        scale = 255.0 if patches.dtype == torch.uint8 else 1.0
        images = patches.permute(0, 3, 1, 2).float().div(scale)
        if images.shape[-1] != self.size:
            shape = (self.size, self.size)
            # Bicubic overshoots at edges, beyond what a pixel can be.
            images = F.interpolate(
                images, shape, mode=self.interpolation, antialias=True, align_corners=False
            ).clamp(0, 1)
        mean, std = (torch.tensor(v, device=images.device) for v in (self.mean, self.std))
        return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def augment(pixels: Patches, generator: torch.Generator, jitter: float = 0.1) -> Patches:
    """Turn, mirror and restain each patch at random; same shape, dtype and range as given.

    Args:
        pixels: uint8, or floats from 0 to 1.
        generator: the only source of randomness.
        jitter: relative spread of each channel's optical density; half of it, as optical density,
            is the spread of brightness.
    """
    count = len(pixels)

    def normal(channels: int) -> Tensor:
        drawn = torch.randn(count, 1, 1, channels, generator=generator, device=generator.device)
        return drawn.to(pixels.device).clamp(-3, 3)

    turned = _turn(pixels, generator)
    values = turned.float() if pixels.dtype == torch.uint8 else turned * 255
    density = -torch.log((values + 1) / 256)
    density = density * (1 + jitter * normal(3)) + 0.5 * jitter * normal(1)
    values = (256 * torch.exp(-density) - 1).clamp(0, 255)
    return values.round().to(torch.uint8) if pixels.dtype == torch.uint8 else values / 255


def _turn(pixels: Patches, generator: torch.Generator) -> Patches:
    """One of the eight symmetries of the square for each patch, all equally likely."""
    drawn = torch.rand(3, len(pixels), 1, 1, 1, generator=generator, device=generator.device)
    upside_down, mirrored, transposed = (drawn < 0.5).to(pixels.device)
    pixels = torch.where(upside_down, pixels.flip(1), pixels)
    pixels = torch.where(mirrored, pixels.flip(2), pixels)
    return torch.where(transposed, pixels.transpose(1, 2), pixels)
