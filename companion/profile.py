"""Profiles: what to run, at which scale; and what a profile names, opened."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from clipit_lib import pairing
from clipit_lib.data.folder import FolderData
from clipit_lib.data.patches import Split
from clipit_lib.data.reports import FileCorpus, ReportCorpus
from clipit_lib.encoders import registry
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.weights import Recipe, Sources, read_card
from clipit_lib.errors import ClipItError
from clipit_lib.inputs import Inputs
from clipit_lib.settings import (
    Descent,
    Distinct,
    Fraction,
    Lora,
    PhantomPretraining,
    Positive,
    Probe,
    Protocol,
    Rate,
    Seed,
    Seeds,
    StandInTraining,
    Strict,
    TextStage,
    Training,
    Weight,
    known,
    trained_here,
)
from companion import paths, rehearsal
from companion.archived import Archive
from companion.crc5 import Crc5Data
from companion.paper import protocol_named
from companion.phantom import PhantomData
from companion.phantom.known import KnownCorpus, KnownData
from companion.phantom.reports import PhantomCorpus
from companion.published import BachData, CrcData, PcamData
from companion.reading import is_file_name, read_strict
from companion.statistics import top_share
from companion.synthetic import SyntheticCorpus
from companion.tcga import TcgaCorpus

DataSettings = Annotated[
    PhantomData | KnownData | FolderData | Crc5Data | PcamData | BachData | CrcData,
    Field(discriminator="source"),
]
CorpusSettings = Annotated[
    PhantomCorpus | KnownCorpus | FileCorpus | SyntheticCorpus | TcgaCorpus,
    Field(discriminator="source"),
]


# -- The search for adapters and lambda: what is tried, with which budget, and what was chosen.


LoraTargets = Literal["attention_mlp", "all"]


class Candidate(Strict):
    """Values of the fields that are searched; without text there is no distillation weight."""

    lora: Lora
    lora_targets: LoraTargets = "attention_mlp"
    distillation_weight: Weight | None = None

    def fields(self, protocol: Protocol) -> dict[str, Any]:
        """These values as fields of `RunSpec`, under a protocol that is otherwise kept."""
        fields: dict[str, Any] = {
            "lora": self.lora,
            "protocol": protocol.model_copy(update={"lora_targets": self.lora_targets}),
        }
        if self.distillation_weight is not None:
            fields["distillation_weight"] = self.distillation_weight
        return fields


class FoundWith(Strict):
    """How a choice was made: `validation` is its mean cross-entropy over `seeds`, in nats."""

    trials: Positive
    seeds: tuple[int, ...]
    validation: float


class Chosen(Candidate):
    """The best candidate of a search, or values that a profile says itself."""

    found_with: FoundWith | None = None


SearchedSetting = Literal["lora_only", "clip_it"]
Cells = dict[str, dict[str, dict[SearchedSetting, Chosen]]]  # by data set and backbone


class SearchSpace(Strict):
    """What is tried; `scales` are alpha / rank, and lambda is drawn log-uniformly in a range.

    Targets are those that `lora.inject` has names for; both can be merged into the backbone.
    """

    ranks: Distinct[Positive] = (4, 8, 16, 32)
    scales: Distinct[Rate] = (0.5, 1.0, 2.0)
    lora_targets: Distinct[LoraTargets] = ("attention_mlp", "all")
    distillation_weight: tuple[Rate, Rate] = (0.01, 10.0)


class Search(Strict):
    """The budget of every setting that is compared.

    `seeds` train the candidates and must not be seeds that a profile is evaluated with.
    """

    trials: Positive = 20
    seeds: Seeds = (1000, 1001)
    sampler_seed: Seed = 0
    space: SearchSpace = SearchSpace()


def read_searched(path: Path) -> Cells:
    """Read chosen values (see `read_strict`); an absent or empty file holds none."""
    return read_strict(path, Cells, absent={}) if path.exists() else {}


# -- Settings of the survival study (section F.6).


class PhantomSlides(Strict):
    """Phantom slides with a planted hazard, drawn and embedded on the spot.

    A slide is a bag of `patches` phantom patches of `side` pixels, embedded by `backbone`. `beta`
    is the log hazard ratio of one standard deviation of the latent aggressiveness, `censored` the
    share of slides that are censored on average.
    """

    source: Literal["phantom"]
    slides: Positive = 150
    patches: Positive = 24
    side: Positive = 64
    backbone: str
    beta: float = 1.0
    censored: Fraction = 0.35
    seed: Seed = 0


class FileSlides(Strict):
    """Slides of the user: a folder of bags and a clinical csv, below `$CLIPIT_DATA` or absolute.

    `patches` is the most that is kept of a slide, evenly spaced in the order of its file.
    """

    source: Literal["files"]
    bags: str
    clinical: str
    patches: Positive = 4096
    licence: str = "not stated"


SlideSettings = Annotated[PhantomSlides | FileSlides, Field(discriminator="source")]


class SlideTraining(Descent):
    """Descent on slides; the risk set of the Cox loss is the batch."""

    epochs: Positive = 20
    batch_size: Positive = 32


class SurvivalSettings(Strict):
    """Attention MIL with a Cox head, by folds.

    `hidden` is the width of the attention, `dropout` acts on the patches' hidden features,
    `validation` is the share of the training folds that chooses the epoch, `corpus` names the
    reports that patches are paired with.
    """

    slides: SlideSettings
    corpus: str
    folds: Annotated[int, Field(ge=2)] = 5
    hidden: Positive = 64
    dropout: Fraction = 0.25
    training: SlideTraining = SlideTraining()
    validation: Fraction = 0.2
    distillation_weight: Weight = 1.0
    seeds: Seeds = (0, 1, 2)


class Study(Strict):
    """Cells, settings and seeds of one study; what is empty is the profile's or the study's own.

    A setting may be changed further, part by part: `clip_it/lambda_0.3` (see `companion.specs`).
    """

    datasets: Distinct[str] = ()
    backbones: Distinct[str] = ()
    settings: Distinct[str] = ()
    seeds: Distinct[Seed] = ()


# Keys that name a file or folder (a manifest lies in its folder).
PATH_KEYS = ("folder", "path", "cancer_type_table", "bags", "clinical")


class Profile(Strict):
    """What to run, at which scale."""

    name: str
    summary: str
    data: Annotated[dict[str, DataSettings], Field(min_length=1)]
    corpora: dict[str, CorpusSettings]
    backbones: Annotated[Distinct[str], Field(min_length=1)]
    retriever: str
    settings: Distinct[str] = ("unimodal", "lora_only", "clip_it")
    seeds: Seeds = (0, 1, 2)
    protocol: Literal["paper", "released"] = "paper"
    lora: Lora = Lora()
    probe: Probe = Probe()
    text_stage: TextStage = TextStage()
    training: Training = Training()
    training_for: dict[str, Training] = Field(default_factory=dict)
    distillation_weight: Weight = 1.0
    pretraining: PhantomPretraining | None = None
    stand_in: StandInTraining | None = None
    survival: SurvivalSettings | None = None
    bootstrap_draws: Positive = 2000
    clips: Distinct[str] = ()
    templates: Literal["conch", "quiltnet"] | None = None
    synthetic: dict[str, str] = Field(default_factory=dict)
    studies: dict[str, Study] = Field(default_factory=dict)
    cells: Cells = Field(default_factory=dict)  # values of one backbone on one data set
    weights: dict[str, str] = Field(default_factory=dict)  # published model: path of a copy of it
    depth: Positive | None = None  # blocks of published encoders, in a rehearsal

    @property
    def retrievers(self) -> tuple[str, ...]:
        """The CLIP models of Tables 2 and 7, the profile's own retriever first."""
        return tuple(dict.fromkeys((self.retriever, *self.clips)))

    @property
    def trained_encoders(self) -> tuple[str, ...]:
        """Names of the encoders that are trained on the spot, the retriever first."""
        return tuple(filter(trained_here, dict.fromkeys((*self.retrievers, *self.backbones))))

    def data_settings(self, dataset: str) -> DataSettings:
        """Settings of one data set.

        Raises:
            ClipItError: the profile has no such data set.
        """
        known(dataset, self.data, "dataset", f"profile {self.name}")
        return self.data[dataset]

    def templates_of(self, clip: str) -> Literal["conch", "quiltnet"]:
        """Whose class prompts a CLIP model is asked with: its own, unless the profile says."""
        own = registry.entry(clip, clip=True).templates
        return self.templates or own

    def training_settings(self, dataset: str) -> Training:
        return self.training_for.get(dataset, self.training)

    def tuned(self, dataset: str, backbone: str, setting: str) -> tuple[Profile, Protocol]:
        """This profile and its protocol with what is said, or a search chose, for a setting of a
        cell, if anything is.

        A variant (`clip_it/...`) takes what its setting takes, so that they stay comparable.
        """
        protocol = protocol_named(self.protocol, self.data_settings(dataset).paper_name)
        found = self.cells.get(dataset, {}).get(backbone, {}).items()
        chosen = next((one for name, one in found if name == setting.split("/")[0]), None)
        if chosen is None:
            return self, protocol
        values = chosen.fields(protocol)
        protocol = values.pop("protocol")
        return self.model_copy(update=values), protocol


def load_profile(name: str) -> Profile:
    """Read a profile by its name, or a file of the user by its path, which ends in `.yaml`.

    By name: `profiles/NAME.yaml`. What a search has found for it, `profiles/searched/NAME.yaml`,
    is read with it and goes before its own `cells`. How a file of the user differs is said at
    `own_profile`, and at `rehearsed` how a profile does whose name or path ends in `-rehearsal`.

    Raises:
        ClipItError: no such profile or file; an unknown key; a value of the wrong type.
    """
    if rehearsal.named(name):
        return rehearsed(load_profile(name.removesuffix(rehearsal.SUFFIX)))
    names = [path.stem for path in paths.profiles().glob("*.yaml")]
    path = paths.expanded(name).resolve()
    if is_file_name(name) and path.parent != paths.profiles():
        profile = own_profile(path, names)
    else:
        name = path.stem if is_file_name(name) else name
        known(name, names, "profile", paths.profiles())
        profile = read_profile(paths.profiles() / f"{name}.yaml")
    if searched := read_searched(searched_path(profile.name)):
        _check_cells(searched, profile, searched_path(profile.name))
        own = profile.cells
        cells = {name: own.get(name, {}) | searched.get(name, {}) for name in own | searched}
        profile = profile.model_copy(update={"cells": cells})
    return profile


def _check_cells(cells: Cells, profile: Profile, path: Path) -> None:
    for dataset, backbones in cells.items():
        known(dataset, profile.data, "dataset", path)
        for backbone in backbones:
            known(backbone, registry.ENCODERS, "backbone", path)


def own_profile(path: Path, shipped: Collection[str]) -> Profile:
    """Read a file of the user: paths in it are relative to its folder; without studies it asks for
    `own`.

    Args:
        shipped: names that the file must not take, because results are kept by name.

    Raises:
        ClipItError: no such file; its `name` is taken; that name, or one of a data set or corpus,
            cannot name a folder; see `read_profile`.
    """
    if not path.is_file():
        what = "no such file"
        raise ClipItError(what, path, f"Name a YAML file, or one of {', '.join(sorted(shipped))}")
    profile = read_profile(path)
    if profile.name in shipped:
        what = f"the name {profile.name!r} is that of a profile which comes with this library"
        raise ClipItError(what, path, "Choose another `name`: results are kept by it")
    for name in (profile.name, *profile.data, *profile.corpora):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            what = f"the name {name!r} cannot name a folder"
            raise ClipItError(what, path, "Use letters, digits, hyphens and underscores in it")
    return profile.model_copy(update=_placed(profile, path.parent))


def _placed(profile: Profile, folder: Path) -> dict[str, Any]:
    """The paths that are written, made absolute, and `own` where no studies are."""

    def moved(part: Any) -> Any:  # what is not written is where `fetch` puts it
        held = [key for key in PATH_KEYS if key in part.model_fields_set and getattr(part, key)]
        values = {key: str(folder / paths.expanded(getattr(part, key))) for key in held}
        return part.model_copy(update=values)

    values: dict[str, Any] = {
        "data": {name: moved(each) for name, each in profile.data.items()},
        "corpora": {name: moved(each) for name, each in profile.corpora.items()},
        "studies": profile.studies or {"own": Study()},
        "weights": {n: str(folder / paths.expanded(p)) for n, p in profile.weights.items()},
    }
    if profile.survival is not None:
        slides = moved(profile.survival.slides)
        values["survival"] = profile.survival.model_copy(update={"slides": slides})
    return values


def rehearsed(profile: Profile) -> Profile:
    """The same notebooks, studies and models on miniature data: `companion.rehearsal` says which.

    Raises:
        ClipItError: it reads other data than published ones, of which there are no miniatures.
    """
    for name, each in profile.data.items():
        if not isinstance(each, PcamData | BachData | CrcData):
            fix = "Rehearse a profile whose data are published ones, as paper"
            raise ClipItError(f"no miniature of {name}", f"profile {profile.name}", fix)
    plain = json.dumps(rehearsal.TABLE.smaller(profile.model_dump(mode="json")))
    small, folder = Profile.model_validate_json(plain), rehearsal.folder() / profile.name
    used = {*profile.retrievers, *profile.backbones} & registry.published().keys()
    values: dict[str, Any] = {
        "name": profile.name + rehearsal.SUFFIX,
        "summary": f"a rehearsal, no result, of: {profile.summary}",
        "depth": rehearsal.TABLE.depth,
        "weights": {name: str(folder.parent / "weights" / name) for name in sorted(used)},
    }

    def put(part: Any, **places: str) -> Any:
        return part.model_copy(update={key: str(folder / place) for key, place in places.items()})

    values["data"] = {
        name: put(each, folder=name).model_copy(update={"rehearsal": True})
        for name, each in small.data.items()
    }
    values["corpora"] = {
        name: put(each, **rehearsal.REPORTS) if isinstance(each, TcgaCorpus) else each
        for name, each in small.corpora.items()
    }
    if small.survival is not None and isinstance(small.survival.slides, FileSlides):
        slides = put(small.survival.slides, bags="slides/bags", clinical="slides/clinical.csv")
        values["survival"] = small.survival.model_copy(update={"slides": slides})
    return small.model_copy(update=values)


def searched_path(name: str) -> Path:
    """Where the chosen values of a profile are kept: `profiles/searched/NAME.yaml`."""
    return paths.profiles() / "searched" / f"{name}.yaml"


def read_profile(path: Path) -> Profile:
    """Read a profile from any YAML file (see `load_profile` for what is raised)."""
    profile: Profile = read_strict(path, Profile)
    for name in (*profile.training_for, *profile.synthetic):
        known(name, profile.data, "dataset", path)
    _check_cells(profile.cells, profile, path)
    for name in profile.synthetic.values():
        known(name, profile.corpora, "corpus", path)
    if (own := profile.stand_in) and not isinstance(profile.data.get(own.dataset), Crc5Data):
        raise ClipItError("stand_in.dataset has no retriever split", path, "Name a crc5 set")
    return profile


# -- What a profile names, opened when it is needed and once, and its own pairs.


def sources_of_profile(profile: Profile, download: bool = True) -> Sources:
    """Where the weights of a profile's encoders come from.

    Raises:
        ClipItError: `weights` of the profile names no published model.
    """
    for name in profile.weights:
        known(name, registry.published(), "published model", f"profile {profile.name}, `weights`")
    train, declared = _train if download else None, (profile.pretraining, profile.stand_in)
    return Sources(*declared, profile.weights, download, train=train, depth=profile.depth)


def _train(recipe: Recipe) -> dict[str, Any]:
    from companion import train_encoders  # slow to import

    return train_encoders.train(recipe)


def get_or_train(name: str, profile: Profile) -> dict[str, Any]:
    """The card (history, weights hash) of an encoder that is trained here, first if need be.

    Raises:
        ClipItError: the profile trains no encoder of this name.
    """
    if name not in profile.trained_encoders:
        fix = f"Trained here: {', '.join(profile.trained_encoders) or 'none'}"
        raise ClipItError(f"no encoder {name!r} is trained here", f"profile {profile.name}", fix)
    return read_card(sources_of_profile(profile).recipe(name))


class Workbench(Inputs):
    """The inputs of one profile, and what it takes if nothing else is named.

    With an `archive` nothing is opened: runs are those whose predictions are there.

    Args:
        download: whether weights may be fetched, and encoders trained, when they are needed.
    """

    def __init__(self, profile: Profile, download: bool = True) -> None:
        sources = sources_of_profile(profile, download)
        super().__init__(
            profile.data, profile.corpora, sources, paths.runs(profile.name),
            f"profile {profile.name}",
        )  # fmt: skip
        self.profile = profile
        self.archive = Archive(held) if (held := paths.archived(profile.name)) else None

    def limits(self, dataset: str) -> str:
        """What a reader must know of a data set."""
        return self.archive.limits(dataset) if self.archive else self.dataset(dataset).limits

    def corpus(self, dataset: str) -> ReportCorpus:
        """The reports that a data set is paired with."""
        return self.named_corpus(self.profile.data_settings(dataset).corpus)

    @property
    def clip(self) -> ClipEncoder:
        """The profile's retriever."""
        return self.retriever(self.profile.retriever)

    def retriever_embeddings(self, dataset: str, split: Split) -> np.ndarray:
        """The image embeddings [m, d] of one split by the profile's retriever."""
        return self.image_embeddings(dataset, split, self.profile.retriever)

    def pairs(self, dataset: str, split: Split, k: int) -> pairing.Pairs:
        """The k best reports of each patch, by the profile's retriever among its reports."""
        return self.nearest(
            dataset, split, k, self.profile.retriever, self.profile.data_settings(dataset).corpus,
            self.profile.text_stage.long_text,
        )  # fmt: skip

    def pairing_table(self, dataset: str, split: Split, k: int) -> pd.DataFrame:
        """`pairs`, one row a patch and rank: image, report, rank (1 is best), similarity, split."""
        data, pairs = self.dataset(dataset), self.pairs(dataset, split, k)
        ids = data.samples["id"].iloc[data.indices(split)]
        named = np.asarray(self.corpus(dataset).ids, dtype=object)
        columns = {"image": np.repeat(ids.to_numpy(), k), "report": named[pairs.reports.ravel()]}
        rank, close = np.tile(np.arange(1, k + 1), len(ids)), pairs.similarities.ravel()
        return pd.DataFrame(columns | {"rank": rank, "similarity": close, "split": split})

    def pairing_summary(self, dataset: str, k: int) -> pd.DataFrame:
        """One row a rank: similarity and how many different reports the train split uses."""
        pairs = self.pairs(dataset, "train", k)
        rows = [
            {
                "dataset": dataset,
                "rank": rank + 1,
                "images": len(pairs.reports),
                "reports": len(self.corpus(dataset)),
                "similarity_mean": float(pairs.similarities[:, rank].mean()),
                "similarity_sd": float(pairs.similarities[:, rank].std()),
                "distinct_reports": len(np.unique(pairs.reports[:, rank])),
                "effective_number": pairing.effective_number(pairs.reports[:, rank]),
                "top10_share": top_share(pairs.reports[:, rank]),
            }
            for rank in range(k)
        ]
        return pd.DataFrame(rows)
