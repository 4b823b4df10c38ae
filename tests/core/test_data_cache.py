"""A cache is whole or absent, is made once, and never passes for another."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clipit_lib.data.patches import BLOCK, Recipe, Undecoded, ValidationSplit, open_or_build
from clipit_lib.errors import ClipItError

CLASSES = ("benign", "malignant")
COUNT = 2 * BLOCK + 7
Decode = Callable[[int, int], np.ndarray]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))


def patches(begin: int, end: int) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), number % 251, np.uint8) for number in range(begin, end)])


def table(count: int = COUNT) -> pd.DataFrame:
    numbers = np.arange(count)
    splits = np.array(["train", "validation", "test"])[numbers // 2 % 3]
    return pd.DataFrame(
        {
            "id": [f"p{n}" for n in numbers],
            "split": splits,
            "label": numbers % 2,
            "group": [f"slide-{split}" for split in splits],
        }
    )


def recipe(
    decode: Decode = patches,
    samples: pd.DataFrame | None = None,
    gathered: list[int] | None = None,
    **changes: Any,
) -> Recipe:
    def gather() -> Undecoded:
        if gathered is not None:
            gathered.append(os.getpid())
        return Undecoded(table() if samples is None else samples, decode)

    values: dict[str, Any] = {
        "name": "toy", "declaration": {"made": "here"}, "classes": CLASSES, "class_texts": CLASSES,
        "side": 4, "gather": gather, "validation_split": ValidationSplit(),
        "licence": "free", "limits": "none",
    }  # fmt: skip
    return Recipe(**values | changes)


def test_blocks_are_kept_in_order_and_gathered_once() -> None:
    gathered: list[int] = []
    first = open_or_build(recipe(gathered=gathered))
    again = open_or_build(recipe(gathered=gathered))
    assert len(gathered) == 1
    np.testing.assert_array_equal(first.pixels[:, 0, 0, 0], np.arange(COUNT) % 251)
    assert isinstance(again.pixels, np.memmap)
    assert not again.pixels.flags.writeable
    assert first.content_hash == again.content_hash
    pd.testing.assert_frame_equal(first.samples, again.samples)
    assert again.labels.dtype == np.int64
    assert (again.samples["group"] != "").all()


@pytest.mark.parametrize(
    ("column", "value"), [("id", "q"), ("label", 1), ("split", "test"), ("group", "slide-7")]
)
def test_the_content_hash_follows_every_column(column: str, value: Any) -> None:
    plain = table().assign(group="")
    changed = plain.copy()
    changed.loc[0, column] = value
    kept = open_or_build(recipe(samples=plain))
    other = open_or_build(recipe(samples=changed, declaration={"made": "there"}))
    assert kept.content_hash != other.content_hash


def test_the_content_hash_follows_the_pixels_alone() -> None:
    kept = open_or_build(recipe())
    same = open_or_build(recipe(declaration={"made": "elsewhere"}, name="other"))
    brighter = open_or_build(
        recipe(lambda begin, end: patches(begin, end) + 1, declaration={"made": "brighter"})
    )
    assert kept.content_hash == same.content_hash != brighter.content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"declaration": {"made": "there"}},
        {"classes": ("malignant", "benign")},
        {"validation_split": ValidationSplit(by="stratified")},
    ],
)
def test_other_settings_are_another_cache(changes: dict[str, Any]) -> None:
    gathered: list[int] = []
    open_or_build(recipe(gathered=gathered))
    open_or_build(recipe(gathered=gathered, **changes))
    assert len(gathered) == 2


def test_an_interrupted_build_leaves_nothing_and_the_next_one_is_whole(tmp_path: Path) -> None:
    def interrupted(begin: int, end: int) -> np.ndarray:
        if begin:
            raise KeyboardInterrupt
        return patches(begin, end)

    with pytest.raises(KeyboardInterrupt):
        open_or_build(recipe(interrupted))
    left = [path for path in (tmp_path / "cache" / "patches").iterdir() if path.suffix != ".lock"]
    assert left == []
    assert len(open_or_build(recipe()).samples) == COUNT


def test_a_data_set_that_does_not_hold_is_not_kept() -> None:
    without_test = table().query("split != 'test'").reset_index(drop=True)
    with pytest.raises(ClipItError, match="no test patches of benign, malignant"):
        open_or_build(recipe(samples=without_test))
    assert not recipe().folder.exists()


@pytest.mark.parametrize("unknown", [[], [0], [0, 2, 3]])
def test_a_known_group_in_two_splits_is_refused_whatever_is_unknown(unknown: list[int]) -> None:
    samples = table()
    samples.loc[[1, 4], "group"] = "twice"  # train and test
    samples.loc[unknown, "group"] = ""
    with pytest.raises(ClipItError, match="group twice is in several splits"):
        open_or_build(recipe(samples=samples))
    samples.loc[1, "group"] = ""
    assert len(open_or_build(recipe(samples=samples)).samples) == COUNT


def test_what_is_unusual_is_said_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    samples = table().assign(group="")
    samples.loc[samples["split"] == "validation", "split"] = "train"
    samples["group"] = [f"g{row}" if row > 2 else "" for row in range(COUNT)]
    changes = {"validation_split": ValidationSplit(by="group"), "notes": ("seen first",)}
    gather = lambda: Undecoded(samples, patches, lambda: ["3 are small"])  # noqa: E731
    said = ("seen first", "3 are small",
            "3 train patches have no group: each was drawn as one of its own")  # fmt: skip
    assert open_or_build(recipe(gather=gather, **changes)).notes == said
    assert capsys.readouterr().out.splitlines() == [f"toy: {line}" for line in said]
    assert open_or_build(recipe(gather=gather, **changes)).notes == said
    assert capsys.readouterr().out == ""


def _open_in_process(cache: str, start: Any, seen: Any) -> None:
    os.environ["CLIPIT_CACHE"] = cache
    start.wait()
    gathered: list[int] = []
    dataset = open_or_build(recipe(gathered=gathered))
    seen.put((len(gathered), dataset.content_hash))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, seen = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=_open_in_process, args=(str(tmp_path / "shared"), start, seen))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    answers = [seen.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert sorted(count for count, _ in answers) == [0, 1]
    assert len({content_hash for _, content_hash in answers}) == 1


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def lengthen(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def replace_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 4, 4, 3), np.uint8))


def other_settings(path: Path) -> None:
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"declaration": {"made": "there"}}))


@pytest.mark.parametrize(
    ("file", "harm", "words"),
    [
        ("pixels.npy", cut, "missing or damaged"),
        ("pixels.npy", lengthen, "expected"),
        ("pixels.npy", replace_shape, r"pixels \(3, 4, 4, 3\), expected \[519, 4, 4, 3\]"),
        ("pixels.npy", Path.unlink, "missing or damaged"),
        ("samples.parquet", cut, "missing or damaged"),
        ("samples.parquet", Path.unlink, "missing or damaged"),
        ("dataset.json", cut, "missing or damaged"),
        ("dataset.json", Path.unlink, "missing or damaged"),
        ("dataset.json", other_settings, "made from other settings"),
    ],
)
def test_a_damaged_cache_names_the_file_and_the_remedy(
    file: str, harm: Callable[[Path], None], words: str
) -> None:
    open_or_build(recipe())
    path = recipe().folder / file
    harm(path)
    with pytest.raises(ClipItError, match=words) as caught:
        open_or_build(recipe())
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(f"Delete the folder {path.parent} and run again")
    assert "\n" not in message


def test_a_table_of_another_length_is_refused() -> None:
    open_or_build(recipe())
    table(5).to_parquet(recipe().folder / "samples.parquet")
    with pytest.raises(ClipItError, match="5 rows for 519 patches"):
        open_or_build(recipe())


def test_a_file_where_the_cache_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(ClipItError, match="cannot write here") as caught:
        open_or_build(recipe())
    assert "CLIPIT_CACHE" in str(caught.value)
    assert (tmp_path / "cache").read_text() == "not a folder"


def test_an_auxiliary_set_needs_no_splits() -> None:
    samples = table().assign(split="retriever")
    kept = open_or_build(recipe(samples=samples, validation_split=None))
    assert set(kept.samples["split"]) == {"retriever"}
