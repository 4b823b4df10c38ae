"""Whole slides: tiles of a resolution, on tissue alone, placed in pixels of level 0."""

from __future__ import annotations

import csv
import json
import struct
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from torch import nn

from clipit_lib.data.patches import Transform
from clipit_lib.errors import ClipItError
from clipit_lib.model import Output
from clipit_lib.predict import ImageClassifier
from companion import predict, slides
from companion.__main__ import main
from companion.predict import Grid, Tile

SIDE = 32

try:
    import openslide
except ImportError:
    openslide = None
with_openslide = pytest.mark.skipif(openslide is None, reason="the extra `slides` is not installed")


def pyramid(path: Path, levels: Sequence[np.ndarray], resolution: float = 0) -> Path:
    """Write levels as a tiled TIFF, uncompressed, of so many microns per pixel (0: not said).

    OpenSlide takes a later page for a level if its NewSubfileType says that it is a smaller copy.
    """
    content, link, side = bytearray(b"II*\0\0\0\0\0"), 4, 64

    def placed(form: str, *numbers: int) -> int:
        content.extend(struct.pack(f"<{form}", *numbers))
        return len(content) - struct.calcsize(f"<{form}")

    for number, level in enumerate(levels):
        height, width = level.shape[:2]
        whole = np.pad(level, ((0, -height % side), (0, -width % side), (0, 0)))
        begins = []
        for y in range(0, height, side):
            for x in range(0, width, side):
                begins.append(len(content))
                content.extend(whole[y : y + side, x : x + side].tobytes())
        count, size = len(begins), side * side * 3
        assert count > 1  # one offset would stand in the tag itself
        per_centimetre = placed("II", 10**7, round(resolution * 1000))
        tags = [  # tag, type (3: 16 bits, 4: 32 bits, 5: fraction), count, value or its place
            (254, 4, 1, number > 0), (256, 4, 1, width), (257, 4, 1, height),
            (258, 3, 3, placed("3H", 8, 8, 8)), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
            *((tag, 5, 1, per_centimetre) for tag in (282, 283) if resolution),
            (284, 3, 1, 1), (296, 3, 1, 3 if resolution else 1), (322, 4, 1, side),
            (323, 4, 1, side), (324, 4, count, placed(f"{count}I", *begins)),
            (325, 4, count, placed(f"{count}I", *[size] * count)),
        ]  # fmt: skip
        struct.pack_into("<I", content, link, len(content))
        placed("H", len(tags))
        for tag in tags:
            placed("HHII", *tag)
        link = placed("I", 0)
    path.write_bytes(content)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


class Colours(nn.Module):
    """Answers by the mean of each channel, so that hardly two tiles have the same probabilities."""

    def forward(self, images: torch.Tensor) -> Output:
        return Output(5 * images.mean(dim=(2, 3)))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> str:
    transform = Transform(size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    classifier = ImageClassifier(Colours().eval(), transform, ("red", "green", "blue"))
    monkeypatch.setattr(predict, "load_classifier", lambda folder: classifier)
    return "MODEL"


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    """White glass, 256 x 320, with 3 x 4 tiles of tissue from x 96, y 64 on."""
    glass = np.full((256, 320, 3), 250, np.uint8)
    colours = np.random.default_rng(0).integers((150, 20, 90), (250, 120, 220), (3, 4, 3))
    glass[64:160, 96:224] = colours.repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    return glass


def test_otsu_parts_two_groups_best() -> None:
    def of(*values: int) -> int:
        return slides.otsu(np.array([values], np.uint8))

    assert of(1, 1, 1, 9, 9) == 1
    # 0, 0 | 4, 10: 2 * 2 * 7^2 = 196. 0, 0, 4 | 10: 3 * 1 * (26 / 3)^2 = 225.
    assert of(0, 0, 4, 10) == 4
    assert of(0, 0, 8, 10) == 0
    assert of(5, 5) == 0


@pytest.mark.parametrize(
    ("glass", "stain", "expected"),
    [
        ((245, 243, 246), (200, 120, 180), "stain"),
        ((245, 243, 246), (243, 246, 245), "none"),  # glass alone, with its noise
        ((230, 150, 200), (120, 60, 140), "all"),  # tissue alone, pale and dark
    ],
)
def test_tissue_is_what_is_stained(
    glass: tuple[int, ...], stain: tuple[int, ...], expected: str
) -> None:
    overview = np.full((20, 30, 3), glass, np.uint8)
    overview[5:10, 10:22] = stain
    where = np.zeros((20, 30), bool)
    where[5:10, 10:22] = expected == "stain"
    found, threshold = slides.tissue(Image.fromarray(overview))
    np.testing.assert_array_equal(found, where | (expected == "all"))
    assert slides.GLASS <= threshold <= slides.STAINED


def test_tiles_with_a_quarter_of_tissue_are_taken() -> None:
    """The overview is ten times smaller: a tile of 20 is 2 x 2 of its pixels."""
    tissue = np.zeros((4, 8), bool)
    tissue[0, 0] = tissue[2:, 4:7] = True
    assert Grid(80, 40, 20, 20, tissue).corners == [(0, 0), (40, 20), (60, 20)]
    # A tile of less than a pixel of the overview has that pixel's answer.
    assert Grid(80, 40, 5, 20, tissue).corners == [(0, 0), (40, 20), (60, 20), (40, 35), (60, 35)]
    assert Grid(80, 40, 20, 20, np.zeros((4, 8), bool)).corners == []


POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
RING = {"type": "array", "items": POSITION, "minItems": 4}
# RFC 7946, as narrow as what is written, and what QuPath reads of the properties.
GEOJSON: dict[str, Any] = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "geometry", "properties"],
                "properties": {
                    "type": {"const": "Feature"},
                    "geometry": {
                        "type": "object",
                        "required": ["type", "coordinates"],
                        "properties": {
                            "type": {"const": "Polygon"},
                            "coordinates": {"type": "array", "items": RING, "minItems": 1},
                        },
                    },
                    "properties": {
                        "type": "object",
                        "required": ["objectType", "classification", "measurements"],
                        "properties": {
                            "objectType": {"enum": ["tile", "detection"]},
                            "classification": {
                                "type": "object",
                                "required": ["name", "color"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "color": {
                                        "type": "array",
                                        "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                        "minItems": 3,
                                        "maxItems": 3,
                                    },
                                },
                            },
                            "measurements": {
                                "type": "object",
                                "additionalProperties": {"type": "number"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def validated(path: Path) -> list[dict[str, Any]]:
    """The features of a file that is valid and whose rings are closed and counterclockwise."""
    said = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator(GEOJSON).validate(said)
    for feature in said["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        turns = pairwise(ring)
        assert sum(x * below - right * y for (x, y), (right, below) in turns) > 0
    return said["features"]


def test_tiles_become_polygons_for_qupath(tmp_path: Path) -> None:
    tiles = [
        Tile(10, 20, 1.0, np.array([0.25, 0.75], np.float32)),
        Tile(14, 20, 0.0, None),
        Tile(18, 20, 1.0, np.array([0.6, 0.4], np.float32)),
    ]
    colours, path = {"Müll": [1, 2, 3], "TUM": [4, 5, 6]}, tmp_path / "tiles.geojson"
    predict.write_geojson(path, predict.features(tiles, 4, colours, (10, 0)))
    first, second = validated(path)
    assert first["geometry"]["coordinates"] == [[[0, 20], [4, 20], [4, 24], [0, 24], [0, 20]]]
    assert first["properties"] == {
        "objectType": "tile",
        "classification": {"name": "TUM", "color": [4, 5, 6]},
        "measurements": {"prob_Müll": 0.25, "prob_TUM": 0.75},
    }
    assert second["properties"]["classification"] == {"name": "Müll", "color": [1, 2, 3]}
    predict.write_geojson(path, predict.features(tiles[1:2], 4, colours, (0, 0)))
    assert validated(path) == []


@pytest.mark.parametrize(
    ("said", "origin"), [((5, 7, 60, 70), (5, 7)), ((5, 7), (0, 0)), ((), (0, 0))]
)
def test_qupath_counts_from_where_the_scan_begins(
    said: tuple[int, ...], origin: tuple[int, int]
) -> None:
    names = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
    properties = dict(zip(names, map(str, said), strict=False))
    assert slides.Slide(Path("a"), SimpleNamespace(properties=properties), 1.0).origin == origin


def test_without_openslide_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ClipItError, match="pip install openslide-python openslide-bin"):
        slides.open_slide(Path("a.svs"), 0.5)


@with_openslide
@pytest.mark.parametrize("finer", [1, 2])
def test_tiles_of_a_slide_answer_as_those_of_the_image(
    model: str, scan: np.ndarray, tmp_path: Path, capsys, finer: int
) -> None:
    """At 0.5 microns, of a slide that is scanned so or at 0.25: then x and y count its pixels."""
    fine = scan.repeat(finer, axis=0).repeat(finer, axis=1)
    pages = [fine, fine[::2, ::2]] if finer == 2 else [fine]
    slide = pyramid(tmp_path / "slide.tif", pages, 0.5 / finer)
    Image.fromarray(scan).save(tmp_path / "image.png")
    drawn = {"--heatmap": tmp_path / "map.png", "--geojson": tmp_path / "tiles.geojson"}

    def predicted(path: Path, *options: object) -> list[dict[str, str]]:
        output = tmp_path / f"{path.stem}.csv"
        given = [path, "--tiles", SIDE, "--output", output, *options]
        assert main(["predict", model, *map(str, given)]) == 0
        return read(output)

    found = predicted(slide, "--mpp", 0.5, *(each for pair in drawn.items() for each in pair))
    assert "on 15.0% of the slide" in capsys.readouterr().err  # 12 patches of 80
    rows = {(int(row["x"]), int(row["y"])): row for row in predicted(tmp_path / "image.png")}
    on_tissue = [(x, y) for y in range(64, 160, SIDE) for x in range(96, 224, SIDE)]
    assert [(int(r["x"]) // finer, int(r["y"]) // finer) for r in found] == on_tissue
    for place, row in zip(on_tissue, found, strict=True):
        other = rows[place]
        assert row["prediction"] == other["prediction"] != ""
        assert row["optical_density"] == other["optical_density"]
        assert row["image"] == str(slide) and row["side"] == str(SIDE * finer)
        for name in list(row)[6:]:
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1.01e-4)
    features = validated(drawn["--geojson"])
    for feature, row in zip(features, found, strict=True):
        assert feature["geometry"]["coordinates"][0][0] == [int(row["x"]), int(row["y"])]
        assert feature["properties"]["classification"]["name"] == row["prediction"]
        assert feature["properties"]["measurements"]["prob_red"] == float(row["red"])
    assert np.asarray(Image.open(drawn["--heatmap"]).convert("RGB")).std() > 10


class Counted:
    """An open slide that notes what is read of it."""

    def __init__(self, opened: Any) -> None:
        self.opened, self.read = opened, list[tuple[int, int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.opened, name)

    def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        self.read.append(size)
        return self.opened.read_region(place, level, size)


@with_openslide
def test_what_is_held_does_not_grow_with_the_slide(
    scan: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slide without smaller levels too, which is then read in many parts."""
    monkeypatch.setattr(slides, "OVERVIEW", 100)
    monkeypatch.setattr(slides, "REGION", 80)
    monkeypatch.setattr(predict, "BATCH", 4)
    counts = []
    for times in (1, 3):
        path = pyramid(tmp_path / f"{times}.tif", [np.tile(scan, (times, times, 1))], 0.5)
        opened = slides.open_slide(path, 0.5)
        counted = Counted(opened.opened)
        slide = slides.Slide(path, counted, 1.0)
        assert max(slide.overview.size) == 100
        overview = len(counted.read)
        seen = [0]

        def classify(pixels: np.ndarray, counted=counted, seen=seen) -> torch.Tensor:
            seen.append(len(counted.read))
            return torch.full((len(pixels), 2), 0.5)

        grid = Grid(*slide.size, SIDE, SIDE, slides.tissue(slide.overview)[0])
        tiles = list(predict.classified(slide, grid, classify, SIDE, 0.0))
        assert len(counted.read) == overview + len(tiles)  # a tile is read once, glass never
        assert max(np.diff([overview, *seen[1:]])) <= 4
        assert max(max(size) for size in counted.read) <= 80
        counts.append((overview, len(tiles)))
    (few, on_one), (many, on_nine) = counts
    assert many >= 8 * few and 12 <= on_one <= 20 and on_nine >= 9 * 12


@with_openslide
@pytest.mark.parametrize(
    ("said", "options", "error"),
    [
        (0, {}, "the slide says no resolution.*--mpp-of-slide"),
        (0, {"own": 0.5}, None),
        (1.0, {}, "has 1 microns per pixel, coarser than --mpp 0.5. Ask for --mpp 1, or"),
        (1.0, {"own": 0.5}, None),
        (0.5, {"own": 2.0}, "has 2 microns per pixel, coarser"),
    ],
)
def test_a_slide_of_unknown_or_coarser_resolution_is_refused(
    scan: np.ndarray, tmp_path: Path, said: float, options: dict[str, float], error: str | None
) -> None:
    path = pyramid(tmp_path / "a.tif", [scan], said)
    if error is None:
        assert slides.open_slide(path, 0.5, **options).scale == 1.0
        return
    with pytest.raises(ClipItError, match=error):
        slides.open_slide(path, 0.5, **options)


@with_openslide
def test_what_is_no_slide_or_cut_short_is_said_in_a_line(
    model: str, scan: np.ndarray, tmp_path: Path, capsys
) -> None:
    Image.fromarray(scan).save(tmp_path / "a.tif")  # in strips
    # OpenSlide reads all of the smallest level when it opens a file: the damage is in the other.
    content = pyramid(tmp_path / "b.tif", [scan, scan[::2, ::2]], 0.5).read_bytes()
    begins = struct.pack("<2I", 8, 8 + 64 * 64 * 3)  # of the first two tiles
    assert content.count(begins) == 1
    beyond = content.replace(begins, struct.pack("<2I", 8, len(content)))
    (tmp_path / "b.tif").write_bytes(beyond)
    names = [str(tmp_path / f"{name}.tif") for name in "abc"]
    options = ["--tiles", str(SIDE), "--mpp", "0.5", "--output", str(tmp_path / "tiles.csv")]
    assert main(["predict", model, *names, *options]) == 2
    said = capsys.readouterr().err
    assert f"{names[0]}: no slide that OpenSlide reads" in said
    assert f"{names[1]}: cannot be read at x 0, y 0" in said
    assert f"{names[2]}: no such image" in said and "3 of 3 images" in said
