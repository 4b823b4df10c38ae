"""The command `predict`: class probabilities of images or of tiles of large ones."""

from __future__ import annotations

import csv
import math
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipit_lib.data.images import (
    SUFFIXES,
    decode_image,
    fitted,
    image_files,
    is_image,
    passed_over,
    read_image,
    visible,
)
from clipit_lib.errors import ClipItError
from clipit_lib.predict import ImageClassifier
from companion.exported import load_classifier

# -- Images by files and folders, and the csv that answers them.


def listed_images(given: Iterable[Path]) -> list[Path]:
    """The given files, and the images in the given folders (see `image_files`), by name.

    What was passed over in a folder is said on standard error.

    Raises:
        ClipItError: a folder holds no image.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        within, others = image_files(path)
        if not within:
            what = "; ".join(["no images in this folder", *passed_over(others)])
            raise ClipItError(what, path, f"Known: {' '.join(sorted(SUFFIXES))}")
        for said in passed_over(others):
            print(f"{visible(path)}: {said}", file=sys.stderr)
        found += [path / name for name in within]
    return found


@contextmanager
def csv_rows(output: Path | None, head: Sequence[str]) -> Iterator[Callable[[Iterable[Any]], Any]]:
    """What writes a row below `head`: to standard output, or to a file that is whole or absent.

    Rows go to OUTPUT.part as they come. It becomes OUTPUT when all are there; whatever fails, it
    stays and is named, and is written again if it was removed meanwhile. A pipe or a device gets
    the rows itself.

    Raises:
        ClipItError: the file cannot be written.
    """
    part = None
    try:
        with ExitStack() as opened:
            stream: Any = sys.stdout
            if output is not None:
                output = output.absolute()  # "." has no name
                if output.is_dir():
                    raise ClipItError("this is a folder", output, "Name a file")
                if output.is_file() and is_image(output.name):
                    raise ClipItError("this is an image", output, "Name another file")
                if output.is_file() or not output.exists():
                    part = output.with_name(f"{output.name}.part")
                    part.parent.mkdir(parents=True, exist_ok=True)
                mode = "w+" if part else "w"
                stream = opened.enter_context(
                    (part or output).open(mode, encoding="utf-8", newline="")
                )
            writer = csv.writer(stream, lineterminator="\n")

            def write(row: Iterable[Any]) -> None:
                writer.writerow(row)
                stream.flush()  # so that nothing later can lose it

            try:
                write(head)
                yield write
            finally:
                if part and not part.exists():
                    stream.seek(0)
                    part.parent.mkdir(parents=True, exist_ok=True)
                    part.write_text(stream.read(), encoding="utf-8", newline="")
        if part and output:
            part.replace(output)
    except BaseException as error:
        if part and part.exists():
            print(f"{part}: the answers so far are kept here", file=sys.stderr)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            if output is None:  # what is left in the buffer would fail again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            what, where = f"writing failed ({error.strerror})", output or "standard output"
            raise ClipItError(what, where, "Free space, or name a file you may write") from error
        raise


def conclude(unread: Sequence[ClipItError], images: int, allowed: bool = False) -> None:
    """Say what could not be read of so many images.

    Raises:
        ClipItError: some could not, and that is not allowed.
    """
    if images == 1 and unread and not allowed:
        raise unread[0]
    for error in unread:
        print(f"not answered: {error}", file=sys.stderr)
    if unread and not allowed:
        what = f"{len(unread)} of {images} images could not be read"
        raise ClipItError(what, "predict", "They are named above; all others are answered")


def cells(row: Float[np.ndarray, " c"] | ClipItError | None, classes: Sequence[str]) -> list[str]:
    """The most probable class and all probabilities; empty where there is no answer."""
    if not isinstance(row, np.ndarray):
        return [""] * (1 + len(classes))
    return [classes[int(row.argmax())], *(f"{value:.4f}" for value in row)]


# -- Large images, tile by tile: where in the image is which class?
#
# Pillow decodes an image as a whole, at four bytes a pixel; beside it only one batch of tiles is
# held. Whole slides (svs, ndpi, mrxs) are not read: cut a region out of them first.


BATCH = 64
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

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Upper left corner (x, y) of every tile."""
        across, down = (
            [*range(0, length - self.side, self.stride), length - self.side]
            for length in (self.width, self.height)
        )
        return [(x, y) for y in down for x in across]


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


def classified(
    image: Image.Image, grid: Grid, classify: Classify, size: int, background: float
) -> Iterator[Tile]:
    """Every tile of the grid with its answer, a batch in memory at a time.

    Args:
        size: side of the classifier's input; a tile is resized as a patch is.
        background: tiles below this mean optical density are left out; 0 leaves none out.
    """
    corners = grid.corners
    for begin in range(0, len(corners), BATCH):
        block = corners[begin : begin + BATCH]
        crops = [image.crop((x, y, x + grid.side, y + grid.side)) for x, y in block]
        densities = [optical_density(np.asarray(crop)) for crop in crops]
        kept = [c for c, density in zip(crops, densities, strict=True) if density >= background]
        found = iter(classify(np.stack([fitted(c, size) for c in kept])).numpy() if kept else ())
        for (x, y), density in zip(block, densities, strict=True):
            yield Tile(x, y, density, next(found) if density >= background else None)


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


THUMBNAIL = 900  # longer side of the picture and of the probability maps, in pixels
PICTURES = (".png", ".pdf", ".svg")


def _check(given: Namespace) -> None:
    """Raises ClipItError if the options do not go together."""
    if given.tiles is None:
        if given.stride or given.heatmap or given.of_class:
            what = "--stride, --heatmap and --class are of tiles"
            raise ClipItError(what, "predict", "Add --tiles SIDE")
        return
    if given.skip_unreadable:
        what = "--skip-unreadable is of patches, not of tiles"
        raise ClipItError(what, "predict", "Leave one of them out")
    for name in ("tiles", "stride", "max_megapixels"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ClipItError(f"{value}", f"--{name.replace('_', '-')}", "Give a number above zero")
    if not given.background >= 0:
        raise ClipItError(f"{given.background}", "--background", "Give a number, 0 or more")
    if given.heatmap and given.heatmap.exists() and given.heatmap.samefile(given.images[0]):
        raise ClipItError("this is the image itself", "--heatmap", "Name another file")
    if given.heatmap and (len(given.images) > 1 or given.images[0].is_dir()):
        raise ClipItError("several images", "--heatmap", "Name the one image to draw")
    if given.heatmap and given.heatmap.suffix.lower() not in PICTURES:
        what = f"the picture {given.heatmap}"
        raise ClipItError(what, "--heatmap", f"End it in {' or '.join(PICTURES)}")


def answers(
    classifier: ImageClassifier, images: Sequence[Path], odd: Counter[str]
) -> Iterator[tuple[Path, Float[np.ndarray, " c"] | ClipItError]]:
    """Each image with its class probabilities, or with what is wrong with it.

    A batch is in memory at a time; `odd` counts what is unusual in them.
    """
    for begin in range(0, len(images), BATCH):
        block = images[begin : begin + BATCH]
        decoded: list[UInt8[np.ndarray, "s s 3"] | ClipItError] = []
        for path in block:
            try:
                decoded.append(decode_image(path, classifier.transform.size, odd=odd))
            except ClipItError as error:
                decoded.append(error)
        readable = [pixels for pixels in decoded if isinstance(pixels, np.ndarray)]
        found = iter(classifier.probabilities(np.stack(readable)).numpy() if readable else ())
        for path, pixels in zip(block, decoded, strict=True):
            yield path, pixels if isinstance(pixels, ClipItError) else next(found)


def main(given: Namespace) -> None:
    """Class probabilities of images or their tiles, as csv."""
    _check(given)
    classifier = load_classifier(given.model)
    if given.tiles is not None:
        predict_tiles(given, classifier)
        return
    images, unread = listed_images(given.images), list[ClipItError]()
    odd = Counter[str]()
    with csv_rows(given.output, ["image", "prediction", *classifier.classes]) as write:
        for path, row in tqdm(
            answers(classifier, images, odd), total=len(images), unit="image", disable=None
        ):
            write([visible(path), *cells(row, classifier.classes)])
            if isinstance(row, ClipItError):
                unread.append(row)
        for what, count in odd.items():
            print(f"{count} of {len(images)} images are {what}", file=sys.stderr)
        conclude(unread, len(images), given.skip_unreadable)


def predict_tiles(given: Namespace, classifier: ImageClassifier) -> None:
    """Write the csv of all tiles of the given images and, if asked for, the heat map."""
    classes, size = classifier.classes, classifier.transform.size
    if given.of_class and given.of_class not in classes:
        raise ClipItError(f"no class {given.of_class!r}", "--class", f"One of {', '.join(classes)}")
    head = ["image", "x", "y", "side", "optical_density", "prediction", *classes]
    images, unread = listed_images(given.images), list[ClipItError]()
    with csv_rows(given.output, head) as write:
        for path in images:
            try:
                image = read_image(path, megapixels=given.max_megapixels)
                if given.tiles > (most := min(image.size)):
                    size_of = f"larger than the image ({image.width} x {image.height})"
                    what = f"a tile of {given.tiles} pixels is {size_of}"
                    raise ClipItError(what, path, f"Choose --tiles up to {most}")
            except ClipItError as error:
                unread.append(error)
                continue
            grid = Grid(*image.size, given.tiles, given.stride or given.tiles)
            found = classified(image, grid, classifier.probabilities, size, given.background)
            tiles, said = [], ""
            for tile in tqdm(found, total=len(grid.corners), unit="tile", disable=None):
                tiles.append(tile)
                place = [visible(path), tile.x, tile.y, grid.side, f"{tile.density:.4f}"]
                write([*place, *cells(tile.probabilities, classes)])
            if left_out := sum(tile.probabilities is None for tile in tiles):
                below = f"(mean optical density below {given.background:g})"
                said = f"{left_out} of {len(tiles)} tiles left out as background {below}"
                print(f"{visible(path)}: {said}", file=sys.stderr)
            if given.heatmap:
                from companion.figures import heat_map  # loaded only where something is drawn

                scale = min(1.0, THUMBNAIL / max(image.size))
                maps = probability_maps(tiles, grid, len(classes), scale)
                shown = {
                    name: each
                    for name, each in zip(classes, maps, strict=True)
                    if given.of_class in (None, name)
                }
                small = np.asarray(image.reduce(max(1, math.floor(1 / scale))))
                figure = heat_map.heat_map(small, shown, image.size, grid.side, said)
                heat_map.save(figure, given.heatmap)
        conclude(unread, len(images))
