"""Patches that are wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
             "Mend `folder`"),
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
             "data set patches", "each named once: calm, wild, calm", "Mend `classes`"),
    BadInput("patches of no pixels", lambda w: w.data(side=0), "bad.yaml", "side", "Mend this key"),
    BadInput("no manifest", lambda w: w.data(manifest="none.csv"), "none.csv", "no such manifest",
             "Mend its name or make the file"),
    BadInput("a manifest without labels", listed("path,split", "a.png,train"), "list.csv",
             "no column label", "A manifest needs path and label"),
    BadInput("a manifest of nothing", listed(HEAD), "list.csv", "no rows", "List at least one"),
    BadInput("a manifest in another encoding", latin, "list.csv", "not a UTF-8 csv", "Save it as"),
    BadInput("an image twice", listed(HEAD, *ROWS, ROWS[0]), "list.csv",
             "train/calm/0.png is listed again in line 8", "List every image once"),
    BadInput("an unknown split", listed(HEAD, ROWS[0].replace(",train", ",dev")), "list.csv",
             "split 'dev' in line 2", "Use train, validation, test"),
    BadInput("no test images", listed(HEAD, *ROWS[:4]), "list.csv", "no test images",
             "Put them in a test/ folder"),
    BadInput("one class", listed(HEAD, *ROWS[::2]), "data set patches",
             "needs two classes or more", "Mend `classes` or the labels"),
    BadInput("a missing image", listed(HEAD, *ROWS, "test/calm/9.png,calm,test"), "9.png",
             "no such image", "Add it or take it out"),
    BadInput("an image that was changed",
             listed(f"{HEAD},sha256", *(f"{r},{hashlib.sha256(b'').hexdigest()}" for r in ROWS)),
             "0.png", "differs from its sha256", "Restore the original file"),
    BadInput("data of no variable", lambda w: ["train", "table1", "-p", "profile", "pilot"],
             "CLIPIT_DATA", "the variable is not set", "export CLIPIT_DATA"),
]  # fmt: skip
