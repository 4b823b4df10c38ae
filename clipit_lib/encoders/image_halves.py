"""Image halves of published CLIPs, to classify with; no text half stays in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from clipit_lib.data.transforms import Transform
from clipit_lib.encoders.vision import OPENAI_CLIP, VisionEncoder

Half = tuple[nn.Module, str, int]  # the tower, what LoRA adapts in it, the side of its input
WIDTH = 512  # of the space that images and texts share: the same in all of them
UNTRAINED = "untrained"  # in place of a digest of weights


def _open_clip(name: str, path: Path | None) -> Half:
    from clipit_lib.encoders import open_clip_models as models

    if path is None:
        tower = models.ImageTower(models.build_published(name).visual)
    else:
        tower = models.published_image_tower(name, path)
    return tower, models.IMAGE_TARGETS, models.PUBLISHED_SIZE


def _conch(name: str, path: Path | None) -> Half:
    from clipit_lib.encoders import conch
    from clipit_lib.encoders.conch_shape import Conch

    tower = conch.ImageTower(Conch().visual) if path is None else conch.image_tower(path)
    return tower, conch.IMAGE_TARGETS, conch.SIZE


def _plip(name: str, path: Path | None) -> Half:
    from clipit_lib.encoders import plip

    tower = plip.ImageTower() if path is None else plip.image_tower(path)
    return tower, plip.IMAGE_TARGETS, plip.SIZE


HALVES: dict[str, Callable[[str, Path | None], Half]] = {
    "conch": _conch, "quiltnet": _open_clip, "clip": _open_clip, "plip": _plip,
}  # fmt: skip


def image_half(name: str, path: Path | None) -> VisionEncoder:
    """The image half of a published CLIP.

    Args:
        path: of the weights; None leaves them random, to count or to time.

    Raises:
        ClipItError: the file is damaged or of another model; a package is not installed.
    """
    tower, targets, size = HALVES[name](name, path)
    transform = Transform(size, *OPENAI_CLIP)
    return VisionEncoder(name, tower.eval(), transform, WIDTH, targets, UNTRAINED)
