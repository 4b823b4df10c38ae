"""A profile: what to run, at which scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.settings.base import Positive, Strict
from clipit_lib.settings.data import CorpusSettings, DataSettings
from clipit_lib.settings.method import Lora, Probe, TextStage, Training
from clipit_lib.settings.pretraining import PhantomPretraining, StandInTraining


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
    bootstrap_draws: Positive = 2000

    @property
    def trained_encoders(self) -> tuple[str, ...]:
        """Names of the encoders that are trained on the spot, the retriever first."""
        names = dict.fromkeys((self.retriever, *self.backbones))
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
    """Read `profiles/NAME.yaml`.

    Raises:
        ClipItError: no such profile; an unknown key; a value of the wrong type.
    """
    names = [path.stem for path in paths.profiles().glob("*.yaml")]
    known(name, names, "profile", paths.profiles())
    return read_profile(paths.profiles() / f"{name}.yaml")


def read_profile(path: Path) -> Profile:
    """Read a profile from any YAML file (see `load_profile` for what is raised)."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClipItError(f"not YAML ({str(error).splitlines()[0]})", path, "Mend it") from error
    try:
        return Profile.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ClipItError(
            f"{key}: {first['msg']} (got {str(first['input'])[:60]!r})",
            path,
            "Mend this key; docs are in clipit_lib/settings/",
        ) from error
