"""Commands, notebooks and their parameters that are wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from bad_input.case import Act, BadInput, World


def said(*arguments: str) -> Act:
    """A command line that needs no file."""
    return lambda world: list(arguments)


def predict(*names: str, options: tuple[str, ...] = ()) -> Act:
    """Predict on images of these names, of which none is there."""
    return lambda w: ["predict", str(w.run), *(str(w.place / name) for name in names), *options]


def notebook(name: str, *parameters: str) -> Act:
    def act(world: World) -> list[str]:
        given = [part for each in parameters for part in ("-p", *each.split("=", 1))]
        return ["notebook", name, "--output", str(world.place / "out.ipynb"), *given]

    return act


def archived(member: str) -> Act:
    """Fetch from a folder with an archive that has one more member."""

    def act(world: World) -> list[str]:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            packed.writestr("ICIAR2018_BACH_Challenge/Photos/Benign/b001.tif", b"image")
            packed.writestr(member, b"escaped")
        world.file("ICIAR2018_BACH_Challenge.zip", content.getvalue())
        return ["fetch", "bach", "--from", str(world.place), "--accept-licence"]

    return act


def picture(world: World) -> list[str]:
    path = world.output / "figures" / "mine" / "drawn.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return ["trace", str(path)]


def spoilt_profile(world: World) -> list[str]:
    return notebook("01_pairing", f"profile={Path(world.profile(seeds='x'))}")(world)


TRAIN = "python -m clipit_lib train"
COMMANDS = [
    BadInput("an unknown study", said("train", "table9"), TRAIN, "invalid choice: 'table9'",
             "choose from"),
    BadInput("a seed in words", said("train", "table1", "-p", "seed", "two"), TRAIN,
             "seed is 'two'", "give a whole number"),
    BadInput("an unknown part", said("train", "table1", "-p", "sede", "2"), TRAIN,
             "unknown parameter sede", "known: profile"),
    BadInput("a part that is not there", lambda w: [*w.train(), "-p", "seed", "7"], "study own",
             "no run has seed 7", "See profile"),
    BadInput("a figure that is not there", said("trace", "figures/none.png"), "none.png",
             "no such file", "Name a figure or table"),
    BadInput("a figure of nobody", picture, "drawn.png", "there is no drawn.runs.json beside it",
             "Name a file that a notebook has saved"),
    BadInput("an export of no run", lambda w: ["export", str(w.place)], "bad-place",
             "no finished run here", "Name a folder below"),
    BadInput("an export over other files",
             lambda w: ["export", str(w.run), "--output", str(w.home)], "home",
             "no exported classifier",
             "Name a new folder"),
    BadInput("no image", predict("none.png"), "none.png", "no such image", "Add it"),
    BadInput("a folder without images", predict("."), "bad-place",
             "no images in this folder", "Known: .bmp"),
    BadInput("tiles of nothing", predict("a.png", options=("--tiles", "0")), "--tiles", "0",
             "Give a number above zero"),
    BadInput("a report of nothing run", said("report", "--profile", "phantom"), "phantom",
             "no executed notebook here", "Run ./run_all.sh --profile phantom"),
    BadInput("a search on other data", said("search", "--profile", "demo", "--dataset", "pcam",
             "--backbone", "phantom_vit_s16"), "profile demo",
             "unknown dataset 'pcam'", "Known: phantom-bach"),
    BadInput("a search of no trials", said("search", "--profile", "demo", "--dataset",
             "phantom-pcam", "--backbone", "phantom_vit_s16", "--trials", "0"), "--trials",
             "0 is not", "at least 1"),
    BadInput("reports to no csv", said("synthesize", "--profile", "demo", "--dataset",
             "phantom-pcam", "--endpoint", "http://localhost:1/v1", "--model", "m", "--output",
             "a.doc"), "--output", "unknown kind of file '.doc'", "Name a .csv"),
    BadInput("nothing that can be fetched", said("fetch", "camelyon"), "fetch",
             "invalid choice: 'camelyon'", "choose from"),
    BadInput("terms that nobody accepts", lambda w: ["fetch", "bach", "--from", str(w.place)],
             "fetch bach", "nobody to accept its terms", "Add --accept-licence"),
    BadInput("an archive that leads away", archived("../../escaped.tif"), "BACH_Challenge.zip",
             "leads out of the folder", "Do not trust it"),
    BadInput("an archive with a root of its own", archived("/tmp/escaped.tif"),
             "BACH_Challenge.zip", "leads out of the folder", "Do not trust it"),
    BadInput("a doctor of no profile", said("doctor", "--profile", "none"), "profiles",
             "unknown profile 'none'", "Known: demo"),
    BadInput("a check of no profile", said("check", "--profile", "none"), "profiles",
             "unknown profile 'none'", "Known: demo"),
    BadInput("machines without speed", said("plan", "--teraflops", "0"), "--teraflops",
             "0.0", "give a number above 0"),
]  # fmt: skip
NOTEBOOKS = [
    BadInput("an unknown notebook", notebook("99_magic"), "99_magic", "unknown notebook '99_magic'",
             "Known: 00_doctor"),
    BadInput("an unknown parameter", notebook("01_pairing", "profile=smoke", "rank=2"),
             "notebook parameters", "unknown parameter 'rank'", "Known: dataset"),
    BadInput("a parameter of another type", notebook("02_training", "profile=smoke", "seeds=two"),
             "notebook parameters", "seeds is 'two' (str)", "Give seeds as list[int]"),
    BadInput("a profile that is wrong", spoilt_profile, "bad.yaml", "seeds", "Mend this key"),
    BadInput("a place that cannot be written",
             lambda w: ["notebook", "01_pairing", "--output", str(w.file("file", "") / "a.ipynb")],
             "file", "cannot write here", "Give write permission"),
]  # fmt: skip
CASES = COMMANDS + NOTEBOOKS
