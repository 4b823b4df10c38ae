"""Strict, frozen settings: what a profile asks for and everything that can change a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


# --- data ---------------------------------------------------------------------------------


class ValidationSplit(Strict):
    """How validation samples are taken when the data set brings no such split.

    `stain` holds out whole clusters of stain colour in each class, for data without slide ids.
    """

    by: Literal["official", "stratified", "group", "stain"] = "official"
    fraction: Fraction = 0.1
    seed: int = 0


class PhantomData(Strict):
    """A procedural data set; `train`, `validation` and `test` count patches."""

    source: Literal["phantom"]
    world: Literal["pcam", "bach", "crc"]
    train: Positive
    validation: Positive
    test: Positive
    side: Positive = 64
    seed: int = 0
    corpus: str
    validation_split: ValidationSplit = ValidationSplit()


class FolderData(Strict):
    """Images of the user: a folder of class folders, or a manifest (path, label, split, group)."""

    source: Literal["folder"]
    folder: str
    manifest: str | None = None
    classes: tuple[str, ...] | None = None
    class_texts: tuple[str, ...] | None = None
    licence: str = "not stated"
    side: Positive = 224
    corpus: str
    validation_split: ValidationSplit = ValidationSplit(by="stratified")


class Crc5Data(Strict):
    """The five-class colorectal patches under `$CLIPIT_DATA/crc5`."""

    source: Literal["crc5"]
    side: Positive = 224
    corpus: str
    validation_split: ValidationSplit = ValidationSplit(by="stain", fraction=0.2)


DataSettings = Annotated[PhantomData | FolderData | Crc5Data, Field(discriminator="source")]


class PhantomCorpus(Strict):
    source: Literal["phantom"]
    organ: Literal["breast", "colon"]
    reports: Positive
    seed: int = 0
    cleaning: tuple[str, ...] = ()


class FileCorpus(Strict):
    """Reports from one text file (one a line), a csv, or a folder of text files."""

    source: Literal["file"]
    path: str
    column: str | None = None
    organ: str = "unknown"
    licence: str = "not stated"
    cleaning: tuple[str, ...] = ("control", "hyphenation", "spacing")


CorpusSettings = Annotated[PhantomCorpus | FileCorpus, Field(discriminator="source")]


# --- method -------------------------------------------------------------------------------


class Protocol(Strict):
    """Where the paper and its released code differ, one switch each (defaults: the paper)."""

    double_softmax: bool = False
    moving_target: bool = False
    text_stage: Literal["fine_tuned", "ignored"] = "fine_tuned"
    lora_targets: Literal["attention_mlp", "all"] = "attention_mlp"
    normalisation: Literal["own", "imagenet", "clip"] = "own"
    checkpoint: Literal["best", "last"] = "best"
    fusion_start: Literal["average", "random"] = "average"


PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(),
    "released": Protocol(
        double_softmax=True,
        moving_target=True,
        text_stage="ignored",
        lora_targets="all",
        normalisation="imagenet",
        checkpoint="last",
        fusion_start="random",
    ),
}


class Lora(Strict):
    """Low-rank adapters: update scaled by alpha / rank."""

    rank: Positive = 16
    alpha: Positive = 8
    dropout: Fraction = 0.0


class Training(Strict):
    """Stage two (CLIP-IT and its LoRA-only control alike)."""

    epochs: Positive = 1
    batch_size: Positive = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 0.5
    checks_per_epoch: Positive = 1
    augment: bool = False
    precision: Literal["no", "bf16", "fp16"] = "no"


class Probe(Strict):
    """The linear probe on frozen features."""

    epochs: Positive = 30
    batch_size: Positive = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


class TextStage(Strict):
    """Stage one: the text encoder and its head on (paired report, label), equation 2."""

    epochs: Positive = 10
    batch_size: Positive = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    long_text: Literal["truncate", "chunk"] = "truncate"


class Pairing(Strict):
    """Which report an image gets: the one of this `rank` by cosine similarity (1 is equation 1)."""

    rank: Positive = 1
    reports: Literal["matched", "random", "none"] = "matched"


class RunSpec(Strict):
    """Everything that can change the result of one run; its hash is the run's key.

    Fields that a setting does not use are None, so that they cannot change its key.
    """

    version: int = 1
    dataset: str
    data_hash: str
    backbone: str
    backbone_hash: str
    setting: str
    seed: int
    normalisation: Literal["own", "imagenet", "clip"]
    probe: Probe
    labels_per_class: Positive | None = None
    label_noise: Fraction = 0.0
    lora: Lora | None = None
    training: Training | None = None
    protocol: Protocol | None = None
    retriever: str | None = None
    retriever_hash: str | None = None
    corpus: str | None = None
    corpus_hash: str | None = None
    pairing: Pairing | None = None
    text_stage: TextStage | None = None
    distillation_weight: float | None = None

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this run."""
        return digest(canonical_json(self.model_dump(mode="json")))


# --- profiles -----------------------------------------------------------------------------


class PhantomPretraining(Strict):
    """How the phantom's own encoders are trained, on its own pretraining patches."""

    images: Positive
    clip_epochs: Positive
    vision_epochs: Positive
    side: Positive = 64
    batch_size: Positive = 128
    learning_rate: float = 1e-3
    seed: int = 0


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
    training_for: dict[str, Training] = {}
    distillation_weight: float = 1.0
    pretraining: PhantomPretraining | None = None
    bootstrap_draws: Positive = 2000

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
        raise ClipItError(f"unknown {name} {value!r}", where, f"Known: {', '.join(sorted(choices))}")
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
            "Mend this key; docs are in clipit_lib/settings.py",
        ) from error
