"""An image as pixels: one set of rules, and one line for what has no rule."""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipit_lib.data.images import fitted, image_files, oddities, passed_over, read_image
from clipit_lib.errors import ClipItError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
TISSUE = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)
DEEP = GREY.astype(np.uint16) * 257  # 255 becomes 65535
CLEAR = np.arange(16) < 8  # the left half was never scanned


def half_clear(mode: str) -> Image.Image:
    """Black without opacity on the left, tissue on the right."""
    image = Image.fromarray(np.where(CLEAR[:, None], 0, TISSUE).astype(np.uint8)).convert(mode[:-1])
    image.putalpha(Image.fromarray(np.where(CLEAR, 0, 255).astype(np.uint8)[None].repeat(16, 0)))
    return image


def palette() -> Image.Image:
    image = Image.fromarray(np.where(CLEAR, 0, 1).astype(np.uint8)[None].repeat(16, 0)).convert("P")
    image.putpalette([0, 0, 0, 90, 60, 30])
    return image


RIGHT = TISSUE[:, 8:]
IN_GREY = np.asarray(Image.fromarray(TISSUE).convert("L").convert("RGB"))[:, 8:]


@pytest.mark.parametrize(
    ("name", "image", "options", "right"),
    [
        ("rgba.png", half_clear("RGBA"), {}, RIGHT),
        ("rgba.tif", half_clear("RGBA"), {}, RIGHT),
        ("rgba.webp", half_clear("RGBA"), {"lossless": True}, RIGHT),
        ("la.png", half_clear("LA"), {}, IN_GREY),
        ("palette.png", palette(), {"transparency": 0}, (90, 60, 30)),
        ("palette.png", palette(), {"transparency": b"\0\xff"}, (90, 60, 30)),
        ("key.png", Image.fromarray(np.where(CLEAR, 0, GREY)), {"transparency": 0},
         GREY[:, 8:, None].repeat(3, 2)),
        ("deep.png", Image.fromarray(np.where(CLEAR, 257, DEEP).astype(np.uint16)),
         {"transparency": 257}, GREY[:, 8:, None].repeat(3, 2)),
    ],
)  # fmt: skip
def test_transparent_is_glass(
    tmp_path: Path, name: str, image: Image.Image, options: dict[str, Any], right: Any
) -> None:
    image.save(tmp_path / name, **options)
    found = fitted(read_image(tmp_path / name), 16)
    assert (found[:, :8] == 255).all()
    assert (found[:, 8:] == right).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "CMYK"])
def test_what_is_opaque_is_as_pillow_reads_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(TISSUE).convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(fitted(read_image(path), 16), expected)


@pytest.mark.parametrize(
    ("name", "values"), [("x.png", DEEP), ("x.tif", DEEP), ("f.tif", (GREY / 255).astype("f4"))]
)
def test_deep_and_float_images_span_what_eight_bits_do(
    tmp_path: Path, name: str, values: np.ndarray
) -> None:
    Image.fromarray(values).save(tmp_path / name)
    for channel in np.moveaxis(fitted(read_image(tmp_path / name), 16), -1, 0):
        np.testing.assert_array_equal(channel, GREY)


def jpeg_2000(path: Path) -> None:
    """A TIFF that says Aperio's compression."""
    Image.fromarray(TISSUE).save(path, compression="tiff_lzw")
    data = path.read_bytes()
    at = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    path.write_bytes(data[:at] + struct.pack("<H", 33003) + data[at + 2 :])


def pages(path: Path) -> None:
    """A thumbnail comes first."""
    first, second = Image.new("RGB", (4, 4)), Image.fromarray(TISSUE)
    first.save(path, save_all=True, append_images=[second])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (pages, "2 pages in one file. Save the page you mean"),
        (jpeg_2000, r"TIFF compression 33003 \(JPEG 2000\) is not read. Save it as PNG"),
        (lambda path: Image.fromarray(DEEP.astype("i4")).save(path),
         "integers of 32 bits from 0 to 65535: which of them is white is not known"),
        (lambda path: Image.fromarray(DEEP // 16).save(path),
         "integers of 16 bits up to 4095: which of them is white is not known"),
        (lambda path: Image.fromarray(DEEP.astype("f4") - 1).save(path), "floats from -1 to 65534"),
        (lambda path: Image.fromarray(np.full((2, 2), np.nan, "f4")).save(path), "from nan to nan"),
        (lambda path: Image.new("1", (4000, 2501)).save(path),
         "more than 10 megapixels, which take 0.0 GB of memory. Cut it into patches"),
        (lambda path: path.write_bytes(b"II*\0"), "not a readable image or cut short"),
    ],
)  # fmt: skip
def test_what_has_no_rule_is_refused_by_name(tmp_path: Path, write: Any, said: str) -> None:
    path = tmp_path / "x.tif"
    write(path)
    with pytest.raises(ClipItError, match=said) as caught:
        read_image(path, megapixels=10)
    assert caught.value.where == str(path) and "\n" not in str(caught.value)


def test_white_is_zero_where_the_file_says_so(tmp_path: Path) -> None:
    Image.fromarray(65535 - DEEP).save(tmp_path / "x.tif", tiffinfo={262: 0})
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "x.tif"))[..., 0], GREY)


@pytest.mark.parametrize("name", ["x.jpg", "x.tif", "x.png"])
def test_images_are_turned_as_viewers_turn_them(tmp_path: Path, name: str) -> None:
    """The camera lay on its side: what is on top in the file is right in the world."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8] = 250
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / name, exif=exif)
    upright = np.asarray(read_image(tmp_path / name))
    assert upright.shape == (32, 16, 3)
    assert (upright[:, 9:] > 200).all() and (upright[:, :7] < 50).all()


def test_the_photograph_of_a_camera_is_its_first_picture(tmp_path: Path) -> None:
    path, preview = tmp_path / "x.jpg", Image.new("RGB", (4, 4))
    Image.new("RGB", (16, 16), "white").save(
        path, format="MPO", save_all=True, append_images=[preview]
    )
    assert (fitted(read_image(path), 16) > 250).all()


def test_sizes_that_lose_what_is_there_are_said() -> None:
    sizes = {(31, 40): 1, (32, 64): 0, (64, 32): 0, (32, 65): 1, (200, 20): 2, (224, 224): 0}
    assert {size: len(oddities(Image.new("L", size))) for size in sizes} == sizes


def test_images_below_a_folder(tmp_path: Path) -> None:
    """Links are followed, loops are not, and what is passed over is counted."""
    folder = tmp_path / "train" / "calm"
    for name in ("b.JFIF", "a.png", "deep/x.webp", ".hidden/x.png", "deep/._x.png", "scan.svs",
                 "1.gif", "2.GIF", "README"):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "far" / "picture.png").mkdir(parents=True)
    (tmp_path / "far" / "c.bmp").touch()
    (tmp_path / "train" / "wild").mkdir()
    (tmp_path / "train" / "wild" / "other.png").touch()
    for name, target in (("patient", tmp_path / "far"), ("again", tmp_path / "far"),
                         ("up", tmp_path / "train"), ("here", folder)):  # fmt: skip
        (folder / name).symlink_to(target, target_is_directory=True)
    names, others = image_files(folder)
    assert names == ["a.png", "again/c.bmp", "b.JFIF", "deep/x.webp"]
    assert others == {".gif": 2, ".svs": 1, "no suffix": 1, "links that lead back": 1}
    (said,) = passed_over(others)
    assert said == "5 files passed over (.gif 2, .svs 1, links that lead back 1, no suffix 1)"
    assert passed_over(Counter()) == []


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    read = os.scandir

    def refused(path: Any) -> Any:  # whoever runs the tests may be allowed to read everything
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return read(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="closed"):
        image_files(tmp_path)
