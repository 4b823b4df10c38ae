"""Where in a large image the classifier sees each class."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clipit_lib.files import written_beside
from companion.figures.style import have_fonts_for, plain, styled

COLOURS = "cividis"  # sequential, and the same to colour-blind readers
LEFT_OUT = "#D9D9D9"
WIDTH = 7.2  # inches


def heat_map(
    image: UInt8[np.ndarray, "h w 3"],
    maps: dict[str, Float[np.ndarray, "rows columns"]],
    size: tuple[int, int],
    side: int,
    note: str = "",
) -> Figure:
    """The image beside one probability map per class, all in pixels of the full image.

    Args:
        image: the image or a smaller copy of it.
        maps: by class; NaN, where nothing was classified, is grey.
        size: width and height of the full image.
        side: of a tile, drawn in the image's upper left corner.
        note: what the grey areas are.
    """
    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    width, height = size
    share = 0.45 if len(maps) > 1 else 0.5  # of the figure's width, for the image
    # Axes take what labels (left) and the colour bar (right) leave; titles take 0.28 inches each.
    panels_tall = rows * (WIDTH * (1 - share) * 0.8 / columns * height / width + 0.28)
    image_tall = WIDTH * share * 0.88 * height / width + 0.75
    extent = (0, width, height, 0)
    with styled():
        have_fonts_for(maps)
        figure = plt.figure(
            figsize=(WIDTH, max(panels_tall, image_tall) + 0.3), layout="constrained"
        )
        parts: Any = figure.subfigures(1, 2, width_ratios=(share, 1 - share))
        left, right = parts
        axis = left.subplots()
        axis.imshow(image, extent=extent)
        axis.add_patch(Rectangle((0, 0), side, side, fill=False, edgecolor="black", linewidth=1.2))
        axis.set(title="image", xlabel=f"pixels (box: one tile, {side})")
        axis.tick_params(labelsize=8)
        panels = right.subplots(rows, columns, squeeze=False)
        colours: Any = mpl.colormaps[COLOURS].with_extremes(bad=LEFT_OUT)
        for panel in panels.flat:
            panel.axis("off")
        for panel, (name, values) in zip(panels.flat, maps.items(), strict=False):
            drawn = panel.imshow(values, extent=extent, vmin=0, vmax=1, cmap=colours)
            panel.set_title(plain(name), fontsize=9)
        right.colorbar(drawn, ax=panels, label="probability", fraction=0.05, aspect=30)
        if note:
            figure.supxlabel(f"grey: {note}", fontsize=8, x=0.01, ha="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as its file's ending says, and close it."""
    with written_beside(path) as temporary, styled():
        figure.savefig(temporary, format=path.suffix[1:].lower(), bbox_inches="tight")
    plt.close(figure)
