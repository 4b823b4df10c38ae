"""Whole slides (svs, ndpi, mrxs, pyramidal tif): where tissue is, and tiles at one resolution.

OpenSlide reads them region by region: of a slide of any size, one region and an overview are held.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from clipit_lib.data.images import no_image
from clipit_lib.errors import ClipItError

SCANS = {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu"}
SUFFIXES = SCANS | {".tif", ".tiff"}
OVERVIEW = 2048  # longer side of the overview in which tissue is sought, in pixels
REGION = 1024  # side of what is read at a time for it, in pixels of a level
# Saturations of 255 between which the threshold lies. On a slide of glass alone, or of tissue
# alone, Otsu's would cut noise or tissue in two.
GLASS, STAINED = 13, 51
Box = tuple[int, int, int, int]


def _openslide(path: Path) -> Any:
    try:
        return importlib.import_module("openslide")
    except ImportError as error:
        what, fix = "whole slides need OpenSlide", "pip install openslide-python openslide-bin"
        raise ClipItError(what, path, fix) from error


@dataclass(frozen=True)
class Slide:
    """An open slide. Boxes are left, top, right and below in pixels of level 0.

    Attributes:
        opened: OpenSlide's object.
        scale: pixels of level 0 for one of a tile.
    """

    path: Path
    opened: Any
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0."""
        return self.opened.dimensions

    @property
    def origin(self) -> tuple[int, int]:
        """Where QuPath counts from: it shows the scanned part alone if the slide says which."""
        bounds = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
        x, y, *size = (self.opened.properties.get(name) for name in bounds)
        return (0, 0) if None in (x, y, *size) else (int(x), int(y))

    def crop(self, box: Box) -> Image.Image:
        """RGB of a region, at the resolution of a tile.

        Raises:
            ClipItError: the file is damaged there.
        """
        left, top, right, below = box
        size = round((right - left) / self.scale), round((below - top) / self.scale)
        return self._resized(box, size)

    @cached_property
    def overview(self) -> Image.Image:
        """RGB of the whole slide; its longer side has at most `OVERVIEW` pixels.

        Raises:
            ClipItError: the file is damaged.
        """
        scale = max(1.0, max(self.size) / OVERVIEW)
        width, height = (max(1, round(length / scale)) for length in self.size)
        step = max(1, int(REGION * self._level(scale)[1] / scale))
        whole = Image.new("RGB", (width, height))
        for y in range(0, height, step):
            for x in range(0, width, step):
                right, below = min(x + step, width), min(y + step, height)
                left, top, *others = (round(each * scale) for each in (x, y, right, below))
                part = self._resized((left, top, others[0], others[1]), (right - x, below - y))
                whole.paste(part, (x, y))
        return whole

    def _level(self, scale: float) -> tuple[int, float]:
        """The coarsest level with all detail at a scale, and its own scale."""
        level = self.opened.get_best_level_for_downsample(scale * 1.01)  # 4.0003 is as good as 4
        return level, self.opened.level_downsamples[level]

    def _resized(self, box: Box, size: tuple[int, int]) -> Image.Image:
        left, top, right, below = box
        level, scale = self._level((right - left) / size[0])
        extent = max(1, round((right - left) / scale)), max(1, round((below - top) / scale))
        try:
            region = self.opened.read_region((left, top), level, extent)
        except _openslide(self.path).OpenSlideError as error:
            what = f"cannot be read at x {left}, y {top} ({error})"
            raise ClipItError(what, self.path, "Copy the slide again from where it came") from error
        # Transparent is what was not scanned: glass, as in every image.
        on_white = Image.alpha_composite(Image.new("RGBA", extent, "white"), region)
        return on_white.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def open_slide(path: Path, resolution: float, own: float | None = None) -> Slide:
    """A slide whose tiles have a resolution.

    Args:
        resolution: of the tiles, in microns per pixel.
        own: microns per pixel of level 0, if not what the slide says.

    Raises:
        ClipItError: OpenSlide is not installed or cannot read the file, or the slide does not say
            its resolution or has a coarser one.
    """
    openslide = _openslide(path)
    if not path.exists():
        raise no_image(path)
    try:
        opened = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        fix = "Save it as a tiled, pyramidal tif, or leave out --mpp if it is an image"
        raise ClipItError(f"no slide that OpenSlide reads ({error})", path, fix) from error
    if own is None:
        across, down = (
            float(opened.properties.get(f"openslide.mpp-{axis}", 0)) for axis in ("x", "y")
        )
        if not across or abs(down - across) > 0.05 * across:
            what = (
                f"pixels of {across:g} by {down:g} microns" if across or down else "no resolution"
            )
            fix = "Give its microns per pixel: --mpp-of-slide"
            raise ClipItError(f"the slide says {what}", path, fix)
        own = (across + down) / 2
    if own > 1.1 * resolution:
        what = f"the slide has {own:g} microns per pixel, coarser than --mpp {resolution:g}"
        raise ClipItError(what, path, f"Ask for --mpp {own:.2g}, or correct it by --mpp-of-slide")
    return Slide(path, opened, resolution / own)


def tissue(overview: Image.Image) -> tuple[Bool[np.ndarray, "h w"], int]:
    """Where an RGB overview is more saturated than glass, and from which saturation (of 255) on."""
    saturation = np.asarray(overview.convert("HSV"))[..., 1]
    threshold = int(np.clip(otsu(saturation), GLASS, STAINED))
    return saturation > threshold, threshold


def otsu(values: UInt8[np.ndarray, "h w"]) -> int:
    """The largest value of the lower of two groups, between which most of the variance lies.

    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9 (1979) 62-66. Of one value alone: 0.
    """
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    lower, total = counts.cumsum(), (counts * np.arange(256)).cumsum()
    apart = (total[-1] * lower - total * lower[-1]) ** 2
    weights = lower * (lower[-1] - lower)
    return int(np.divide(apart, weights, out=np.zeros(256), where=weights > 0).argmax())
