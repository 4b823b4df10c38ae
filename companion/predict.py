"""The command `predict`: class probabilities of images or of tiles of large ones."""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
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
from clipit_lib.files import written_beside
from clipit_lib.predict import ImageClassifier
from companion import slides
from companion.exported import load_classifier, load_graph

# -- Images by files and folders, and the csv that answers them.


def listed_images(given: Iterable[Path], suffixes: Collection[str] = SUFFIXES) -> list[Path]:
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
        within, others = image_files(path, suffixes)
        if not within:
            what = "; ".join(["no images in this folder", *passed_over(others)])
            raise ClipItError(what, path, f"Known: {' '.join(sorted(suffixes))}")
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
        raise ClipItError(what, "images", "They are named above; all others are answered")


def cells(row: Float[np.ndarray, " c"] | ClipItError | None, classes: Sequence[str]) -> list[str]:
    """The most probable class and all probabilities; empty where there is no answer."""
    if not isinstance(row, np.ndarray):
        return [""] * (1 + len(classes))
    return [classes[int(row.argmax())], *(f"{value:.4f}" for value in row)]


# -- Large images and whole slides, tile by tile: where in the image is which class?
#
# Pillow decodes an image as a whole, at four bytes a pixel; beside it only one batch of tiles is
# held. A slide is never decoded as a whole.


BATCH = 64
TISSUE = 0.25  # of a tile's area, at least, where tissue is sought
Classify = Callable[[UInt8[np.ndarray, "n s s 3"]], Float[Tensor, "n c"]]


@dataclass(frozen=True)
class Grid:
    """Square tiles over an image, row by row.

    The last tile of a row or column is moved inward, so that all of the image is covered (with a
    stride up to the side) and every tile is whole: none is padded.

    Attributes:
        side, stride: of a tile, and from one to the next, in pixels of the image.
        tissue: where it is, in an overview of the image; tiles that show less of it than `TISSUE`
            are none. None: everywhere.
    """

    width: int
    height: int
    side: int
    stride: int
    tissue: Bool[np.ndarray, "h w"] | None = None

    @cached_property
    def corners(self) -> list[tuple[int, int]]:
        """Upper left corner (x, y) of every tile."""
        across, down = (
            [*range(0, length - self.side, self.stride), length - self.side]
            for length in (self.width, self.height)
        )
        return [(x, y) for y in down for x in across if self._shows_tissue(x, y)]

    def _shows_tissue(self, x: int, y: int) -> bool:
        if self.tissue is None:
            return True
        down, across = np.divide(self.tissue.shape, (self.height, self.width))
        rows = slice(int(y * down), int(y * down) + max(1, round(self.side * down)))
        columns = slice(int(x * across), int(x * across) + max(1, round(self.side * across)))
        return bool(self.tissue[rows, columns].mean() >= TISSUE)


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
    image: Image.Image | slides.Slide, grid: Grid, classify: Classify, size: int, background: float
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


def features(
    tiles: Iterable[Tile], side: int, colours: Mapping[str, Sequence[int]], origin: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """Every classified tile as GeoJSON (RFC 7946) that QuPath (0.4 or later) opens.

    Args:
        colours: red, green and blue of each class, in the order of the probabilities.
        origin: what QuPath counts pixels from.
    """
    names = list(colours)
    for tile in tiles:
        if tile.probabilities is None:
            continue
        left, top = tile.x - origin[0], tile.y - origin[1]
        right, below = left + side, top + side
        ring = [[left, top], [right, top], [right, below], [left, below], [left, top]]
        best = names[int(tile.probabilities.argmax())]
        shares = (round(float(each), 4) for each in tile.probabilities)
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "objectType": "tile",
                "classification": {"name": best, "color": list(colours[best])},
                "measurements": {f"prob_{n}": p for n, p in zip(names, shares, strict=True)},
            },
        }


def write_geojson(path: Path, found: Iterable[dict[str, Any]]) -> None:
    """Write features as one FeatureCollection, a line each."""
    with written_beside(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(found):
            stream.write((",\n" if number else "\n") + json.dumps(feature))
        stream.write("\n]}\n")


THUMBNAIL = 900  # longer side of the picture and of the probability maps, in pixels
DRAWN = {"heatmap": (".png", ".pdf", ".svg"), "geojson": (".geojson", ".json")}


def check(given: Namespace) -> None:
    """Raises ClipItError if the options of a command, which may have fewer, do not go together."""
    said, where = vars(given), given.command
    if given.tiles is None:
        of_tiles = ("stride", "heatmap", "geojson", "of_class", "mpp", "mpp_of_slide")
        if any(said.get(name) for name in of_tiles):
            what = "--stride, --heatmap, --geojson, --class and --mpp are of tiles"
            raise ClipItError(what, where, "Add --tiles SIDE")
    elif said.get("skip_unreadable"):
        what = "--skip-unreadable is of patches, not of tiles"
        raise ClipItError(what, where, "Leave one of them out")
    if given.mpp is None:
        if given.mpp_of_slide is not None:
            raise ClipItError("--mpp-of-slide is of whole slides", where, "Add --mpp")
        for path in given.images:
            if path.suffix.lower() in slides.SCANS:
                raise ClipItError("a whole slide", path, "Add --tiles SIDE --mpp MICRONS")
    for name in ("tiles", "stride", "max_megapixels", "mpp", "mpp_of_slide"):
        value = said.get(name)
        if value is not None and not 0 < value < float("inf"):
            raise ClipItError(f"{value}", f"--{name.replace('_', '-')}", "Give a number above zero")
    if not given.background >= 0:
        raise ClipItError(f"{given.background}", "--background", "Give a number, 0 or more")
    for name, endings in DRAWN.items():
        path = said.get(name)
        if path and path.exists() and path.samefile(given.images[0]):
            raise ClipItError("this is the image itself", f"--{name}", "Name another file")
        if path and (len(given.images) > 1 or given.images[0].is_dir()):
            raise ClipItError("several images", f"--{name}", "Name the one image to draw")
        if path and path.suffix.lower() not in endings:
            fix = f"End it in {' or '.join(endings)}"
            raise ClipItError(f"the file {path}", f"--{name}", fix)


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
    check(given)
    classifier = load_graph(given.model) if given.int8 else load_classifier(given.model)
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
    """Write the csv of all tiles of the given images or slides, and what else was asked for."""
    classes = classifier.classes
    if given.of_class and given.of_class not in classes:
        raise ClipItError(f"no class {given.of_class!r}", "--class", f"One of {', '.join(classes)}")
    head = ["image", "x", "y", "side", "optical_density", "prediction", *classes]
    images = listed_images(given.images, slides.SUFFIXES if given.mpp else SUFFIXES)
    unread = list[ClipItError]()
    with csv_rows(given.output, head) as write:
        for path in images:
            try:
                _predict_tiles_of(path, given, classifier, write)
            except ClipItError as error:
                unread.append(error)
        conclude(unread, len(images))


def gridded(
    path: Path, given: Namespace
) -> tuple[slides.Slide | Image.Image, Image.Image, Grid, list[str]]:
    """An image, or with --mpp a whole slide; a picture of all of it, its tiles, and what to say.

    Raises:
        ClipItError: it cannot be read, is smaller than a tile, or does not say its resolution.
    """
    mask, said = None, list[str]()
    slide = slides.open_slide(path, given.mpp, given.mpp_of_slide) if given.mpp else None
    picture = slide.overview if slide else read_image(path, megapixels=given.max_megapixels)
    source: slides.Slide | Image.Image = slide or picture
    scale = slide.scale if slide else 1.0
    stride = vars(given).get("stride") or given.tiles
    side, stride = (round(each * scale) for each in (given.tiles, stride))
    if side > (most := min(source.size)):
        size_of = "larger than the image ({} x {})".format(*source.size)
        what = f"a tile of {side} pixels is {size_of}"
        raise ClipItError(what, path, f"Choose --tiles up to {int(most / scale)}")
    if slide and given.background > 0:
        mask, threshold = slides.tissue(picture)
        where = f"tissue (saturation above {threshold} of 255) on {mask.mean():.1%} of the slide"
        said.append(f"{where}, other tiles left out")
    return source, picture, Grid(*source.size, side, stride, mask), said


def _predict_tiles_of(
    path: Path, given: Namespace, classifier: ImageClassifier, write: Callable[[Iterable[Any]], Any]
) -> None:
    classes, background = classifier.classes, given.background
    source, picture, grid, said = gridded(path, given)
    side, size = grid.side, classifier.transform.size
    found = classified(source, grid, classifier.probabilities, size, background)
    tiles = []
    for tile in tqdm(found, total=len(grid.corners), unit="tile", disable=None):
        tiles.append(tile)
        place = [visible(path), tile.x, tile.y, side, f"{tile.density:.4f}"]
        write([*place, *cells(tile.probabilities, classes)])
    if left_out := sum(tile.probabilities is None for tile in tiles):
        below = f"(mean optical density below {background:g})"
        said.append(f"{left_out} of {len(tiles)} tiles left out as background {below}")
    for each in said:
        print(f"{visible(path)}: {each}", file=sys.stderr)
    if not (given.geojson or given.heatmap):
        return
    from companion.figures import space, style  # loaded only where something is drawn

    if given.geojson:
        hues = zip(classes, itertools.cycle(style.CYCLE), strict=False)
        colours = {name: list(bytes.fromhex(hue[1:])) for name, hue in hues}
        origin = source.origin if isinstance(source, slides.Slide) else (0, 0)
        write_geojson(given.geojson, features(tiles, side, colours, origin))
    if given.heatmap:
        scale = min(1.0, THUMBNAIL / max(source.size))
        maps = zip(classes, probability_maps(tiles, grid, len(classes), scale), strict=True)
        shown = {name: each for name, each in maps if given.of_class in (None, name)}
        small = np.asarray(picture.reduce(max(1, max(picture.size) // THUMBNAIL)))
        figure = space.heat_map(small, shown, source.size, side, "; ".join(said))
        style.write(figure, given.heatmap)
