"""Slides as bags of features with clinical data: of the user, or of the phantom.

The command `bags` makes those of the user, from tiles or whole slides.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, UInt8
from safetensors import safe_open
from torch import Tensor, nn

from clipit_lib import files, kernels
from clipit_lib.compute import device
from clipit_lib.data.images import SUFFIXES as IMAGES
from clipit_lib.data.images import decode_image
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from clipit_lib.parallel import make_once
from clipit_lib.settings import PHANTOM_VERSION
from companion import paths, predict, slides
from companion.phantom import PHANTOM_LIMITS
from companion.phantom.latents import PATIENTS_PER_SPLIT, SPLITS, Latents, draw
from companion.phantom.patches import render
from companion.profile import (
    FileSlides,
    PhantomSlides,
    Profile,
    SurvivalSettings,
    load_profile,
    sources_of_profile,
)

# -- Slides as bags of patch features: one file a slide, one clinical csv a cohort.
#
# The layout is that of the usual slide pipelines. For the Metastatic Breast Cancer slides of
# section F.6, which are not public in this form, it would be
#
#     mbc/bags/SLIDE.h5         features  [patches, 1024]  float, UNI, one row a patch
#                               retriever [patches, 512]   float, CONCH's image embeddings of the
#                                                          same patches in the same order, projected
#                                                          into the space of its text tower
#     mbc/clinical.csv          slide,patient,time,event,fold; months, 1 (seen) or 0, from 1 to 5
#
# A `.safetensors` file with the same names serves as well. Other arrays (`coords`) are ignored, and
# `retriever` is needed by `clip_it` only. `patient` may be left out where each has one slide.
#
# All slides of a patient are one bag, as in MCAT (Chen et al. 2021): a patient has one follow-up,
# and so counts once in the Cox loss, in both metrics, in resamples and in the log-rank test.

FEATURES = "features"
ARRAYS = (FEATURES, "retriever")
SUFFIXES = (".h5", ".safetensors")


@dataclass(frozen=True)
class Bag:
    """The patches of one slide.

    Attributes:
        features: [p, d], what the model sees.
        retriever: [p, e], image embeddings by the retriever, for pairing; None if not known.
    """

    features: Float32[np.ndarray, "p d"]
    retriever: Float32[np.ndarray, "p e"] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Those that are known, by name."""
        return {name: values for name in ARRAYS if (values := getattr(self, name)) is not None}

    @staticmethod
    def joined(parts: Sequence[Bag]) -> Bag:
        """The patches of several slides, slide after slide."""
        if len(parts) == 1:
            return parts[0]
        arrays = [part.arrays() for part in parts]
        return Bag(**{name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]})


def write_bag(path: Path, bag: Bag, made_by: str = "") -> None:
    """Write a bag as h5, and in words what made it, if that is given."""
    with files.written_beside(path) as temporary, h5py.File(temporary, "w") as file:
        file.update(bag.arrays())
        if made_by:
            file.attrs["made_by"] = made_by


def read_bag(path: Path, most: int | None = None) -> Bag:
    """Read a bag; of more than `most` patches, that many are kept, evenly spaced.

    Raises:
        ClipItError: the file is damaged; it has no features; arrays are no numbers [patches,
            width], differ in their patches, are empty or hold what is not finite in float32.
    """
    h5 = path.suffix.lower() == ".h5"
    with (
        files.whole(path, "Write it anew"),
        h5py.File(path) if h5 else safe_open(path, "numpy") as file,
    ):
        arrays = {
            name: np.asarray(file[name][()] if h5 else file.get_tensor(name))
            for name in ARRAYS
            if name in file.keys()  # noqa: SIM118
        }
    if FEATURES not in arrays:
        what = f"no {FEATURES!r} in it"
        raise ClipItError(what, path, "Write the patch features under this name")
    for name, values in arrays.items():
        if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
            what = f"{name} is {values.dtype} of shape {list(values.shape)}"
            raise ClipItError(what, path, "Write it as numbers [patches, width]")
        if len(values) != (count := len(arrays[FEATURES])):
            what = f"{name} has {len(values)} patches, {FEATURES} {count}"
            raise ClipItError(what, path, "Embed the same patches in the same order")
        with np.errstate(over="ignore"):
            arrays[name] = values.astype(np.float32)
        if not np.isfinite(arrays[name]).all():
            what = f"{name} holds NaN, infinity or what float32 cannot hold"
            raise ClipItError(what, path, "Embed the slide again")
    kept = slice(None) if most is None or count <= most else np.arange(most) * count // most
    return Bag(**{name: values[kept] for name, values in arrays.items()})


# -- The command `bags`: slides of the user, by the encoders of a profile.


@dataclass(frozen=True)
class Encoders:
    """A backbone, with the width of its features, and the image half of a retriever."""

    towers: tuple[tuple[nn.Module, Transform], ...]
    width: int

    @classmethod
    def of(cls, profile: Profile, backbone: str) -> Encoders:
        """A backbone and the profile's retriever; raises as `registry.load_backbone` does."""
        sources = sources_of_profile(profile)
        found = registry.load_backbone(backbone, sources)
        clip = registry.load_clip(profile.retriever, sources)
        pairs = ((found.model, found.transform), (clip.image_tower, clip.transform))
        return cls(tuple((model.to(device()).eval(), to) for model, to in pairs), found.width)

    @torch.inference_mode()
    def embed(self, patches: UInt8[np.ndarray, "n s s 3"]) -> Float32[Tensor, "n d_e"]:
        """Features and the retriever's embeddings, side by side, on the CPU."""
        return torch.cat([tower(to(patches)).float().cpu() for tower, to in self.towers], dim=1)

    def bag(self, rows: Float32[np.ndarray, "n d_e"]) -> Bag:
        """What `embed` has side by side, apart again."""
        return Bag(*np.split(rows, [self.width], axis=1))


def bag_of(images: Sequence[Path], encoders: Encoders, given: Namespace) -> Bag:
    """The bag of some tiles or, with --tiles, of a large image or whole slide.

    Raises:
        ClipItError: a tile or the slide cannot be read, or there is nothing but background.
    """
    size, count = max(transform.size for _, transform in encoders.towers), predict.BATCH
    if given.tiles is None:
        blocks = (images[begin : begin + count] for begin in range(0, len(images), count))
        stacks = (np.stack([decode_image(each, size) for each in block]) for block in blocks)
        return encoders.bag(np.concatenate([encoders.embed(stack).numpy() for stack in stacks]))
    source, _, grid, said = predict.gridded(images[0], given)
    print(f"{images[0]}: {'; '.join([*said, f'{len(grid.corners)} tiles'])}", file=sys.stderr)
    tiles = predict.classified(source, grid, encoders.embed, size, given.background)
    rows = [tile.probabilities for tile in tiles if tile.probabilities is not None]
    if not rows:
        raise ClipItError("no tile shows tissue", images[0], "Lower --background")
    return encoders.bag(np.stack(rows))


def slides_among(given: Namespace) -> dict[str, list[Path]]:
    """By slide, the tiles that lie in one folder or, with --tiles, the one large image.

    Raises:
        ClipItError: there are none, or two slides of one name.
    """
    found: dict[Path, list[Path]] = defaultdict(list)
    for path in given.images if given.tiles is None else ():
        if not path.is_dir():
            raise ClipItError("no folder of tiles", path, "Add --tiles SIDE to cut it into tiles")
    for path in predict.listed_images(given.images, slides.SUFFIXES if given.mpp else IMAGES):
        found[path.parent if given.tiles is None else path.with_suffix("")].append(path)
    named: dict[str, list[Path]] = {}
    for place, tiles in found.items():
        if named.setdefault(files.tidy(place.name), tiles) is not tiles:
            raise ClipItError(f"two slides are called {place.name!r}", place, "Name each once")
    return named


def main(given: Namespace) -> None:
    """Bags of slides, one file each; what is there already is kept."""
    predict.check(given)
    profile = load_profile(given.profile)
    settings, named = settings_of(profile).slides, slides_among(given)
    if not isinstance(settings, FileSlides):
        fix = "Say `slides: {source: files, bags: FOLDER, clinical: CSV}`"
        raise ClipItError("its slides are the phantom's", f"profile {profile.name}, survival", fix)
    backbone, sources = given.backbone or profile.backbones[0], sources_of_profile(profile)
    hashes = {name: registry.weights_hash(name, sources) for name in (backbone, profile.retriever)}
    asked = {name: getattr(given, name) for name in ("tiles", "mpp", "background")}
    made_by = files.canonical_json({"encoders": list(hashes.items()), **asked})
    wanted, unread = dict[Path, list[Path]](), list[ClipItError]()
    for name, tiles in named.items():
        target = paths.in_data(settings.bags) / f"{name}.h5"
        if not target.exists():
            wanted[target] = tiles
            continue
        with files.whole(target, "Delete it and run again"), h5py.File(target) as file:
            if file.attrs.get("made_by") != made_by:
                what, fix = "made otherwise than is asked for", "Delete it, or name another `bags`"
                raise ClipItError(what, target, fix)
    encoders = Encoders.of(profile, backbone)
    for target, tiles in files.progress(wanted.items(), "slides"):
        try:
            write_bag(target, bag_of(tiles, encoders, given), made_by)
        except ClipItError as error:
            unread.append(error)
    made, kept = len(wanted) - len(unread), len(named) - len(wanted)
    print(f"{made} of {len(named)} slides made in {settings.bags}, {kept} were there")
    predict.conclude(unread, len(named))


# -- Phantom slides: bags of phantom patches whose aggressiveness sets a planted hazard.
#
# A slide has a latent aggressiveness a ~ N(0, 1). It shifts the mixture of classes from normal to
# invasive and, within a patch, size and pleomorphism of the nuclei. The time to the event is
# exponential with log hazard beta * a + constant; the time to censoring is exponential and
# independent of everything else. A phantom, as everywhere here: never tissue, never a patient.

# First spawn key of the slides' seed stream; see PRETRAINING and REPORTS in phantom/reports.py.
SLIDES = 4000
VERSION = 1  # raise it when the same settings draw anything else
WORLD = "bach"
MEDIAN_MONTHS = 36.0  # time to the event at average aggressiveness
# Change of the log odds of Benign, InSitu, Invasive, Normal by one unit of aggressiveness, and of
# each latent in every patch.
MIXTURE = np.array([-0.3, 0.3, 0.9, -0.9])
MORPHOLOGY = {"pleomorphism": 0.06, "nuclear_size": 0.05, "regularity": -0.04, "cellularity": 0.04}
SCATTER = 0.5  # of the log odds between slides of equal aggressiveness


@dataclass(frozen=True)
class Slides:
    """What is known of n phantom slides before any pixel is drawn.

    Attributes:
        clinical: slide, time (months), event, fold.
        log_hazard: [n], planted: beta * aggressiveness.
        latents: of all patches, slide after slide.
        pixel_seed: for `render`.
    """

    clinical: pd.DataFrame
    log_hazard: np.ndarray
    latents: Latents
    pixel_seed: int


def draw_slides(settings: PhantomSlides, folds: int) -> Slides:
    """Draw aggressiveness, follow-up, folds (stratified by event) and the latents of patches."""
    seeds = np.random.SeedSequence(settings.seed, spawn_key=(SLIDES,)).spawn(4)
    slide_rng, time_rng, patch_rng = (np.random.default_rng(seed) for seed in seeds[:3])
    aggressiveness = slide_rng.standard_normal(settings.slides)
    log_hazard = settings.beta * aggressiveness
    time, event = _follow_up(log_hazard, settings.censored, time_rng)
    clinical = pd.DataFrame({
        "slide": [f"phantom-{number:04d}" for number in range(1, settings.slides + 1)],
        "time": time, "event": event.astype(int), "fold": _stratified(event, folds, time_rng),
    })  # fmt: skip
    latents = _patches(aggressiveness, settings.patches, patch_rng)
    return Slides(clinical, log_hazard, latents, int(seeds[3].generate_state(1)[0]))


def _follow_up(
    log_hazard: np.ndarray, censored: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Months (to one decimal, so that ties occur) and whether the event was seen."""
    rate = np.log(2) / MEDIAN_MONTHS * np.exp(log_hazard)
    until_event = rng.exponential(1 / rate)
    waiting = rng.exponential(size=len(rate))
    until_censoring: Any = np.inf
    if censored > 0:
        from scipy.optimize import brentq  # slow to import

        # Of a slide the share c / (c + rate) is censored, where c is the rate of censoring.
        c = brentq(lambda c: (c / (c + rate)).mean() - censored, 0.0, 1e6 * float(rate.max()))
        until_censoring = waiting / c
    months = np.minimum(until_event, until_censoring)
    return np.maximum(months.round(1), 0.1), until_event <= until_censoring


def _stratified(event: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Folds from 1, [n]: events and censored slides are dealt out in turn."""
    order = rng.permutation(len(event))
    order = order[np.argsort(event[order], kind="stable")]
    return np.argsort(order) % folds + 1


def _patches(aggressiveness: np.ndarray, patches: int, rng: np.random.Generator) -> Latents:
    mixture_rng, latent_rng = rng.spawn(2)
    slides = len(aggressiveness)
    odds = aggressiveness[:, None] * MIXTURE + SCATTER * mixture_rng.standard_normal((slides, 4))
    share = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    uniform = mixture_rng.random((slides, patches, 1))
    labels = (uniform > share.cumsum(axis=1)[:, None, :-1]).sum(axis=2).ravel()
    # Ids beyond those of data sets and of pretraining patches; one patient a slide.
    patients = 2 * PATIENTS_PER_SPLIT * len(SPLITS) + np.repeat(np.arange(slides), patches)
    latents = draw(WORLD, labels, patients, latent_rng)
    of_patch = np.repeat(aggressiveness, patches)
    shifted = {
        name: np.clip(getattr(latents, name) + shift * of_patch, 0, 1).astype(np.float32)
        for name, shift in MORPHOLOGY.items()
    }
    return replace(latents, **shifted)


def pixels(slides: Slides, settings: PhantomSlides, number: int) -> np.ndarray:
    """The patches of one slide (counted from 0), [patches, side, side, 3] uint8."""
    first = number * settings.patches
    latents = slides.latents.take(slice(first, first + settings.patches))
    return render(latents, settings.side, slides.pixel_seed, first=first)


# -- A cohort: the bags of all slides with follow-up and folds, read and checked.

COLUMNS = ["slide", "time", "event", "fold"]
PATIENT = "patient"
NAMED_ALIKE = r"(patient|case|subject)(([ _.-]?submitter)?[ _.-]?(id|no|number|name|barcode))?"
# What may name a patient in the name of a slide: a TCGA barcode begins with it, and elsewhere it
# may hold a number and be followed by a stain or a short number of its own.
LOOKS = r"^(TCGA-\w\w-\w{4}|.*\d.*(?=[-_. ][A-Za-z]{0,5}\d{0,2}$))"


@dataclass(frozen=True)
class Cohort:
    """Patients (slides, where patients are not known) with follow-up.

    Attributes:
        clinical: one row a patient: slide (str; of several, joined by ";"), time (months), event
            (bool), fold (1, 2, ...) and, where it is known, patient (str).
        bags: one a row of `clinical`.
        content_hash: digest of all of it.
        limits: what to know of these slides, in words.
        planted: [n] log hazard that was planted in a phantom; None for real slides.
    """

    clinical: pd.DataFrame
    bags: tuple[Bag, ...]
    content_hash: str
    limits: str = ""
    planted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.bags)

    @property
    def retriever(self) -> list[np.ndarray]:
        """The retriever's embeddings [p, e] of every bag.

        Raises:
            ClipItError: the bags hold none.
        """
        held = [bag.retriever for bag in self.bags if bag.retriever is not None]
        if not held:
            fix = "Write them as `retriever`, or run unimodal only"
            raise ClipItError("no retriever embeddings in the bags", "survival, clip_it", fix)
        return held

    @property
    def folds(self) -> list[int]:
        return sorted(self.clinical["fold"].unique().tolist())


def read_cohort(folder: Path, clinical: Path, folds: int, most: int | None = None) -> Cohort:
    """Read a cohort (see above for the layout); patients come in the order of the csv.

    Names are compared without blanks around them and in Unicode's composed form (NFC).

    Args:
        folds: how many there are, numbered from 1.
        most: patches kept of a slide, all if None.

    Raises:
        ClipItError: something in these files cannot be used as it is; the file, the slide or
            patient and the column are named.
    """
    table, unused = _read_clinical(clinical, folds)
    if not folder.is_dir():
        raise ClipItError("no such folder", folder, "Fix `bags` in the profile or CLIPIT_DATA")
    named: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            named[files.tidy(path.stem)].append(path)
    paths = [_file(folder, slide, named, clinical) for slide in table["slide"]]
    bags = [read_bag(path, most) for path in paths]
    widths = [{name: values.shape[1] for name, values in bag.arrays().items()} for bag in bags]
    for path, found in zip(paths, widths, strict=True):
        if found != widths[0]:
            what = f"widths {found}, but {paths[0].name} has {widths[0]}"
            raise ClipItError(what, path, "Embed all slides with the same encoders")
    owner = table.get(PATIENT, table["slide"])
    rows = table.assign(slide=table.groupby(owner)["slide"].transform(";".join))
    rows = rows[~owner.duplicated()].reset_index(drop=True)
    joined = [Bag.joined([bags[n] for n in np.flatnonzero(owner == own)]) for own in owner.unique()]
    held = pd.Series([
        [part for values in bag.arrays().values()
         for part in (files.canonical_json(list(values.shape)), files.digest(values.tobytes()))]
        for bag in joined
    ], rows["slide"])  # fmt: skip
    content = files.digest(
        files.canonical_json({name: rows[name].tolist() for name in rows}), *held.sum()
    )
    said = [f"Columns of {clinical.name} that are not used: {', '.join(unused)}."] if unused else []
    if left := {*named} - {*table["slide"]}:
        said.append(f"Bags without a row in {clinical.name} that are not used: {len(left)}.")
    if long := sum(len(bag.features) == most for bag in bags):
        said.append(f"Slides of {most} patches or more, of which {most} are read: {long}.")
    if twice := held.index[held.map(tuple).duplicated(keep=False)].tolist():
        said.append(f"**Bags that equal another one's**: {', '.join(twice)}.")
    limits = " ".join([*said, _of_patients(table)]).strip()
    return Cohort(rows, tuple(joined), content, limits)


def _of_patients(table: pd.DataFrame) -> str:
    """What is known, or has to be feared, of slides that share a patient; "" if nothing."""
    if PATIENT in table:
        return f"{len(table)} slides of {table[PATIENT].nunique()} patients, who count once each."
    looks = table["slide"].str.extract(LOOKS)[0].dropna()
    shared = looks[looks.duplicated(keep=False)]
    if shared.empty:
        return ""
    split = (table["fold"].groupby(shared).nunique() > 1).sum()
    return (
        f"**Of {len(table)} slides {len(shared)} look like those of {shared.nunique()} patients** "
        f"(such as {shared.iloc[0]}), {split} of whom would be in several folds. They count as "
        "independent: intervals are too narrow, and scores too high where a patient was learned "
        "from. Add a column `patient` to the clinical table."
    )


def _read_clinical(path: Path, folds: int) -> tuple[pd.DataFrame, list[str]]:
    """One row a slide, and the columns that are not used."""
    if not path.is_file():
        raise ClipItError("no such file", path, "Fix `clinical` in the profile or CLIPIT_DATA")
    raw = files.read_text_table(path).map(files.tidy)
    raw = raw.rename(columns=lambda name: files.header(name, (*COLUMNS, PATIENT)))
    names = raw.columns.tolist()
    missing = [name for name in COLUMNS if name not in names]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    for what, wrong in (("no column", missing), ("more than one column", twice)):
        if wrong:
            what += f" {', '.join(wrong)} (found: {', '.join(names)})"
            raise ClipItError(what, path, f"It needs {', '.join(COLUMNS)}")
    if raw.empty:
        raise ClipItError("no slides", path, "Add one row a slide")
    for name in names if PATIENT not in names else ():
        if re.fullmatch(NAMED_ALIKE, name.lower()) and raw[name].duplicated().any():
            fix = f"Call it `{PATIENT}`, or take it out"
            raise ClipItError(f"the column {name} may name patients of several slides", path, fix)
    number = {name: pd.to_numeric(raw[name], errors="coerce") for name in COLUMNS[1:]}
    known = range(1, folds + 1)
    rules: list[tuple[pd.Series[bool], str, str]] = [
        (raw["slide"] == "", "slide", "Name every slide"),
        (raw["slide"].duplicated(), "slide", "Name every slide once"),
        (raw.get(PATIENT, raw["slide"]) == "", PATIENT, "Name every slide's patient"),
        (~number["time"].between(0, np.finfo(np.float32).max), "time", "Give months, 0 or more"),
        (~number["event"].isin([0, 1]), "event", "Give 1 (seen) or 0 (censored)"),
        (~number["fold"].isin(known), "fold", f"Known: {', '.join(map(str, known))}"),
    ]
    for broken, column, fix in rules:
        if broken.any():
            at = int(broken.argmax())
            value, slide = raw.loc[at, column], raw.loc[at, "slide"]
            raise ClipItError(f"{column} {value!r} of slide {slide!r} (row {at + 1})", path, fix)
    table = pd.DataFrame({
        "slide": raw["slide"], "time": number["time"].astype(float),
        "event": number["event"].astype(bool), "fold": number["fold"].astype(int),
    })  # fmt: skip
    if PATIENT in raw:
        table[PATIENT] = raw[PATIENT]
        for column in COLUMNS[1:]:
            told = table.groupby(PATIENT, sort=False)[column].unique()
            for patient, values in told[told.map(len) > 1].items():
                what = f"patient {patient!r} has {column} {', '.join(map(str, values))}"
                raise ClipItError(what, path, f"Give all slides of a patient the same {column}")
    if without := sorted({*known} - {*table["fold"][table["event"]]}):
        raise ClipItError(f"no event in fold {without[0]}", path, "Stratify the folds by event")
    return table, [name for name in names if name not in table]


def _file(folder: Path, slide: str, named: dict[str, list[Path]], clinical: Path) -> Path:
    """The bag of a slide among those in a folder by their plain names."""
    found = named.get(slide, [])
    if len(found) == 1:
        return found[0]
    if found:
        raise ClipItError(f"{' and '.join(p.name for p in found)} of one slide", folder, "Keep one")
    what = f"no {' or '.join(slide + suffix for suffix in SUFFIXES)} for a slide of {clinical.name}"
    if near := [name for name in named if name.lstrip("0") == slide.lstrip("0")]:
        what += f" ({near[0]!r} is there: the csv may have lost its zeros)"
    raise ClipItError(what, folder, "Add the bag or take the slide out")


# -- The cohort of a profile: the user's slides, or phantom slides that are made on the spot.

BAGS, CLINICAL, PLANTED, MADE = "bags", "clinical.csv", "planted.csv", "made.json"


def settings_of(profile: Profile) -> SurvivalSettings:
    """The survival section of a profile.

    Raises:
        ClipItError: it has none.
    """
    if profile.survival is None:
        what = "no survival section"
        raise ClipItError(what, f"profile {profile.name}", "Add one; profiles/demo.yaml has it")
    return profile.survival


def open_cohort(profile: Profile) -> Cohort:
    """Read the profile's slides; phantom slides are made and embedded first if need be.

    Raises:
        ClipItError: no survival section; encoders not trained yet; see `read_cohort`.
    """
    settings = settings_of(profile)
    if isinstance(settings.slides, FileSlides):
        bags, clinical = map(paths.in_data, (settings.slides.bags, settings.slides.clinical))
        cohort = read_cohort(bags, clinical, settings.folds, settings.slides.patches)
        terms = f"Slides of the user; terms: {settings.slides.licence}."
        return replace(cohort, limits=f"{terms} {cohort.limits}".strip())
    name, slides = phantom_name(profile), settings.slides
    folder = paths.cache() / "slides" / f"phantom-{name}"
    make_once(folder / MADE, lambda: None, lambda _: _make(folder, profile, slides), folder)
    with files.whole(folder, "Delete this folder and run again"):
        cohort = read_cohort(folder / BAGS, folder / CLINICAL, settings.folds)
        planted = pd.read_csv(folder / PLANTED).set_index("slide")["log_hazard"]
    log_hazard = planted[cohort.clinical["slide"]].to_numpy()
    return replace(cohort, content_hash=name, limits=PHANTOM_LIMITS, planted=log_hazard)


def phantom_name(profile: Profile) -> str:
    """What names the phantom's slides: what they are made from, not the embeddings they hold."""
    return files.digest(files.canonical_json(_made_by(profile)))


def _made_by(profile: Profile) -> dict[str, Any]:
    settings, sources = settings_of(profile), sources_of_profile(profile)
    assert isinstance(settings.slides, PhantomSlides)
    return {
        "version": [VERSION, PHANTOM_VERSION],
        "kernels": kernels.level(),
        "slides": settings.slides.model_dump(mode="json"),
        "folds": settings.folds,
        "backbone": registry.weights_hash(settings.slides.backbone, sources),
        "retriever": registry.weights_hash(profile.retriever, sources, text=True),
    }


@torch.inference_mode()
def _make(target: Path, profile: Profile, slides: PhantomSlides) -> None:
    """Draw and embed phantom slides and write them in the layout of real ones."""
    drawn = draw_slides(slides, settings_of(profile).folds)
    encoders = Encoders.of(profile, slides.backbone)
    with files.written_beside(target) as folder:
        for number, slide in enumerate(files.progress(drawn.clinical["slide"], "slides")):
            rows = encoders.embed(pixels(drawn, slides, number)).numpy()
            write_bag(folder / BAGS / f"{slide}.h5", encoders.bag(rows))
        drawn.clinical.to_csv(folder / CLINICAL, index=False)
        planted = drawn.clinical[["slide"]].assign(log_hazard=drawn.log_hazard)
        planted.to_csv(folder / PLANTED, index=False)
        files.write_text(folder / MADE, json.dumps(_made_by(profile), indent=1))
