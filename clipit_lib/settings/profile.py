"""A profile: what to run, at which scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.settings.base import Positive, Strict
from clipit_lib.settings.data import CorpusSettings, DataSettings
from clipit_lib.settings.method import Lora, Probe, Protocol, TextStage, Training
from clipit_lib.settings.pretraining import PhantomPretraining, StandInTraining
from clipit_lib.settings.protocols import protocol_named
from clipit_lib.settings.reading import read_strict
from clipit_lib.settings.search import Searched, read_searched
from clipit_lib.settings.study import Study
from clipit_lib.settings.survival import SurvivalSettings


class Profile(Strict):
    """What to run, at which scale."""

    name: str
    summary: str
    data: dict[str, DataSettings]
    corpora: dict[str, CorpusSettings]
    backbones: tuple[str, ...]
    retriever: str
    settings: tuple[str, ...] = ("unimodal", "lora_only", "clip_it")
    seeds: tuple[int, ...] = (0, 1, 2)
    protocol: Literal["paper", "released"] = "paper"
    lora: Lora = Lora()
    probe: Probe = Probe()
    text_stage: TextStage = TextStage()
    training: Training = Training()
    training_for: dict[str, Training] = Field(default_factory=dict)
    distillation_weight: float = 1.0
    pretraining: PhantomPretraining | None = None
    stand_in: StandInTraining | None = None
    survival: SurvivalSettings | None = None
    bootstrap_draws: Positive = 2000
    clips: tuple[str, ...] = ()
    templates: Literal["conch", "quiltnet"] = "conch"
    synthetic: dict[str, str] = Field(default_factory=dict)
    studies: dict[str, Study] = Field(default_factory=dict)
    searched: Searched = Field(default_factory=dict)

    @property
    def retrievers(self) -> tuple[str, ...]:
        """The CLIP models of Tables 2 and 7, the profile's own retriever first."""
        return tuple(dict.fromkeys((self.retriever, *self.clips)))

    @property
    def trained_encoders(self) -> tuple[str, ...]:
        """Names of the encoders that are trained on the spot, the retriever first."""
        names = dict.fromkeys((*self.retrievers, *self.backbones))
        return tuple(n for n in names if n.startswith("phantom_") or n == "stand_in")

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
        world = getattr(self.data_settings(dataset), "world", None)
        protocol = protocol_named(self.protocol, world.upper() if world else None)
        found = self.searched.get(dataset, {}).items()
        chosen = next((one for name, one in found if name == setting.split("/")[0]), None)
        if chosen is None:
            return self, protocol
        values = chosen.fields(protocol)
        protocol = values.pop("protocol")
        return self.model_copy(update=values), protocol


def known(value: str, choices: Any, name: str, where: object) -> str:
    """Return `value` if it is among `choices`.

    Raises:
        ClipItError: it is not; the message lists the choices.
    """
    if value not in choices:
        raise ClipItError(
            f"unknown {name} {value!r}", where, f"Known: {', '.join(sorted(choices))}"
        )
    return value


def load_profile(name: str) -> Profile:
    """Read `profiles/NAME.yaml` and, where there is one, `profiles/searched/NAME.yaml`.

    Raises:
        ClipItError: no such profile; an unknown key; a value of the wrong type.
    """
    names = [path.stem for path in paths.profiles().glob("*.yaml")]
    known(name, names, "profile", paths.profiles())
    profile = read_profile(paths.profiles() / f"{name}.yaml")
    if searched := read_searched(searched_path(name)):
        for dataset in searched:
            known(dataset, profile.data, "dataset", searched_path(name))
        profile = profile.model_copy(update={"searched": searched})
    return profile


def searched_path(name: str) -> Path:
    """Where the chosen values of a profile are kept: `profiles/searched/NAME.yaml`."""
    return paths.profiles() / "searched" / f"{name}.yaml"


def read_profile(path: Path) -> Profile:
    """Read a profile from any YAML file (see `load_profile` for what is raised)."""
    profile: Profile = read_strict(path, Profile)
    return profile
