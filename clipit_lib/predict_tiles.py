"""`predict --tiles`: the csv of every tile of large images, and a heat map of one."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clipit_lib.deployment import listing
from clipit_lib.errors import ClipItError
from clipit_lib.tiles import (
    BACKGROUND,
    MEGAPIXELS,
    Classify,
    Grid,
    Tile,
    classified,
    grid_of,
    left_out_words,
    open_image,
    probability_maps,
)

THUMBNAIL = 900  # longer side of the picture and of the probability maps, in pixels
PICTURES = (".png", ".pdf", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `predict` takes for tiles."""
    group = parser.add_argument_group("large images, tile by tile (read by Pillow, as a whole)")
    group.add_argument("--tiles", type=int, metavar="SIDE", help="side of a tile in pixels")
    group.add_argument("--stride", type=int, help="from tile to tile in pixels (default: the side)")
    group.add_argument("--heatmap", type=Path, metavar="PNG", help="draw the probabilities here")
    group.add_argument("--class", dest="of_class", help="draw this class only")
    group.add_argument(
        "--background",
        type=float,
        default=BACKGROUND,
        metavar="DENSITY",
        help="leave out tiles below this mean optical density (default: %(default)s; 0: none)",
    )
    group.add_argument(
        "--max-megapixels",
        type=int,
        default=MEGAPIXELS,
        metavar="N",
        help="refuse larger images; a megapixel takes 4 MB of memory (default: %(default)s)",
    )


def check_arguments(given: argparse.Namespace) -> None:
    """Raises ClipItError if the options do not go together."""
    if given.tiles is None:
        if given.stride or given.heatmap or given.of_class:
            raise ClipItError(
                "--stride, --heatmap and --class are of tiles", "predict", "Add --tiles SIDE"
            )
        return
    if given.skip_unreadable:
        raise ClipItError(
            "--skip-unreadable is of patches, not of tiles", "predict", "Leave one of them out"
        )
    for name in ("tiles", "stride", "max_megapixels"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ClipItError(f"{value}", f"--{name.replace('_', '-')}", "Give a number above zero")
    if given.heatmap and (len(given.images) > 1 or given.images[0].is_dir()):
        raise ClipItError("several images", "--heatmap", "Name the one image to draw")
    if given.heatmap and given.heatmap.suffix.lower() not in PICTURES:
        raise ClipItError(
            f"the picture {given.heatmap}", "--heatmap", f"End it in {' or '.join(PICTURES)}"
        )


def main(
    given: argparse.Namespace, classify: Classify, size: int, classes: tuple[str, ...]
) -> None:
    """Write the csv of all tiles of the given images and, if asked for, the heat map.

    Args:
        size: side of the classifier's input in pixels.
    """
    if given.of_class and given.of_class not in classes:
        raise ClipItError(f"no class {given.of_class!r}", "--class", f"One of {', '.join(classes)}")
    with listing.csv_stream(given.output) as stream:
        head = ["image", "x", "y", "side", "optical_density", "prediction", *classes]
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        for path in listing.images(given.images):
            image = open_image(path, given.max_megapixels)
            grid = grid_of(image, given.tiles, given.stride or given.tiles, path)
            found = classified(image, grid, classify, size, given.background)
            shown = tqdm(found, total=len(grid), unit="tile", disable=None)
            tiles = []
            for tile in shown:
                tiles.append(tile)
                writer.writerow(_row(tile, path, grid.side, classes))
            if said := left_out_words(tiles, given.background):
                print(f"{path}: {said}", file=sys.stderr)
            if given.heatmap:
                _draw(given, image, grid, tiles, classes)


def _row(tile: Tile, path: Path, side: int, classes: tuple[str, ...]) -> list[object]:
    place = [str(path), tile.x, tile.y, side, f"{tile.density:.4f}"]
    return [*place, *listing.cells(tile.probabilities, classes)]


def _draw(
    given: argparse.Namespace,
    image: Image.Image,
    grid: Grid,
    tiles: list[Tile],
    classes: tuple[str, ...],
) -> None:
    from clipit_lib.figures import heat_map  # drawing is loaded only where something is drawn

    scale = min(1.0, THUMBNAIL / max(image.size))
    maps = probability_maps(tiles, grid, len(classes), scale)
    drawn = [i for i, name in enumerate(classes) if given.of_class in (None, name)]
    figure = heat_map.heat_map(
        np.asarray(image.reduce(max(1, math.floor(1 / scale)))),
        {classes[i]: maps[i] for i in drawn},
        image.size,
        grid.side,
        left_out_words(tiles, given.background),
    )
    heat_map.save(figure, given.heatmap)
