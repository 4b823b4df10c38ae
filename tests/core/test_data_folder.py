"""Images of the user: both layouts, exact pixels, and one line for whatever is wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipit_lib.data.folder import FolderData
from clipit_lib.data.images import fitted, read_image
from clipit_lib.data.patches import PatchDataset, ValidationSplit
from clipit_lib.errors import ClipItError

SIDE = 8


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))


def write_image(path: Path, value: int, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """train and test, two classes, six images each."""
    folder = tmp_path / "mine"
    for number in range(24):
        split, label = ("train", "test")[number % 2], ("in_situ", "normal")[number // 2 % 2]
        write_image(folder / split / label / f"{number:02d}.png", number)
    return folder


def settings(folder: str = "mine", **changes: Any) -> FolderData:
    values: dict[str, Any] = {
        "source": "folder", "folder": folder, "side": SIDE, "corpus": "any",
        "validation_split": ValidationSplit(by="stratified", fraction=0.34),
    }  # fmt: skip
    return FolderData(**values | changes)


def write_manifest(folder: Path, *lines: str, header: str = "path,label,split") -> FolderData:
    (folder / "list.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return settings(manifest="list.csv")


def listed(folder: Path) -> list[str]:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    return [f"{file},{file.split('/')[1]},{file.split('/')[0]}" for file in files]


def assert_one_line(caught: pytest.ExceptionInfo[ClipItError], *words: object) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def by_id(dataset: PatchDataset) -> dict[str, np.ndarray]:
    return dict(zip(dataset.samples["id"], np.asarray(dataset.pixels), strict=True))


def test_class_folders(images: Path) -> None:
    dataset = settings().open("mine")
    assert dataset.classes == ("in_situ", "normal")
    assert dataset.class_texts == ("in situ", "normal")
    counts = dataset.samples.groupby(["split", "label"]).size()
    assert counts.to_dict() == {
        ("test", 0): 6, ("test", 1): 6, ("train", 0): 4, ("train", 1): 4,
        ("validation", 0): 2, ("validation", 1): 2,
    }  # fmt: skip
    assert (dataset.samples["group"] == "").any()
    for name, pixels in by_id(dataset).items():
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(images / name)))


@pytest.mark.parametrize("name", ["val", "validation", "valid", "dev", "Validation", "VAL"])
def test_a_validation_folder_is_used_as_it_is(images: Path, name: str) -> None:
    for label in ("in_situ", "normal"):
        write_image(images / name / label / "v.png", 99)
    held = settings().open("mine").samples.query("split == 'validation'")
    assert set(held["id"]) == {f"{name}/in_situ/v.png", f"{name}/normal/v.png"}


def test_a_manifest_gives_the_same_patches_and_its_groups(images: Path) -> None:
    lines = [f"{line},slide-{line.split(',')[2]}" for line in listed(images)]
    from_list = write_manifest(images, *lines, header="path,label,split,group")
    split = ValidationSplit(by="stratified", fraction=0.34)
    plain = by_id(settings().open("folders"))
    grouped = from_list.model_copy(update={"validation_split": split})
    with pytest.raises(ClipItError, match="stratified would divide 1 groups that are known"):
        grouped.open("grouped")
    ungrouped = by_id(write_manifest(images, *listed(images)).open("list"))
    assert plain.keys() == ungrouped.keys()
    assert all((plain[name] == ungrouped[name]).all() for name in plain)


def test_absolute_folders_need_no_data_variable(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLIPIT_DATA")
    assert len(settings(str(images)).open("mine").samples) == 24
    with pytest.raises(ClipItError, match="CLIPIT_DATA: the variable is not set"):
        settings().open("mine")


def test_a_changed_image_is_noticed(images: Path) -> None:
    before = settings().open("mine")
    write_image(images / "train" / "normal" / "02.png", 77)
    os.utime(images / "train" / "normal" / "02.png", (1, 1))
    assert settings().open("mine").content_hash != before.content_hash


def test_terms_and_texts_change_without_decoding_again(images: Path) -> None:
    before = settings().open("mine")
    changed = settings(licence="CC0", class_texts=("carcinoma in situ", "normal gland"))
    after = changed.open("mine")
    assert (after.licence, after.class_texts[0]) == ("CC0", "carcinoma in situ")
    assert after.content_hash == before.content_hash


def test_other_sizes_are_resized_and_centre_cropped(tmp_path: Path) -> None:
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (fitted(read_image(tmp_path / "wide.png"), 8)[:, 1:-1] > 190).all()
    Image.fromarray(wide[:, :, 0]).save(tmp_path / "grey.png")
    assert fitted(read_image(tmp_path / "grey.png"), 4).shape == (4, 4, 3)


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert fitted(read_image(tmp_path / "stripes.png"), 8).std() < 10


def test_hidden_files_are_no_images(images: Path) -> None:
    (images / "train" / "normal" / "._02.png").write_bytes(b"resource fork")
    (images / "train" / ".cache").mkdir()
    write_image(images / "train" / "normal" / ".thumbnails" / "02.png", 0)
    dataset = settings().open("mine")
    assert len(dataset.samples) == 24 and len(dataset.notes) == 1  # they are small


def test_what_is_passed_over_is_said_at_every_opening(images: Path) -> None:
    write_image(images / "test" / "normal" / "long.png", 1, side=40)
    image = Image.new("RGB", (100, 40))
    image.save(images / "test" / "normal" / "long.png")
    image.save(images / "train" / "loose.png")
    image.save(images / "train" / "normal" / "old.gif")
    (images / "train" / "normal" / "notes.txt").write_text("not an image")
    (images / "extra" / "normal").mkdir(parents=True)
    for _ in range(2):
        dataset = settings().open("mine")
        assert len(dataset.samples) == 25
        assert sorted(dataset.notes) == [
            "1 images passed over that lie in no class folder",
            "1 of 25 images are more than 2 times as long as wide, so that most is cropped away",
            "2 files passed over (.gif 1, .txt 1)",
            "24 of 25 images are less than 32 pixels wide or high",
            "folders passed over beside train, test: extra",
        ]


def test_folders_are_known_in_any_case_and_once_for_a_split(images: Path) -> None:
    before = settings().open("mine")
    (images / "train").rename(images / "Train")
    (images / "test").rename(images / "TEST")
    after = settings().open("mine")
    np.testing.assert_array_equal(before.pixels, after.pixels)
    assert after.samples["split"].tolist() == before.samples["split"].tolist()
    for name in ("val", "Dev"):
        write_image(images / name / "normal" / "v.png", 99)
    with pytest.raises(ClipItError, match="several folders of validation images: val, Dev"):
        settings().open("mine")


def test_links_are_followed_and_labels_are_composed(images: Path, tmp_path: Path) -> None:
    """The folder of one split writes its letters apart, the other together, one with a blank."""
    (images / "train" / "normal").rename(images / "train" / "Dru\u0308se ")
    (images / "test" / "normal").rename(tmp_path / "far")
    (images / "test" / "Dr\u00fcse").symlink_to(tmp_path / "far", target_is_directory=True)
    (images / "train" / "all").symlink_to(images / "train", target_is_directory=True)  # a loop
    dataset = settings(classes=(" Dr\u00fcse", "in_situ")).open("mine")
    assert dataset.classes == ("Dr\u00fcse", "in_situ") and len(dataset.samples) == 24


def test_a_name_that_is_not_utf8_is_said(images: Path) -> None:
    os.rename(images / "test" / "normal" / "03.png", os.fsencode(images) + b"/test/normal/\xfc.png")
    with pytest.raises(ClipItError, match="is not UTF-8") as caught:
        settings().open("mine")
    assert_one_line(caught, r"test/normal/\udcfc.png")
    str(caught.value).encode()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ClipItError, match="no such folder") as caught:
        settings("absent").open("mine")
    assert_one_line(caught, tmp_path / "absent", "Fix `folder`")


def test_class_folder_without_images(images: Path) -> None:
    (images / "train" / "tumor").mkdir()
    with pytest.raises(ClipItError, match="no images in this class folder") as caught:
        settings().open("mine")
    assert_one_line(caught, images / "train" / "tumor")


def test_no_class_folders(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ClipItError, match="no class folders"):
        settings().open("mine")


def test_no_test_images(tmp_path: Path) -> None:
    for label in ("a", "b"):
        write_image(tmp_path / "mine" / label / "0.png", 0)
    with pytest.raises(ClipItError, match="no test images") as caught:
        settings().open("mine")
    assert_one_line(caught, "none are drawn at random")


def test_labels_outside_the_classes(images: Path) -> None:
    with pytest.raises(ClipItError, match="labels outside the classes: in_situ") as caught:
        settings(classes=("normal", "in\u200b situ")).open("mine")
    assert_one_line(caught, "normal, in situ")


def test_class_texts_of_another_number(images: Path) -> None:
    settings().open("mine")
    with pytest.raises(ClipItError, match="1 class_texts for 2 classes") as caught:
        settings(class_texts=("normal gland",)).open("mine")
    assert_one_line(caught, "in_situ, normal")


def test_a_class_without_images(images: Path) -> None:
    with pytest.raises(ClipItError, match="no train patches of invasive"):
        settings(classes=("in_situ", "normal", "invasive")).open("mine")


def truncated_jpeg(path: Path) -> None:
    write_image(path.with_name("whole.jpg"), 1, side=64)
    data = path.with_name("whole.jpg").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    path.with_name("whole.jpg").unlink()


@pytest.mark.parametrize(
    "harm",
    [truncated_jpeg, lambda path: path.write_text("a report"), lambda path: path.write_bytes(b"")],
    ids=["truncated", "text", "empty"],
)
def test_a_corrupt_image_is_named_and_earlier_results_stay(
    images: Path, harm: Callable[[Path], object]
) -> None:
    before = settings().open("mine").content_hash
    broken = images / "train" / "normal" / "broken.jpg"
    harm(broken)
    with pytest.raises(ClipItError, match="not a readable image or cut short") as caught:
        settings().open("mine")
    assert_one_line(caught, broken, "Replace it")
    broken.unlink()
    assert settings().open("mine").content_hash == before


@pytest.mark.parametrize(
    ("header", "lines", "words"),
    [
        ("path,class", ["a.png,x"], "no column label (found: path, class)"),
        ("file,label", ["a.png,x"], "no column path (found: file, label)"),
        ("path,label,split", [], "no rows"),
        ("path,label", ["a.png,x", "b.png,x", "a.png,y"], "a.png is listed again in line 4"),
        ("path,label,split", ["a.png,x,train", "b.png,x,tset"], "split 'tset' in line 3"),
        ("path,label,split", ["a.png,x,test"], "no such image"),
        ("path,label", ["a.png,x,train,more", '"'], "not a csv in UTF-8"),
        ("path,label, label", ["a.png,x,x"], "two columns label. Keep one of them"),
        ("path,lab\u00a0el", ["a.png,x"], "no column label (found: path, lab el)"),
        ("path,label,split", ["a.png, ,test"], "no label in line 2"),
        ("path,label,split", [r"a\b.png,x,test"], "no such image. Write / in paths, not \\."),
    ],
)
def test_manifest_mistakes(images: Path, header: str, lines: list[str], words: str) -> None:
    with pytest.raises(ClipItError) as caught:
        write_manifest(images, *lines, header=header).open("mine")
    assert_one_line(caught, words, images)


def test_a_manifest_may_be_written_by_hand_on_another_system(images: Path) -> None:
    """Blanks, \\ for /, letters composed or not, other names of splits: the same data set."""
    lines = [f"{line},slide-{number}" for number, line in enumerate(listed(images))]
    split, header = ValidationSplit(by="group", fraction=0.34), "path,label,split,group"
    plain = write_manifest(images, *lines, header=header)
    before = plain.model_copy(update={"validation_split": split}).open("mine")
    (images / "train" / "normal" / "02.png").rename(images / "train" / "normal" / "u\u0308.png")
    write_manifest(
        images,
        *(line.replace("train/normal/02.png", "train/normal/\u00fc.png").replace("/", "\\")
          .replace(",normal,", ", normal\u00a0,").replace(",train,", ", Train\u200b ,")
          .replace("slide-3", "slide-3 \ufeff") for line in lines),
        header="path , Label,split ,\u200bGROUP ",
    )  # fmt: skip
    after = plain.model_copy(update={"validation_split": split}).open("mine")
    assert after.classes == before.classes == ("in_situ", "normal")
    for name in ("label", "split", "group"):
        assert after.samples[name].tolist() == before.samples[name].tolist()
    np.testing.assert_array_equal(after.pixels, before.pixels)


@pytest.mark.parametrize(
    "name", ["./test/normal/03.png", "train/../test/normal/03.png", "link.png"]
)
def test_one_file_is_in_one_split_and_class(images: Path, name: str) -> None:
    lines = [*listed(images), f"{name},normal,train"]
    (images / "link.png").symlink_to(images / "test" / "normal" / "03.png")
    with pytest.raises(ClipItError, match=r"03\.png \(test, normal\) and .* are one file"):
        write_manifest(images, *lines).open("mine")


def test_columns_that_are_not_used_are_named(images: Path) -> None:
    lines = [f"{line},p" for line in listed(images)]
    dataset = write_manifest(images, *lines, header="path,label,split,Patient id").open("mine")
    assert dataset.notes[0] == "columns of list.csv that are not used: Patient id"


def test_manifest_that_is_missing_or_in_another_encoding(images: Path) -> None:
    with pytest.raises(ClipItError, match="no such manifest"):
        settings(manifest="absent.csv").open("mine")
    (images / "list.csv").write_bytes("path,label\nä.png,x\n".encode("latin-1"))
    with pytest.raises(ClipItError, match="not a csv in UTF-8") as caught:
        settings(manifest="list.csv").open("mine")
    assert_one_line(caught, images / "list.csv")


def test_sha256_is_checked_when_given(images: Path) -> None:
    lines = []
    for line in listed(images):
        data = (images / line.split(",")[0]).read_bytes()
        lines.append(f"{line},{hashlib.sha256(data).hexdigest().upper()}")
    header = "path,label,split,sha256"
    assert len(write_manifest(images, *lines, header=header).open("mine").samples) == 24
    lines[0] = lines[0].rsplit(",", 1)[0] + "," + 64 * "0"
    with pytest.raises(ClipItError, match="differs from its sha256") as caught:
        write_manifest(images, *lines, header=header).open("mine")
    assert_one_line(caught, images / lines[0].split(",")[0])
