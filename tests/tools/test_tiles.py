"""Large images: every tile has the answer of the patch that it is, in its place."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from PIL import Image

from clipit_lib import runs
from clipit_lib.data.images import read_image
from clipit_lib.errors import ClipItError
from clipit_lib.predict import load_classifier
from companion import predict, specs
from companion.__main__ import main
from companion.figures import style
from companion.figures.space import heat_map
from companion.figures.style import write
from companion.predict import Grid, Tile
from companion.profile import Workbench

CELL = ("phantom-crc", "phantom_vit_s16")
SIDE = 32  # of the smoke profile's patches


@pytest.fixture(scope="module")
def run(bench: Workbench) -> runs.StoredRun:
    return runs.get_or_run(specs.resolve(bench, *CELL, "clip_it", 0), bench)


@pytest.fixture(scope="module")
def composed(bench: Workbench) -> np.ndarray:
    """24 x 32 phantom patches of all classes, the last two columns of them white: 768 x 1024."""
    pixels = bench.dataset(CELL[0]).pixels
    chosen = np.array(pixels)[np.arange(24 * 32) % len(pixels)]
    chosen[np.arange(24 * 32) % 32 >= 30] = 250
    return chosen.reshape(24, 32, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(768, 1024, 3)


def saved(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def values(row: dict[str, str], classes: Sequence[str]) -> list[float]:
    return [float(row[name]) for name in classes]


def test_each_tile_of_a_composed_picture_answers_as_its_patch(
    run: runs.StoredRun, composed: np.ndarray, tmp_path: Path, capsys
) -> None:
    path, output = saved(composed, tmp_path / "big.png"), tmp_path / "tiles.csv"
    options = ["--tiles", str(SIDE), "--output", str(output)]
    assert main(["predict", str(run.folder), str(path), *options]) == 0
    rows, classifier = read(output), load_classifier(run.folder)
    assert [(int(r["x"]), int(r["y"])) for r in rows] == [
        (x, y) for y in range(0, 768, SIDE) for x in range(0, 1024, SIDE)
    ]
    patches = composed.reshape(24, SIDE, 32, SIDE, 3).swapaxes(1, 2).reshape(768, SIDE, SIDE, 3)
    expected = classifier.probabilities(patches).numpy()
    # The white columns, and patches of background that are as light.
    light = -np.log10((patches.astype(float) + 1) / 256).mean(axis=(1, 2, 3)) < 0.02
    assert light.reshape(24, 32)[:, 30:].all() and 48 <= light.sum() < 100
    said = capsys.readouterr().err
    assert f"{light.sum()} of 768 tiles left out as background" in said
    for row, probabilities, left_out in zip(rows, expected, light, strict=True):
        if left_out:
            assert row["prediction"] == "" and row["ADI"] == "" and row["side"] == str(SIDE)
        else:
            found = values(row, classifier.classes)
            np.testing.assert_allclose(found, probabilities, atol=1e-4)
            assert row["prediction"] == classifier.classes[int(probabilities.argmax())]


def test_tiles_of_another_size_answer_as_the_same_crops_saved_as_images(
    run: runs.StoredRun, composed: np.ndarray, tmp_path: Path
) -> None:
    """A picture that the tiles do not fill: the last of a row or column is moved inward."""
    big = saved(composed[:100, :130], tmp_path / "big.tif")
    output, side = tmp_path / "tiles.csv", 48
    command = ["predict", str(run.folder), str(big), "--tiles", str(side), "--background", "0"]
    assert main([*command, "--output", str(output)]) == 0
    rows = read(output)
    places = [(int(row["x"]), int(row["y"])) for row in rows]
    assert places == [(x, y) for y in (0, 48, 52) for x in (0, 48, 82)]
    crops = tmp_path / "crops"
    crops.mkdir()
    for number, (x, y) in enumerate(places):
        saved(composed[y : y + side, x : x + side], crops / f"{number}.png")
    alone = tmp_path / "alone.csv"
    assert main(["predict", str(run.folder), str(crops), "--output", str(alone)]) == 0
    classes = load_classifier(run.folder).classes
    for tile, crop in zip(rows, read(alone), strict=True):
        assert tile["prediction"] == crop["prediction"]
        np.testing.assert_allclose(values(tile, classes), values(crop, classes), atol=1e-4)


@given(
    width=st.integers(1, 60), height=st.integers(1, 60), side=st.integers(1, 60),
    stride=st.integers(1, 70),
)  # fmt: skip
def test_tiles_lie_inside_and_cover_everything(
    width: int, height: int, side: int, stride: int
) -> None:
    side = min(side, width, height)
    corners = Grid(width, height, side, stride).corners
    covered = np.zeros((height, width), int)
    for x, y in corners:
        assert 0 <= x <= width - side and 0 <= y <= height - side
        covered[y : y + side, x : x + side] += 1
    assert len(set(corners)) == len(corners)
    assert covered[-1, -1] and covered[0, 0]
    assert stride > side or covered.all()


def test_optical_density_is_that_of_the_transmitted_light() -> None:
    assert predict.optical_density(np.full((2, 2, 3), 255, np.uint8)) == pytest.approx(0)
    # A quarter of the light is let through: log10(4).
    assert predict.optical_density(np.full((2, 2, 3), 63, np.uint8)) == pytest.approx(0.60206)
    half = np.array([[[255, 255, 255], [63, 63, 63]]], np.uint8)
    assert predict.optical_density(half) == pytest.approx(0.30103)


def test_maps_average_what_overlaps_and_leave_out_what_is_background() -> None:
    grid = Grid(width=6, height=4, side=4, stride=2)
    both = [
        Tile(0, 0, 1.0, np.array([0.2, 0.8], np.float32)),
        Tile(2, 0, 1.0, np.array([0.6, 0.4], np.float32)),
    ]
    first = predict.probability_maps(both, grid, 2, 1.0)[0]
    np.testing.assert_allclose(first, np.tile([0.2, 0.2, 0.4, 0.4, 0.6, 0.6], (4, 1)), atol=1e-6)
    one = predict.probability_maps([both[0], Tile(2, 0, 0.0, None)], grid, 2, 0.5)
    assert one.shape == (2, 2, 3)
    np.testing.assert_allclose(one[1], [[0.8, 0.8, np.nan]] * 2, atol=1e-6)


def test_a_batch_of_tiles_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "BATCH", 4)
    sizes: list[int] = []

    def classify(pixels: np.ndarray) -> torch.Tensor:
        sizes.append(len(pixels))
        means = torch.tensor(pixels.mean(axis=(1, 2, 3)))
        return torch.stack([means, -means], dim=1).float()

    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8), 8)  # [240], dark to light
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (8, 240, 3)).copy())
    found = list(predict.classified(image, Grid(240, 8, 8, 8), classify, 8, 0.1))
    assert max(sizes) == 4
    # Answers stay with their tiles although background is left out between them.
    light = [tile for tile in found if tile.probabilities is None]
    assert [tile.x for tile in light] == [x for x in range(0, 240, 8) if x > 256 / 10**0.1 - 1]
    for tile in found[: -len(light)]:
        assert tile.probabilities is not None and tile.probabilities[0] == tile.x


def test_the_heat_map_is_drawn(
    run: runs.StoredRun, composed: np.ndarray, tmp_path: Path, capsys
) -> None:
    path, picture = saved(composed[:96, :160], tmp_path / "big.jpg"), tmp_path / "map.png"
    command = ["predict", str(run.folder), str(path), "--tiles", "32", "--heatmap", str(picture)]
    before = plt.get_fignums()  # of other tests
    assert main([*command, "--class", "TUM"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 15
    drawn = np.asarray(Image.open(picture).convert("RGB"))
    assert drawn.std() > 20
    assert plt.get_fignums() == before
    assert main([*command, "--class", "LUNG"]) == 2
    assert "no class 'LUNG'. One of ADI, BACK" in capsys.readouterr().err.replace("--class: ", "")


def test_the_figure_shows_pixels_and_probabilities_on_one_scale() -> None:
    values = np.array([[0.0, 1.0], [0.5, np.nan]])
    image = np.zeros((20, 30, 3), np.uint8)
    figure = heat_map(image, {"a": values, "b": values}, (300, 200), 50, "three tiles left out")
    left, right = figure.subfigs
    (photo,) = left.axes[0].images
    maps = [axis.images[0] for axis in right.axes if axis.images]
    assert [axis.get_title(loc="left") for axis in right.axes[:2]] == ["a", "b"]
    for each in maps:
        assert list(each.get_extent()) == list(photo.get_extent()) == [0, 300, 200, 0]
        assert each.get_clim() == (0, 1)
        colours = each.to_rgba(each.get_array())[..., :3]
        np.testing.assert_allclose(colours[1, 1], [217 / 255] * 3, atol=0.01)  # grey, no colour
        # Lighter is more probable, for whoever sees no hue.
        light = colours.mean(axis=-1)
        assert light[0, 0] < light[1, 0] < light[0, 1]
    assert "three tiles left out" in figure.get_supxlabel()
    plt.close(figure)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stride", "8"], "Add --tiles SIDE"),
        (["--tiles", "0"], "--tiles: 0"),
        (["--tiles", "200"], "larger than the image (100 x 60)"),
        (["again.png", "--tiles", "8", "--heatmap", "x.png"], "Name the one image"),
        (["--tiles", "8", "--background", "nan"], "--background: nan"),
        (["--tiles", "8", "--heatmap", "big.png"], "this is the image itself"),
        (["--output", "big.png"], "this is an image. Name another file"),
    ],
)
def test_options_that_do_not_fit_are_said(
    run: runs.StoredRun, composed: np.ndarray, tmp_path: Path, monkeypatch, capsys, options, said
) -> None:
    path = saved(composed[:60, :100], tmp_path / "big.png")
    before, folder = path.read_bytes(), Path(run.folder).absolute()
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(folder), str(path), *options]) == 2
    assert path.read_bytes() == before
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_images_beyond_the_limit_are_refused_and_below_it_opened(tmp_path: Path) -> None:
    """Pillow itself warns from 89 megapixels; its own limit is as before afterwards."""
    path, before = tmp_path / "big.png", Image.MAX_IMAGE_PIXELS
    Image.new("L", (10_000, 9_500), 128).save(path)  # 95 megapixels
    with pytest.raises(ClipItError, match=r"more than 90 megapixels.*--max-megapixels"):
        read_image(path, megapixels=90)
    with pytest.raises(ClipItError, match="more than 10 megapixels"):
        read_image(path, megapixels=10)
    image = read_image(path)
    assert image.mode == "RGB" and image.getpixel((9_999, 9_499)) == (128, 128, 128)
    assert before == Image.MAX_IMAGE_PIXELS


def test_one_unreadable_image_of_several_costs_no_answer(
    run: runs.StoredRun, composed: np.ndarray, tmp_path: Path, capsys
) -> None:
    """Nor does one that was never scanned become tissue."""
    paths = [saved(composed[:64, :64], tmp_path / f"{name}.png") for name in "abc"]
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    Image.new("RGBA", (64, 64)).save(paths[2])
    output = tmp_path / "tiles.csv"
    options = ["--tiles", "32", "--output", str(output)]
    assert main(["predict", str(run.folder), *map(str, paths), *options]) == 2
    said = capsys.readouterr().err
    assert f"not answered: {paths[1]}: not a readable image" in said and "1 of 3 images" in said
    rows = read(tmp_path / "tiles.csv.part")
    assert [row["image"] for row in rows] == [str(paths[0])] * 4 + [str(paths[2])] * 4
    assert all(row["prediction"] == "" for row in rows[4:]) and rows[0]["prediction"] != ""


def test_answers_outlive_what_happens_to_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out" / "a.csv"
    with predict.csv_rows(output, ["image"]) as write:
        write(["one"])
        assert read(tmp_path / "out" / "a.csv.part") == [{"image": "one"}]  # as after a kill -9
        shutil.rmtree(output.parent)
        write(["two"])
    assert read(output) == [{"image": "one"}, {"image": "two"}]
    full = Path("/dev/full")
    with full.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        for asked in (None, full):
            with pytest.raises(ClipItError, match=r"writing failed \(No space left on device\)"):
                predict.csv_rows(asked, ["image"]).__enter__()
    monkeypatch.undo()
    with predict.csv_rows(Path("/dev/null"), ["image"]):
        pass
    assert Path("/dev/null").is_char_device() and full.is_char_device()


def font_with(characters: str, folder: Path) -> Path:
    """A font that has these characters alone, each an upright bar."""
    pen = TTGlyphPen(None)
    for place in ((100, 0), (100, 700), (500, 700), (500, 0)):
        (pen.lineTo if pen.points else pen.moveTo)(place)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(each):04X}" for each in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, characters), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Bars Sans", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(folder / "bars.ttf")
    return folder / "bars.ttf"


def test_class_names_of_any_script_are_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manager = font_manager.fontManager
    own = [each for each in manager.ttflist if "mpl-data" in each.fname]
    monkeypatch.setattr(manager, "ttflist", own)
    maps = {name: np.zeros((2, 2)) for name in ("Müll $x$", "\u764c")}

    def drawn() -> str:
        style._family.cache_clear()
        figure = heat_map(np.zeros((4, 4, 3), np.uint8), maps, (4, 4), 2)
        write(figure, tmp_path / "map.svg")  # a missing glyph would be a warning
        return (tmp_path / "map.svg").read_text()

    without = drawn()
    assert "M\u00fcll $x$" in without and r"\u764c" in without and "\u764c" not in without
    assert len(caplog.records) == 1 and "Noto Sans CJK" in caplog.text
    manager.addfont(font_with("\u764c\u7c73", tmp_path))
    having = drawn()
    assert "\u764c" in having and "'DejaVu Sans'" in having and "'Bars Sans'" in having
    assert "Bars Sans" not in without and len(caplog.records) == 1
