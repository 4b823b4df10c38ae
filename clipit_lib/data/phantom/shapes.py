"""Drawings of coloured shapes with captions: what a CLIP learns from that never saw tissue."""

from __future__ import annotations

import numpy as np

COLOURS = {
    "red": (210, 50, 45), "green": (60, 160, 75), "blue": (50, 90, 200), "yellow": (235, 205, 60),
    "white": (245, 245, 245), "black": (25, 25, 25), "orange": (235, 140, 40),
    "purple": (130, 60, 160), "pink": (240, 150, 190), "grey": (128, 128, 128),
}  # fmt: skip
SHAPES = ("circle", "square", "stripe", "ring", "triangle")
SIZES = {"small": 0.12, "large": 0.26}
COUNTS = {1: "one", 2: "two", 3: "three"}
FRAMES = ("{}", "a drawing of {}", "a picture with {}", "this image shows {}")
SHAPES_KEY = 5000  # first spawn key of a seed stream that no data set, caption or report uses


def draw_shapes(images: int, side: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Pixels [images, side, side, 3] uint8 and one caption each."""
    seeds = np.random.SeedSequence(seed, spawn_key=(SHAPES_KEY,))
    rng = np.random.default_rng(seeds)
    pixels = np.empty((images, side, side, 3), np.uint8)
    captions = []
    for row in range(images):
        pixels[row], caption = _drawing(side, rng)
        captions.append(caption)
    return pixels, captions


def _drawing(side: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    ground, colour = rng.choice(list(COLOURS), 2, replace=False)
    shape, size = str(rng.choice(SHAPES)), str(rng.choice(list(SIZES)))
    count = int(rng.integers(1, 4))
    image = np.tile(np.array(COLOURS[ground], np.float64), (side, side, 1))
    for _ in range(count):
        image[_mask(shape, SIZES[size], side, rng)] = COLOURS[colour]
    image += rng.normal(0, 8, image.shape)
    plural = "" if count == 1 else "s"
    what = f"{COUNTS[count]} {size} {colour} {shape}{plural} on a {ground} ground"
    caption = str(rng.choice(FRAMES)).format(what)
    return np.clip(image, 0, 255).astype(np.uint8), caption


def _mask(shape: str, radius: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """[side, side] bool of one shape at a random place; `radius` is a share of the side."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    middle = rng.uniform(0.2, 0.8, 2)
    y, x = rows - middle[0], columns - middle[1]
    distance = np.hypot(x, y)
    masks = {
        "circle": distance < radius,
        "square": np.maximum(abs(x), abs(y)) < radius,
        "stripe": abs(x) < radius / 3,
        "ring": (distance < radius) & (distance > 0.6 * radius),
        "triangle": (y < radius) & (y > 2 * abs(x) - radius),
    }
    return np.asarray(masks[shape])
