"""Patches that are wrong."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from bad_input.case import Act, BadInput, Spoil, World, cut

HEAD = "path,label,split"
ROWS = [f"{split}/{name}/0.png,{name},{split}" for split in ("train", "validation", "test")
        for name in ("calm", "wild")]  # fmt: skip
OUT = "Replace it or take it out of the list"


def spoilt(how: Spoil) -> Act:
    """The data set after `how` was done to the first test patch of the class calm."""

    def act(world: World) -> list[str]:
        folder = world.patches()
        how(folder / "test" / "calm" / "0.png")
        return world.data(folder=str(folder))

    return act


def sizeless(path: Path) -> None:
    """A PNG of no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
                     + struct.pack(">I", zlib.crc32(head)))  # fmt: skip


def published(how: Callable[[h5py.File], object] | None) -> Act:
    """PatchCamelyon whose training patches were spoilt, or are no h5 at all."""

    def act(world: World) -> list[str]:
        for part in ("train", "valid", "test"):
            for kind, shape in {"x": (2, 96, 96, 3), "y": (2, 1, 1, 1)}.items():
                path = world.place / f"camelyonpatch_level_2_split_{part}_{kind}.h5"
                with h5py.File(path, "w") as file:
                    file.create_dataset(kind, data=np.zeros(shape, np.uint8))
                    if how and path.name.endswith("train_x.h5"):
                        how(file)
                if how is None:
                    cut(path, 0.01)
        pcam = {"source": "pcam", "folder": str(world.place), "corpus": "reports"}
        return world.train(data={"patches": pcam})

    return act


def listed(*lines: str) -> Act:
    return lambda world: world.manifest(*lines)


def latin(world: World) -> list[str]:
    command = world.manifest(HEAD, *ROWS)
    (world.place / "patches" / "list.csv").write_bytes(
        "path,label\nf\xfcr.png,a\n".encode("latin-1")
    )
    return command


def emptied(path: Path) -> None:
    for image in path.parent.iterdir():
        image.unlink()


CASES = [
    BadInput("no folder", lambda w: w.data(folder=str(w.place / "none")), "none", "no such folder",
             "Fix `folder`"),
    BadInput("no class folders", lambda w: w.data(folder=str(w.place)), "bad-place",
             "no class folders", "Make one folder"),
    BadInput("a class without images", spoilt(emptied), "calm", "no images in this class",
             "Add images or remove it"),
    BadInput("an image cut short", spoilt(cut), "0.png", "cut short", OUT),
    BadInput("an empty image", spoilt(lambda p: p.write_bytes(b"")), "0.png",
             "not a readable image", OUT),
    BadInput("text in place of an image", spoilt(lambda p: p.write_text("hello")), "0.png",
             "not a readable image", OUT),
    BadInput("texts for other classes", lambda w: w.data(class_texts=["one"]), "data set patches",
             "1 class_texts for 2 classes", "Write one for each of calm, wild"),
    BadInput("a class twice", lambda w: w.data(classes=["calm", "wild", "calm"]),
             "data set patches", "each named once: calm, wild, calm", "Fix `classes`"),
    BadInput("patches of no pixels", lambda w: w.data(side=0), "bad.yaml", "side", "Fix this key"),
    BadInput("no manifest", lambda w: w.data(manifest="none.csv"), "none.csv", "no such manifest",
             "Fix its name or make the file"),
    BadInput("a manifest without labels", listed("path,split", "a.png,train"), "list.csv",
             "no column label", "A manifest needs path and label"),
    BadInput("a manifest of nothing", listed(HEAD), "list.csv", "no rows", "List at least one"),
    BadInput("a manifest in another encoding", latin, "list.csv", "not a csv in UTF-8",
             "Save it as"),
    BadInput("an image twice", listed(HEAD, *ROWS, ROWS[0]), "list.csv",
             "train/calm/0.png is listed again in line 8", "List every image once"),
    BadInput("an unknown split", listed(HEAD, ROWS[0].replace(",train", ",devel")), "list.csv",
             "split 'devel' in line 2", "Use train, validation, test"),
    BadInput("no test images", listed(HEAD, *ROWS[:4]), "list.csv", "no test images",
             "Put them in a test/ folder"),
    BadInput("one class", listed(HEAD, *ROWS[::2]), "data set patches",
             "needs two classes or more", "Fix `classes` or the labels"),
    BadInput("a missing image", listed(HEAD, *ROWS, "test/calm/9.png,calm,test"), "9.png",
             "no such image", "Add it or take it out"),
    BadInput("an image that was changed",
             listed(f"{HEAD},sha256", *(f"{r},{hashlib.sha256(b'').hexdigest()}" for r in ROWS)),
             "0.png", "differs from its sha256", "Restore the original file"),
    BadInput("data of no variable", lambda w: ["train", "table1", "--profile", "pilot"],
             "CLIPIT_DATA", "the variable is not set", "export CLIPIT_DATA"),
    BadInput("an image of no size", spoilt(sizeless), "0.png", "not a readable image", OUT),
    BadInput("a file for a folder", lambda w: w.data(folder=str(w.file("patches", ""))), "patches",
             "no such folder", "Fix `folder`"),
    BadInput("a folder for a manifest", lambda w: w.data(manifest="train"), "train",
             "not a csv in UTF-8", "Save it as"),
    BadInput("an image without a label", listed(HEAD, *ROWS, "train/calm/1.png,,train"),
             "list.csv", "no label in line 8", "Fill it in"),
    BadInput("a label of two lines", lambda w: w.manifest(HEAD, *ROWS,
             'train/calm/1.png,"be\nnign",train', classes=["calm", "wild"]), "list.csv",
             "labels outside the classes: be nign", "Classes of the profile"),
    BadInput("commas that make cells", listed("path,label", *(f"{r},extra" for r in ROWS)),
             "list.csv", "more cells than the header", "Quote"),
    BadInput("a class without training images", listed(HEAD, *ROWS[:1], *ROWS[2:]),
             "data set patches", "no train patches of wild", "Fix the data"),
    BadInput("validation from nowhere", lambda w: w.manifest(HEAD, *ROWS[:2], *ROWS[4:],
             validation_split={"by": "official"}), "validation", "brings no validation samples",
             "Use stratified"),
    BadInput("h5 without a key", published(lambda file: file.move("x", "images")),
             "train_x.h5", "no x (found: images)", "companion fetch pcam"),
    BadInput("h5 of another shape", published(lambda file: (file.pop("x"),
             file.create_dataset("x", data=np.zeros((2, 8, 8, 3), np.uint8)))), "train_x.h5",
             "x is uint8 [2, 8, 8, 3]", "companion fetch pcam"),
    BadInput("h5 that is none", published(None), "train_x.h5", "missing or damaged",
             "companion fetch pcam"),
]  # fmt: skip
