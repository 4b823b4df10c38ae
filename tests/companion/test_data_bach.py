"""BACH by 400 tiny photographs in its layout: eva's split, order, crop, and every fault."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipit_lib.data import images
from clipit_lib.data.patches import ValidationSplit
from clipit_lib.errors import ClipItError
from companion import doctor, fetch, published
from companion.profile import load_profile
from companion.published import PUBLISHED_DATA, BachData
from companion.rehearse import write_images

SETTINGS = BachData(source="bach", corpus="any", side=6)
LETTERS = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
# As section 4 of the protocol writes eva's numbers, both ends included.
TRAIN = "0-40, 59, 90-138, 169-239, 258-259, 273-344, 368-399"
TEST = "41-58, 60-89, 139-168, 240-257, 260-272, 345-367"


def numbers(ranges: str) -> list[int]:
    ends = [[int(end) for end in each.split("-")] for each in ranges.split(",")]
    return [number for each in ends for number in range(each[0], each[-1] + 1)]


def colour(number: int) -> tuple[int, int, int]:
    """Tells which of the 400 photographs this is."""
    return number // 100 * 60, number % 100 * 2, 77


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 x 12 pixels each: its own colour in the central square, red beside it."""
    root = tmp_path_factory.mktemp("bach")
    for label, (name, letters) in enumerate(LETTERS.items()):
        pixels = np.full((100, 12, 16, 3), (255, 0, 0), np.uint8)
        pixels[:, :, 2:14] = [[[colour(100 * label + number)]] for number in range(100)]
        write_images(root, ((f"{name}/{letters}{n + 1:03d}.tif", p) for n, p in enumerate(pixels)))
        (root / name / "Thumbs.db").write_bytes(b"no image")
        (root / name / f"._{letters}001.tif").write_bytes(b"no image")
    (root / "microscopy_ground_truth.csv").write_text("b001.tif,Benign\n")
    return root


@pytest.fixture
def root(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(photographs, tmp_path / "bach", copy_function=os.link)
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    small = replace(PUBLISHED_DATA["bach"], image_size=(16, 12))
    monkeypatch.setitem(PUBLISHED_DATA, "bach", small)
    return tmp_path / "bach"


def test_the_ranges_are_those_of_the_protocol() -> None:
    train, test = numbers(TRAIN), numbers(TEST)
    assert (len(train), len(test)) == (268, 132)
    assert sorted(train + test) == list(range(400))
    assert np.bincount(np.array(train) // 100).tolist() == [52, 70, 69, 77]
    assert np.bincount(np.array(test) // 100).tolist() == [48, 30, 31, 23]
    assert [n for pair in published.TRAIN for n in range(*pair)] == train


def test_order_labels_splits_and_crop(root: Path) -> None:
    dataset = SETTINGS.open("bach")
    assert dataset.indices("test").tolist() == numbers(TEST)
    train = [*dataset.indices("train"), *dataset.indices("validation")]
    assert sorted(train) == numbers(TRAIN)
    assert dataset.labels.tolist() == [number // 100 for number in range(400)]
    ids = dataset.samples["id"].tolist()
    assert ids[:2] == ["Benign/b001.tif", "Benign/b002.tif"] and ids[399] == "Normal/n100.tif"
    expected = np.array([colour(number) for number in range(400)], np.uint8)
    np.testing.assert_array_equal(dataset.pixels[:, 2, 2], expected)  # away from the red
    assert (dataset.samples["group"] == "").any() and "same patients" in dataset.limits
    assert "NC-ND" in dataset.licence


def test_the_shorter_side_is_resized_and_the_centre_kept(root: Path) -> None:
    path = root / "Benign" / "b001.tif"
    path.unlink()  # a link to that of other tests
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = Image.fromarray(noise).resize((8, 6), Image.Resampling.BICUBIC)
    ours = SETTINGS.open("bach").pixels[0].astype(int)
    assert np.abs(ours - np.asarray(whole.crop((1, 0, 7, 6)), int)).max() <= 1


def test_validation_is_a_tenth_of_each_class_unless_told_otherwise(root: Path) -> None:
    assert BachData(source="bach", corpus="any").validation_split == ValidationSplit(
        by="stratified", fraction=0.1
    )
    dataset = SETTINGS.open("bach")
    held = dataset.labels[dataset.indices("validation")]
    assert np.bincount(held).tolist() == [5, 7, 7, 8]  # of 52, 70, 69, 77
    split = ValidationSplit(by="stratified", fraction=0.05)  # as many as 1 in 20
    released = SETTINGS.model_copy(update={"validation_split": split}).open("bach")
    assert len(released.indices("validation")) == 3 + 4 + 3 + 4
    assert released.indices("test").tolist() == dataset.indices("test").tolist()


@pytest.mark.parametrize("nested", ["ICIAR2018_BACH_Challenge/Photos", "Photos"])
def test_the_nesting_of_the_archive(root: Path, tmp_path: Path, nested: str) -> None:
    flat = SETTINGS.open("bach")
    moved = tmp_path / "elsewhere" / nested
    moved.parent.mkdir(parents=True)
    root.rename(moved)
    settings = SETTINGS.model_copy(update={"folder": str(tmp_path / "elsewhere")})
    assert settings.open("bach").content_hash == flat.content_hash
    assert fetch.faults("bach", tmp_path / "elsewhere") == []


def test_loader_and_fetch_agree_on_what_is_whole(root: Path) -> None:
    """Names in capitals; photographs beside the published ones, of which some mirrors have 8."""
    plain = SETTINGS.open("bach")
    (root / "Normal" / "n007.tif").rename(root / "Normal" / "n007.TIF")
    for label, letters in LETTERS.items():
        for name in (f"{letters}050 (1).tif", f"{letters}101.tif"):
            os.link(root / label / f"{letters}051.tif", root / label / name)
    dataset = SETTINGS.open("bach")
    np.testing.assert_array_equal(dataset.pixels, plain.pixels)
    note = dataset.notes[0]
    assert "8 images passed over beside the published ones: Benign/b050 (1).tif" in note
    assert list(SETTINGS.problems()) == [] == fetch.faults("bach", root)
    (root / "Normal" / "n007.TIF").unlink()
    with pytest.raises(ClipItError, match="99 of Normal"):
        SETTINGS.recipe("bach")
    (error,) = fetch.faults("bach", root)
    assert error.what == "holds 399 images, expected 400"


def test_photographs_kept_smaller_than_a_model_reads_are_told() -> None:
    paper = load_profile("paper")
    assert doctor.kept_smaller(paper, "bach") == doctor.kept_smaller(paper, "crc") == []
    small = {"bach": SETTINGS.model_copy(update={"side": 224})}
    (told,) = doctor.kept_smaller(paper.model_copy(update={"data": small}), "bach")
    assert "kept at 224 pixels, of which conch reads 448" in told.what and "side: 448" in told.fix
    others = {"data": small, "retriever": "clip", "clips": ()}
    assert doctor.kept_smaller(paper.model_copy(update=others), "bach") == []


def test_the_cache_is_opened_without_decoding(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    first = SETTINGS.open("bach")

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(images, "read_image", refuse)
    again = SETTINGS.open("bach")
    assert isinstance(again.pixels, np.memmap) and again.content_hash == first.content_hash


def test_one_photograph_too_few_moves_no_split(root: Path) -> None:
    (root / "InSitu" / "is050.tif").unlink()
    with pytest.raises(ClipItError, match="99 of InSitu, expected 100 photographs of each class"):
        SETTINGS.open("bach")


def test_missing_folders(root: Path) -> None:
    (root / "Normal").rename(root / "normal")
    message = r"no class folder Normal \(found: Benign, InSitu, Invasive, normal\). Run `python"
    with pytest.raises(ClipItError, match=message):
        SETTINGS.open("bach")
    for photograph in (root / "Benign").glob("*.tif"):
        photograph.unlink()
    (root / "normal").rename(root / "Normal")
    with pytest.raises(ClipItError, match=r"Benign: no .tif images in this class folder"):
        SETTINGS.open("bach")
    shutil.rmtree(root)
    with pytest.raises(ClipItError, match=r"bach: no such folder. Run `python -m companion fetch"):
        SETTINGS.open("bach")


def test_unreadable_photographs(root: Path) -> None:
    path = root / "Invasive" / "iv100.tif"
    path.unlink()  # a link to that of other tests
    path.write_bytes((root / "Invasive" / "iv099.tif").read_bytes()[:200])
    with pytest.raises(ClipItError, match=r"iv100.tif: not a readable image or cut short"):
        SETTINGS.open("bach")
    assert [each.where for each in SETTINGS.problems()] == [str(path)]


def test_a_light_look_finds_what_lies_wrong(root: Path) -> None:
    assert list(SETTINGS.problems()) == []
    (root / "Benign" / "b001.tif").rename(root / "Benign" / "aa.tif")
    last = root / "Normal" / "n100.tif"
    last.unlink()
    Image.new("RGB", (8, 6)).save(last)
    found = [str(each) for each in SETTINGS.problems()]
    assert len(found) == 2
    assert "aa.tif: images of Benign are called b..." in found[0]
    assert "n100.tif: an image of 8 x 6 pixels, expected 16 x 12" in found[1]
