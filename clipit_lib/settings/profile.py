"""A profile: what to run, at which scale."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.settings.base import Positive, Seeds, Strict, Weight, known
from clipit_lib.settings.data import (
    CorpusSettings,
    DataSettings,
    FileCorpus,
    FolderData,
    SyntheticCorpus,
)
from clipit_lib.settings.method import Lora, Probe, Protocol, TextStage, Training
from clipit_lib.settings.pretraining import PhantomPretraining, StandInTraining, trained_here
from clipit_lib.settings.protocols import protocol_named
from clipit_lib.settings.reading import read_strict
from clipit_lib.settings.search import Searched, read_searched
from clipit_lib.settings.study import Study
from clipit_lib.settings.survival import FileSlides, SurvivalSettings

# What holds files of the user, and its keys that name one (a manifest lies in its folder).
OF_THE_USER = (FolderData, FileCorpus, SyntheticCorpus, FileSlides)
PATHS = ("folder", "path", "cancer_type_table", "bags", "clinical")


class Profile(Strict):
    """What to run, at which scale."""

    name: str
    summary: str
    data: Annotated[dict[str, DataSettings], Field(min_length=1)]
    corpora: dict[str, CorpusSettings]
    backbones: Annotated[tuple[str, ...], Field(min_length=1)]
    retriever: str
    settings: tuple[str, ...] = ("unimodal", "lora_only", "clip_it")
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
    clips: tuple[str, ...] = ()
    templates: Literal["conch", "quiltnet"] = "conch"
    synthetic: dict[str, str] = Field(default_factory=dict)
    studies: dict[str, Study] = Field(default_factory=dict)
    searched: Searched = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)  # published model: path of a copy of it

    @property
    def retrievers(self) -> tuple[str, ...]:
        """The CLIP models of Tables 2 and 7, the profile's own retriever first."""
        return tuple(dict.fromkeys((self.retriever, *self.clips)))

    @property
    def trained_encoders(self) -> tuple[str, ...]:
        """Names of the encoders that are trained on the spot, the retriever first."""
        names = dict.fromkeys((*self.retrievers, *self.backbones))
        return tuple(n for n in names if trained_here(n))

    def data_settings(self, dataset: str) -> DataSettings:
        """Settings of one data set.

        Raises:
            ClipItError: the profile has no such data set.
        """
        known(dataset, self.data, "dataset", f"profile {self.name}")
        return self.data[dataset]

    def training_settings(self, dataset: str) -> Training:
        return self.training_for.get(dataset, self.training)

    def tuned(self, dataset: str, setting: str) -> tuple[Profile, Protocol]:
        """This profile and its protocol with what a search chose for a setting, if one was made.

        A variant (`clip_it/...`) takes what its setting takes, so that they stay comparable.
        """
        protocol = protocol_named(self.protocol, self.data_settings(dataset).paper_name)
        found = self.searched.get(dataset, {}).items()
        chosen = next((one for name, one in found if name == setting.split("/")[0]), None)
        if chosen is None:
            return self, protocol
        values = chosen.fields(protocol)
        protocol = values.pop("protocol")
        return self.model_copy(update=values), protocol


def load_profile(name: str) -> Profile:
    """Read a profile by its name, or a file of the user by its path, which ends in `.yaml`.

    By name: `profiles/NAME.yaml`. What a search has found for it, `profiles/searched/NAME.yaml`,
    is read with it. How a file of the user differs is said at `own_profile`.

    Raises:
        ClipItError: no such profile or file; an unknown key; a value of the wrong type.
    """
    names = [path.stem for path in paths.profiles().glob("*.yaml")]
    path = Path(name).expanduser().resolve()
    if is_file_name(name) and path.parent != paths.profiles():
        profile = own_profile(path, names)
    else:
        name = path.stem if is_file_name(name) else name
        known(name, names, "profile", paths.profiles())
        profile = read_profile(paths.profiles() / f"{name}.yaml")
    if searched := read_searched(searched_path(profile.name)):
        for dataset in searched:
            known(dataset, profile.data, "dataset", searched_path(profile.name))
        profile = profile.model_copy(update={"searched": searched})
    return profile


def is_file_name(name: str) -> bool:
    """Whether a profile is given as a file of the user, not by its name."""
    return name.endswith((".yaml", ".yml"))


def own_profile(path: Path, shipped: Collection[str]) -> Profile:
    """Read a file of the user: paths in it are relative to its folder, and it asks for `own`.

    Args:
        shipped: names that the file must not take, because results are kept by name.

    Raises:
        ClipItError: no such file; its `name` is taken; that name, or one of a data set or corpus,
            cannot name a folder; see `read_profile`.
    """
    if not path.is_file():
        raise ClipItError(
            "no such file", path, f"Name a YAML file, or one of {', '.join(sorted(shipped))}"
        )
    profile = read_profile(path)
    if profile.name in shipped:
        raise ClipItError(
            f"the name {profile.name!r} is that of a profile which comes with this library",
            path,
            "Choose another `name`: results are kept by it",
        )
    for name in (profile.name, *profile.data, *profile.corpora):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ClipItError(
                f"the name {name!r} cannot name a folder",
                path,
                "Use letters, digits, hyphens and underscores in it",
            )
    return profile.model_copy(update=_placed(profile, path.parent))


def _placed(profile: Profile, folder: Path) -> dict[str, Any]:
    """The parts that hold paths, made absolute, and the studies with `own`."""

    def moved(part: Any) -> Any:
        if not isinstance(part, OF_THE_USER):
            return part  # published data lie under $CLIPIT_DATA
        held = [key for key in PATHS if getattr(part, key, None)]
        values = {key: str(folder / Path(getattr(part, key)).expanduser()) for key in held}
        return part.model_copy(update=values)

    values: dict[str, Any] = {
        "data": {name: moved(each) for name, each in profile.data.items()},
        "corpora": {name: moved(each) for name, each in profile.corpora.items()},
        "studies": {"own": Study()} | profile.studies,
        "weights": {
            name: str(folder / Path(each).expanduser()) for name, each in profile.weights.items()
        },
    }
    if profile.survival is not None:
        slides = moved(profile.survival.slides)
        values["survival"] = profile.survival.model_copy(update={"slides": slides})
    return values


def searched_path(name: str) -> Path:
    """Where the chosen values of a profile are kept: `profiles/searched/NAME.yaml`."""
    return paths.profiles() / "searched" / f"{name}.yaml"


def read_profile(path: Path) -> Profile:
    """Read a profile from any YAML file (see `load_profile` for what is raised)."""
    profile: Profile = read_strict(path, Profile)
    for name in (*profile.training_for, *profile.synthetic):
        known(name, profile.data, "dataset", path)
    for name in profile.synthetic.values():
        known(name, profile.corpora, "corpus", path)
    return profile
