"""PCAM by a miniature of its files: order, labels, slides, streaming, and every fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.datasets import PCAM

from clipit_lib.data import patches as cache
from clipit_lib.data.patches import ValidationSplit
from clipit_lib.errors import ClipItError
from companion import published
from companion.paper import protocol_named
from companion.phantom.latents import WORLDS
from companion.profile import load_profile
from companion.published import PUBLISHED_DATA, PcamData
from companion.rehearse import write_h5 as write

SETTINGS = PcamData(source="pcam", corpus="any")


def look() -> int:
    """Patches, without decoding one: what `doctor` and a plan do."""
    return len(SETTINGS.recipe("pcam").gather().samples)


COUNTS = {"train": 12, "valid": 6, "test": 6}
NAME = "camelyonpatch_level_2_split_{}_{}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 + 6 + 6 patches in the real layout; labels are 0 1 1 0 1 1 ... in each split."""
    folder, rng = tmp_path / "pcam", np.random.default_rng(0)
    for part, count in COUNTS.items():
        patches = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        labels = np.array([row % 3 > 0 for row in range(count)], np.uint8)
        write(folder, part, "x", patches)
        write(folder, part, "y", labels.reshape(-1, 1, 1, 1))
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    images = {"train": 12, "validation": 6, "test": 6}
    monkeypatch.setitem(PUBLISHED_DATA, "pcam", replace(PUBLISHED_DATA["pcam"], images=images))
    return folder


def read(folder: Path, kind: str) -> np.ndarray:
    parts = []
    for part in COUNTS:
        with h5py.File(folder / f"{NAME.format(part, kind)}.h5") as stream:
            parts.append(stream[kind][:])
    return np.concatenate(parts)


def test_order_labels_and_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BLOCK", 5)  # blocks then cross from one split into the next
    asked, real = [], published.read_patches

    def counted(folder: Path, part: str, begin: int, end: int) -> np.ndarray:
        asked.append((part, begin, end))
        return real(folder, part, begin, end)

    monkeypatch.setattr(published, "read_patches", counted)
    dataset = SETTINGS.open("pcam")
    assert asked == [
        ("train", 0, 5), ("train", 5, 10), ("train", 10, 12), ("valid", 0, 3), ("valid", 3, 6),
        ("test", 0, 2), ("test", 2, 6),
    ]  # fmt: skip
    np.testing.assert_array_equal(dataset.pixels, read(folder, "x"))
    assert dataset.samples["split"].tolist() == ["train"] * 12 + ["validation"] * 6 + ["test"] * 6
    assert dataset.labels.tolist() == [0, 1, 1] * 8
    assert dataset.samples["id"].tolist()[11:14] == ["train-000011", "valid-000000", "valid-000001"]
    assert (dataset.samples["group"] == "").any()
    assert "too narrow" in dataset.limits and dataset.licence.startswith("CC0")


def test_torchvision_reads_the_same(folder: Path) -> None:
    dataset = SETTINGS.open("pcam")
    theirs = PCAM(folder.parent, split="val")
    for row, sample in zip(dataset.indices("validation"), range(6), strict=True):
        image, label = theirs[sample]
        np.testing.assert_array_equal(np.asarray(image), dataset.pixels[row])
        assert label == dataset.labels[row]


def test_the_cache_is_opened_without_reading_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SETTINGS.open("pcam")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(h5py, "File", refuse)
    again = SETTINGS.open("pcam")
    assert isinstance(again.pixels, np.memmap)
    assert again.content_hash == first.content_hash


def test_a_published_validation_split_is_kept(folder: Path) -> None:
    split = ValidationSplit(by="stratified", fraction=0.5)
    dataset = SETTINGS.model_copy(update={"validation_split": split}).open("pcam")
    assert len(dataset.indices("validation")) == 6


def test_another_side_is_resized(folder: Path) -> None:
    white = np.full((12, 96, 96, 3), 255, np.uint8)
    white[:, :48] = 0
    write(folder, "train", "x", white)
    dataset = SETTINGS.model_copy(update={"side": 32}).open("pcam")
    assert dataset.pixels.shape == (24, 32, 32, 3)
    assert (dataset.pixels[0, :14] == 0).all() and (dataset.pixels[0, 18:] == 255).all()
    expected = Image.fromarray(read(folder, "x")[20]).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(dataset.pixels[20], np.asarray(expected))


def meta(folder: Path, part: str, slides: list[str], column: str = "wsi") -> None:
    pd.DataFrame({"coord_x": 1, column: slides}).to_csv(folder / f"{NAME.format(part, 'meta')}.csv")


def test_slides_are_groups_where_they_are_known(folder: Path) -> None:
    before = SETTINGS.open("pcam")
    for part, count in COUNTS.items():
        meta(folder, part, [f"{part}_{row // 2}" for row in range(count)])
    dataset = SETTINGS.open("pcam")
    assert (dataset.samples["group"] != "").all() and "too narrow" not in dataset.limits
    assert dataset.samples["group"].tolist()[10:14] == ["train_5", "train_5", "valid_0", "valid_0"]
    assert dataset.content_hash != before.content_hash
    meta(folder, "test", ["train_0"] * 6)
    with pytest.raises(ClipItError, match="train_0 is in several splits"):
        SETTINGS.open("pcam")


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        (11, "wsi", r"train_meta.csv: 11 rows for 12 patches. Restore it, or move it away"),
        (12, "slide", r"no column wsi \(found: Unnamed: 0, coord_x, slide\)"),
    ],
)
def test_meta_files_that_do_not_fit(folder: Path, rows: int, column: str, message: str) -> None:
    meta(folder, "train", ["one"] * rows, column)
    with pytest.raises(ClipItError, match=message):
        SETTINGS.open("pcam")
    with pytest.raises(ClipItError, match=message):
        look()


PATCHES, LABELS = np.zeros((6, 96, 96, 3), np.uint8), np.zeros((6, 1, 1, 1), np.uint8)


@pytest.mark.parametrize(
    ("kind", "array", "key", "message"),
    [
        ("x", PATCHES[:, :95], "", r"x is uint8 \[6, 95, 96, 3\], expected uint8 \[n, 96, 96, 3\]"),
        ("x", PATCHES.astype(float), "", r"x is float64 \[6, 96, 96, 3\], expected uint8"),
        ("x", PATCHES[:5], "", "valid_y.h5: 5 patches but 6 labels"),
        ("x", PATCHES, "images", r"no x \(found: images\)"),
        ("y", LABELS[:, 0, 0, 0], "", r"y is uint8 \[6\], expected uint8 \[n, 1, 1, 1\]"),
        ("y", LABELS + np.uint8(7), "", "valid_y.h5: label 7, expected 0 or 1"),
    ],
)
def test_arrays_of_another_kind(
    folder: Path, kind: str, array: np.ndarray, key: str, message: str
) -> None:
    write(folder, "valid", kind, array, key)
    with pytest.raises(ClipItError, match=message) as caught:
        SETTINGS.open("pcam")
    assert "fetch pcam" in str(caught.value)
    with pytest.raises(ClipItError, match=message):
        look()


def test_missing_and_packed_files(folder: Path) -> None:
    path = folder / f"{NAME.format('test', 'y')}.h5"
    packed = path.with_name(f"{path.name}.gz")
    path.rename(packed)
    with pytest.raises(ClipItError, match=r"test_y.h5.gz: still packed. Unpack it: gunzip"):
        SETTINGS.open("pcam")
    packed.unlink()
    with pytest.raises(ClipItError, match=r"test_y.h5: no such file. Run `python -m companion"):
        SETTINGS.open("pcam")
    with pytest.raises(ClipItError, match=str(path)):
        look()


def test_a_file_that_is_cut_short(folder: Path) -> None:
    path = folder / f"{NAME.format('train', 'x')}.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ClipItError, match=r"missing or damaged \(.*truncated file"):
        look()


def test_damage_inside_a_file_leaves_no_cache(folder: Path, tmp_path: Path) -> None:
    path = folder / f"{NAME.format('train', 'x')}.h5"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    with pytest.raises(ClipItError, match="missing or damaged") as caught:
        SETTINGS.open("pcam")
    assert str(path) in str(caught.value)
    assert not [each for each in (tmp_path / "cache" / "patches").iterdir() if each.is_dir()]


def test_other_counts_than_published_are_refused(folder: Path) -> None:
    write(folder, "test", "x", PATCHES[:4])
    write(folder, "test", "y", LABELS[:4])
    with pytest.raises(ClipItError, match=r"PCAM \(4 test images, expected 6\)"):
        look()


def test_whole_files_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look() == 24
    monkeypatch.delenv("CLIPIT_DATA")
    with pytest.raises(ClipItError, match="CLIPIT_DATA"):
        look()
    absolute = SETTINGS.model_copy(update={"folder": str(folder)})
    assert len(absolute.open("pcam").samples) == 24


def test_what_is_published_is_what_the_phantom_mirrors() -> None:
    for name, entry in PUBLISHED_DATA.items():
        assert entry.classes == WORLDS[name].classes
    assert {name: sum(each.images.values()) for name, each in PUBLISHED_DATA.items()} == {
        "pcam": 327_680, "bach": 400, "crc": 107_180,
    }  # fmt: skip


def test_the_released_protocol_knows_the_data_sets_of_the_paper() -> None:
    profile = load_profile("paper").model_copy(update={"protocol": "released"})
    for dataset in ("pcam", "bach", "crc"):
        _, protocol = profile.tuned(dataset, "uni", "clip_it")
        assert protocol == protocol_named("released", dataset.upper())
    switches = [profile.tuned(each, "uni", "clip_it")[1] for each in ("pcam", "bach", "crc")]
    assert [each.letters_lost for each in switches] == [True, None, None]
    assert [each.validation_per_class for each in switches] == [None, 4, None]
    assert [each.class_text_share for each in switches] == [None, None, 0.5]
