"""Random views of patches for training without labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor


def random_view(
    pixels: UInt8[Tensor, "b s s 3"],
    generator: torch.Generator,
    smallest: float = 0.6,
    jitter: float = 0.15,
) -> UInt8[Tensor, "b s s 3"]:
    """A rotated, mirrored, zoomed crop of each patch with its own stain strength.

    Args:
        smallest: side of the smallest crop as a share of the patch.
        jitter: relative spread of each colour channel's optical density.
    """
    count = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale, angle = uniform(smallest, 1.0), uniform(0.0, 2 * math.pi)
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    room = 1 - scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift_x, shift_y = room * uniform(-1.0, 1.0), room * uniform(-1.0, 1.0)
    rows = [mirror * cos, -sin, shift_x, mirror * sin, cos, shift_y]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    images = pixels.permute(0, 3, 1, 2).float().div(255)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    cut = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    strength = 1 + jitter * torch.randn(count, 3, 1, 1, generator=generator)
    density = -torch.log(cut.clamp(min=1 / 255)) * strength.clamp(0.5, 1.5)
    return torch.exp(-density).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
