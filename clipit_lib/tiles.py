"""Large images, tile by tile: where in the image is which class?

Pillow decodes an image as a whole, at four bytes a pixel; beside it only one batch of tiles is
held. Whole slides (svs, ndpi, mrxs) are not read: cut a region out of them first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from clipit_lib.errors import ClipItError

BATCH = 64
MEGAPIXELS = 200  # 0.8 GB decoded
# White glass of value 245 has 0.017. Fat is hardly denser (0.02 to 0.08 in the phantom): a higher
# threshold would leave it out.
BACKGROUND = 0.02

Classify = Callable[[UInt8[np.ndarray, "n s s 3"]], Float[Tensor, "n c"]]


@dataclass(frozen=True)
class Grid:
    """Square tiles over an image, row by row.

    The last tile of a row or column is moved inward, so that all of the image is covered (with a
    stride up to the side) and every tile is whole: none is padded.

    Attributes:
        side, stride: of a tile, and from one to the next, in pixels of the image.
    """

    width: int
    height: int
    side: int
    stride: int

    def __len__(self) -> int:
        return len(self._starts(self.width)) * len(self._starts(self.height))

    def corners(self) -> Iterator[tuple[int, int]]:
        """Upper left corner (x, y) of every tile."""
        for y in self._starts(self.height):
            for x in self._starts(self.width):
                yield x, y

    def _starts(self, length: int) -> list[int]:
        last = length - self.side
        return [*range(0, last, self.stride), last]


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        x, y: its upper left corner in pixels.
        density: mean optical density, -log10 of the transmitted light.
        probabilities: [c], None where the tile was left out as background.
    """

    x: int
    y: int
    density: float
    probabilities: Float[np.ndarray, " c"] | None


def open_image(path: Path, megapixels: int = MEGAPIXELS) -> Image.Image:
    """Decode a large image as RGB.

    Raises:
        ClipItError: missing, unreadable, or of more than so many megapixels.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = megapixels * 10**6  # Pillow's own guard, which is for all images
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.load()
            # The file is closed here; what was decoded stays.
            return image if image.mode == "RGB" else image.convert("RGB")
    except FileNotFoundError as error:
        raise ClipItError("no such image", path, "Name an existing file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ClipItError(
            f"more than {megapixels} megapixels, which take {megapixels * 4 / 1000:.1f} GB of "
            "memory",
            path,
            "Raise --max-megapixels, or cut the image",
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ClipItError("not a readable image or cut short", path, "Replace it") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def grid_of(image: Image.Image, side: int, stride: int, path: Path) -> Grid:
    """Tiles over an image.

    Raises:
        ClipItError: a tile is larger than the image.
    """
    if side > min(image.size):
        raise ClipItError(
            f"a tile of {side} pixels is larger than the image ({image.width} x {image.height})",
            path,
            f"Choose --tiles up to {min(image.size)}",
        )
    return Grid(image.width, image.height, side, stride)


def classified(
    image: Image.Image, grid: Grid, classify: Classify, size: int, background: float
) -> Iterator[Tile]:
    """Every tile of the grid with its answer, a batch in memory at a time.

    Args:
        size: side of the classifier's input; a tile is resized as `decode_image` does a patch.
        background: tiles below this mean optical density are left out; 0 leaves none out.
    """
    corners = list(grid.corners())
    for begin in range(0, len(corners), BATCH):
        block = corners[begin : begin + BATCH]
        crops = [image.crop((x, y, x + grid.side, y + grid.side)) for x, y in block]
        densities = [optical_density(np.asarray(crop)) for crop in crops]
        kept = [c for c, density in zip(crops, densities, strict=True) if density >= background]
        found = iter(classify(np.stack([_fitted(c, size) for c in kept])).numpy() if kept else ())
        for (x, y), density in zip(block, densities, strict=True):
            yield Tile(x, y, density, next(found) if density >= background else None)


def _fitted(crop: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    if crop.size != (size, size):
        crop = ImageOps.fit(crop, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(crop)


def optical_density(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    """Mean over pixels and channels of -log10((value + 1) / 256)."""
    return float(-np.log10((pixels.astype(np.float32) + 1) / 256).mean())


def probability_maps(
    tiles: Sequence[Tile], grid: Grid, classes: int, scale: float
) -> Float[np.ndarray, "c h w"]:
    """Each class's probability over the image, the mean of the tiles that cover a point.

    NaN where no tile was classified.

    Args:
        scale: pixels of the map for one of the image.
    """
    height, width = (max(1, round(length * scale)) for length in (grid.height, grid.width))
    total, count = np.zeros((classes, height, width)), np.zeros((height, width))
    for tile in tiles:
        if tile.probabilities is not None:
            x, y, right, below = (
                round(value * scale)
                for value in (tile.x, tile.y, tile.x + grid.side, tile.y + grid.side)
            )
            total[:, y:below, x:right] += tile.probabilities[:, None, None]
            count[y:below, x:right] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def left_out_words(tiles: Sequence[Tile], background: float) -> str:
    """How many tiles were left out, and why; nothing if none was."""
    count = sum(tile.probabilities is None for tile in tiles)
    if count == 0:
        return ""
    return (
        f"{count} of {len(tiles)} tiles left out as background (mean optical density below "
        f"{background:g})"
    )
