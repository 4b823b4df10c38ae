"""crc5 by a small stand-in of its list: which split goes where, and what is checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipit_lib.data.folder import read_manifest
from clipit_lib.errors import ClipItError
from companion import crc5
from companion.crc5 import Crc5Data

SETTINGS = Crc5Data(source="crc5", side=8, corpus="any")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten train, two test and three retriever images of each class."""
    root, rng = tmp_path / "crc5", np.random.default_rng(0)
    lines = ["path,split,label,sha256,source_path"]
    for split, count in {"train": 10, "test": 2, "retriever": 3}.items():
        for label in crc5.CLASSES:
            for number in range(count):
                path = root / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                lines.append(f"{path.relative_to(root)},{split},{label},{digest},upstream")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "ours.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    monkeypatch.setattr(crc5, "MANIFEST", tmp_path / "ours.csv")
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    return root


def test_the_retriever_split_stays_out_of_the_data_set(root: Path) -> None:
    dataset = SETTINGS.open("crc5")
    assert set(dataset.samples["split"]) == {"train", "validation", "test"}
    assert len(dataset.indices("test")) == 10
    assert dataset.classes == crc5.CLASSES
    assert "no patient or slide ids" in dataset.limits.lower()
    assert "do not redistribute" in dataset.licence
    pixels, labels = crc5.retriever_patches(SETTINGS.side)
    assert pixels.shape == (15, 8, 8, 3)
    assert np.bincount(labels).tolist() == [3] * 5
    shared = {p.tobytes() for p in pixels} & {p.tobytes() for p in dataset.pixels}
    assert not shared


def test_another_list_is_refused(root: Path) -> None:
    manifest = root / "manifest.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ClipItError, match="differs from the crc5 list") as caught:
        SETTINGS.open("crc5")
    assert "retriever/V/2.png (74 images, expected 75)" in str(caught.value)


@pytest.mark.parametrize("action", ["change", "remove"])
def test_images_are_checked_when_they_are_decoded(root: Path, action: str) -> None:
    image = root / "train" / "T" / "4.png"
    if action == "change":
        image.write_bytes((root / "train" / "V" / "4.png").read_bytes())
    else:
        image.unlink()
    words = "differs from its sha256" if action == "change" else "no such image"
    with pytest.raises(ClipItError, match=words) as caught:
        SETTINGS.open("crc5")
    assert str(image) in str(caught.value)


def test_no_manifest_or_no_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "manifest.csv").unlink()
    with pytest.raises(ClipItError, match="no such manifest"):
        SETTINGS.open("crc5")
    monkeypatch.setenv("CLIPIT_DATA", str(root / "absent"))
    with pytest.raises(ClipItError, match="CLIPIT_DATA: no folder"):
        SETTINGS.open("crc5")
    monkeypatch.delenv("CLIPIT_DATA")
    with pytest.raises(ClipItError, match="CLIPIT_DATA: the variable is not set"):
        crc5.retriever_patches(SETTINGS.side)


def test_the_list_this_project_carries() -> None:
    listed = read_manifest(crc5.MANIFEST, crc5.SPLITS)
    counts = listed.groupby(["split", "label"]).size().unstack()
    assert tuple(counts.columns) == crc5.CLASSES
    assert counts.T.iloc[0].to_dict() == {"retriever": 500, "test": 300, "train": 400}
    assert (counts.nunique(axis=1) == 1).all()
    assert listed["sha256"].is_unique
    assert listed["sha256"].str.fullmatch("[0-9a-f]{64}").all()


@pytest.mark.skipif("CLIPIT_DATA" not in os.environ, reason="CLIPIT_DATA is not set")
def test_the_users_list_is_the_one_this_project_carries() -> None:
    manifest = Path(os.environ["CLIPIT_DATA"]) / "crc5" / "manifest.csv"
    if not manifest.exists():
        pytest.skip(f"no {manifest}")
    assert len(crc5.listed(manifest)) == 6000
