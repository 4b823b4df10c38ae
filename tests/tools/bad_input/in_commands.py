"""Commands and their options that are wrong."""

from __future__ import annotations

import io
import stat
import zipfile

from bad_input.case import PROFILES, Act, BadInput, World, said


def predict(*names: str, options: tuple[str, ...] = ()) -> Act:
    """Predict on images of these names, of which none is there."""
    return lambda w: ["predict", str(w.run), *(str(w.place / name) for name in names), *options]


def seen(*options: str) -> Act:
    """Predict on a patch that is right, with options."""
    return lambda w: ["predict", str(w.run), str(w.home / "patches/test/calm/0.png"), *options]


def archived(member: str, mode: int = 0o644) -> Act:
    """Fetch from a folder with an archive that has one more member."""

    def act(world: World) -> list[str]:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            packed.writestr("ICIAR2018_BACH_Challenge/Photos/Benign/b001.tif", b"image")
            other = zipfile.ZipInfo(member)
            other.external_attr = mode << 16
            packed.writestr(other, b"/tmp/escaped.tif")
        world.file("ICIAR2018_BACH_Challenge.zip", content.getvalue())
        return ["fetch", "bach", "--from", str(world.place), "--accept-licence"]

    return act


def picture(world: World) -> list[str]:
    path = world.output / "figures" / "mine" / "drawn.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return ["trace", str(path)]


def no_archive(world: World) -> list[str]:
    world.file("ICIAR2018_BACH_Challenge.zip", "<html>log in</html>")
    return ["fetch", "bach", "--from", str(world.place), "--accept-licence"]


CASES = [
    BadInput("an unknown study", said("train", "table9"), "profile demo",
             "unknown study 'table9'", "Known: ablations"),
    BadInput("a seed in words", said("train", "table1", "--seed", "two"), "--seed",
             "two is not a whole number", "at least 0"),
    BadInput("an unknown part", said("train", "table1", "--sede", "2"), "python -m companion",
             "unrecognized arguments", "--sede"),
    BadInput("a part that is not there", lambda w: [*w.train(), "--seed", "7"], "study own",
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
             "unknown dataset 'pcam'", "Known: phantom-crc"),
    BadInput("a search of no trials", said("search", "--profile", "demo", "--dataset",
             "phantom-pcam", "--backbone", "phantom_vit_s16", "--trials", "0"), "--trials",
             "0 is not", "at least 1"),
    BadInput("reports to no csv", said("synthesize", "--profile", "demo", "--dataset",
             "phantom-pcam", "--endpoint", "http://localhost:1/v1", "--model", "m", "--output",
             "a.doc"), "--output", "unknown kind of file '.doc'", "Name a .csv"),
    BadInput("nothing that can be fetched", said("fetch", "camelyon"), "fetch",
             "unknown data set or corpus 'camelyon'", "Known: bach"),
    BadInput("terms that nobody accepts", lambda w: ["fetch", "bach", "--from", str(w.place)],
             "fetch bach", "nobody to accept its terms", "Add --accept-licence"),
    BadInput("an archive that leads away", archived("../../escaped.tif"), "BACH_Challenge.zip",
             "leads out of the folder", "Do not trust it"),
    BadInput("an archive with a root of its own", archived("/tmp/escaped.tif"),
             "BACH_Challenge.zip", "leads out of the folder", "Do not trust it"),
    BadInput("a doctor of no profile", said("doctor", "--profile", "none"), "profiles",
             "unknown profile 'none'", PROFILES),
    BadInput("a check of no profile", said("check", "--profile", "none"), "profiles",
             "unknown profile 'none'", PROFILES),
    BadInput("machines for nothing", said("plan", "--price", "0"), "--price",
             "0.0", "Give a number above 0"),
    BadInput("a machine that nobody measured", said("plan", "--gpu", "none"), "--gpu",
             "unknown GPU 'none'", "Known: 3090, 4090"),
    BadInput("an archive with a link", archived("ICIAR2018_BACH_Challenge/Photos/escaped.tif",
             stat.S_IFLNK | 0o777), "BACH_Challenge.zip", "leads out of the folder",
             "Do not trust it"),
    BadInput("an archive that is none", no_archive, "BACH_Challenge.zip", "a damaged archive",
             "Fetch or download it again"),
    BadInput("a fetch of nothing", said("fetch"), "fetch", "nothing to fetch", "Name one of"),
    BadInput("a fetch from nowhere", said("fetch", "bach", "--from", "none", "--accept-licence"),
             "none", "no such folder", "Fix --from"),
    BadInput("a text for an image", lambda w: ["predict", str(w.run), str(w.file("a.png", "hi"))],
             "a.png", "not a readable image", "Replace it"),
    BadInput("answers into a folder", seen("--output", "."), "bad-place", "is a folder",
             "Name a file"),
    BadInput("tiles of an unknown class", seen("--tiles", "16", "--class", "grey"), "--class",
             "no class 'grey'", "One of calm, wild"),
    BadInput("a stride without tiles", seen("--stride", "8"), "predict", "are of tiles",
             "Add --tiles SIDE"),
    BadInput("a heat map in words", seen("--tiles", "16", "--heatmap", "a.doc"), "--heatmap",
             "the file a.doc", "End it in .png"),
    BadInput("tiles for QuPath in words", seen("--tiles", "16", "--geojson", "a.doc"), "--geojson",
             "the file a.doc", "End it in .geojson"),
    BadInput("a whole slide as an image", predict("a.ndpi"), "a.ndpi", "a whole slide",
             "Add --tiles SIDE --mpp"),
    BadInput("the resolution of no slide", seen("--tiles", "16", "--mpp-of-slide", "0.25"),
             "predict", "--mpp-of-slide is of whole slides", "Add --mpp"),
    BadInput("an export into a file", lambda w: ["export", str(w.run), "--output",
             str(w.file("a", ""))], "bad-place", "no exported classifier", "Name a new folder"),
    BadInput("a search by an unknown backbone", said("search", "--profile", "demo", "--dataset",
             "phantom-pcam", "--backbone", "resnet"), "encoders", "unknown backbone 'resnet'",
             "Known: "),
    BadInput("a search of no cell", said("search", "--profile", "demo"), "search",
             "no data set or backbone is named", "Add --dataset and --backbone"),
    BadInput("reports from no address", said("synthesize", "--profile", "demo", "--dataset",
             "phantom-pcam", "--endpoint", "here", "--model", "m", "--output", "a.csv"),
             "--endpoint", "no address 'here'", "Write https://HOST/v1"),
    BadInput("a collection of no profile", said("collect", "--profile", "none"), "profiles",
             "unknown profile 'none'", PROFILES),
    BadInput("a study that the profile lacks", lambda w: ["train", "map", "--profile",
             str(w.home / "mine.yaml")], "profile mine", "no study 'map'", "Add `map: {}`"),
]  # fmt: skip
