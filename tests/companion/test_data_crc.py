"""CRC by a miniature of its two folders: order, labels, splits, and every fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipit_lib.data import images
from clipit_lib.errors import ClipItError
from companion.published import PUBLISHED_DATA, CrcData
from companion.rehearse import write_images

SETTINGS = CrcData(source="crc", corpus="any", side=4)
CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
TRAIN, TEST = "NCT-CRC-HE-100K", "CRC-VAL-HE-7K"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three train and two test images a class; grey values tell split, class and number."""
    root = tmp_path / "crc"
    write_images(root, (
        (f"{part}/{name}/{name}-{'CAB'[number]}.tif", np.full((4, 4, 3), first + number, np.uint8))
        for split, (part, count) in enumerate({TRAIN: 3, TEST: 2}.items())
        for first, name in zip(range(100 * split, 200, 10), CLASSES, strict=False)
        for number in range(count)
    ))  # fmt: skip
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    images = {"train": 27, "validation": 0, "test": 18}
    small = replace(PUBLISHED_DATA["crc"], images=images, image_size=(4, 4))
    monkeypatch.setitem(PUBLISHED_DATA, "crc", small)
    return root


def test_order_labels_splits_and_pixels(root: Path) -> None:
    dataset = SETTINGS.open("crc")
    assert dataset.classes == CLASSES
    assert dataset.labels.tolist() == [c for c in range(9) for _ in range(3)] + [
        c for c in range(9) for _ in range(2)
    ]
    ids = dataset.samples["id"].tolist()
    assert ids[:3] == [f"{TRAIN}/ADI/ADI-{letter}.tif" for letter in "ABC"]
    assert ids[-1] == f"{TEST}/TUM/TUM-C.tif"
    # Written in the order C, A, B and read by name.
    train = [10 * label + number for label in range(9) for number in (1, 2, 0)]
    test = [100 + 10 * label + number for label in range(9) for number in (1, 0)]
    np.testing.assert_array_equal(
        dataset.pixels, np.broadcast_to(np.array(train + test)[:, None, None, None], (45, 4, 4, 3))
    )
    assert dataset.indices("test").tolist() == list(range(27, 45))
    held = dataset.labels[dataset.indices("validation")]
    assert held.tolist() == list(range(9))  # a tenth of three, but at least one
    assert dataset.licence.startswith("CC BY 4.0") and "50 patients" in dataset.limits


def test_the_cache_is_opened_without_decoding(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    first = SETTINGS.open("crc")

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(images, "read_image", refuse)
    again = SETTINGS.open("crc")
    assert isinstance(again.pixels, np.memmap) and again.content_hash == first.content_hash


def test_images_that_change_are_read_again(root: Path) -> None:
    first = SETTINGS.open("crc")
    Image.new("RGB", (4, 4), (1, 2, 3)).save(root / TEST / "MUS" / "MUS-A.tif")
    assert SETTINGS.open("crc").content_hash != first.content_hash


def test_images_without_normalisation_are_not_taken_instead(root: Path) -> None:
    (root / TRAIN).rename(root / f"{TRAIN}-NONORM")
    message = f"no {TRAIN}, only {TRAIN}-NONORM: without colour normalisation"
    with pytest.raises(ClipItError, match=message):
        SETTINGS.open("crc")
    (root / f"{TRAIN}-NONORM").rename(root / TRAIN)
    (root / TRAIN / f"{TRAIN}-NONORM").mkdir()
    with pytest.raises(ClipItError, match=f"folders that are no class of CRC: {TRAIN}-NONORM"):
        SETTINGS.open("crc")
    (root / TRAIN / f"{TRAIN}-NONORM").rename(root / f"{TRAIN}-NONORM")
    assert len(SETTINGS.open("crc").samples) == 45  # beside it, it does no harm


def test_other_counts_than_published_are_refused(root: Path) -> None:
    (root / TRAIN / "STR" / "STR-A.tif").unlink()
    Image.new("RGB", (4, 4)).save(root / TEST / "STR" / "STR-X.tif")
    message = r"CRC \(26 train images, expected 27; 19 test images, expected 18\)"
    with pytest.raises(ClipItError, match=message):
        SETTINGS.open("crc")


@pytest.mark.parametrize("part", [TRAIN, TEST])
def test_missing_and_empty_folders(root: Path, part: str) -> None:
    class_folder = root / part / "DEB"
    class_folder.rename(root / "DEB")
    with pytest.raises(ClipItError, match=rf"{part}: no class folder DEB \(found: ADI, BACK, LYM"):
        SETTINGS.open("crc")
    class_folder.mkdir()
    with pytest.raises(ClipItError, match=r"DEB: no .tif images in this class folder"):
        SETTINGS.open("crc")
    (root / part).rename(root / "other")
    with pytest.raises(ClipItError, match=rf"{part}: no such folder. Run `python -m companion"):
        SETTINGS.open("crc")


def test_unreadable_images(root: Path) -> None:
    path = root / TRAIN / "NORM" / "NORM-A.tif"
    path.write_bytes(b"II*\0")
    with pytest.raises(ClipItError, match=r"NORM-A.tif: not a readable image or cut short"):
        SETTINGS.open("crc")
    assert [each.where for each in SETTINGS.problems()] == [str(path)]


def test_a_light_look_finds_what_lies_wrong(root: Path) -> None:
    assert list(SETTINGS.problems()) == []
    (root / TEST / "LYM" / "LYM-C.tif").rename(root / TEST / "LYM" / "TUM-D.tif")
    found = list(SETTINGS.problems())
    assert len(found) == 1
    assert "TUM-D.tif: images of LYM are called LYM-..." in str(found[0])
