"""Everything that can change the result of one run."""

from __future__ import annotations

from typing import Literal

from clipit_lib.files import canonical_json, digest
from clipit_lib.settings.base import Fraction, Positive, Strict, Weight
from clipit_lib.settings.method import (
    Contrastive,
    Lora,
    Pairing,
    Probe,
    Protocol,
    TextStage,
    Training,
)
from clipit_lib.settings.pretraining import PhantomPretraining, StandInTraining


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
    pretraining: PhantomPretraining | None
    normalisation: Literal["own", "imagenet", "clip"]
    probe: Probe
    labels_per_class: Positive | None = None
    label_noise: Fraction = 0.0
    adaptation: Literal["none", "lora", "full"] = "none"
    lora: Lora | None = None
    training: Training | None = None
    protocol: Protocol | None = None
    retriever: str | None = None
    retriever_hash: str | None = None
    corpus: str | None = None
    corpus_hash: str | None = None
    pairing: Pairing | None = None
    text_stage: TextStage | None = None
    distillation_weight: Weight | None = None
    # Fields added since; None means: as in the paper, or not used.
    stand_in: StandInTraining | None = None
    fusion: Literal["early", "direct", "text_only"] | None = None
    text_adaptation: Literal["none"] | None = None
    word_dropout: Fraction | None = None
    contrastive: Contrastive | None = None
    target: Literal["image", "image_centroids"] | None = None

    @property
    def text_only(self) -> bool:
        """Whether the run is the text classifier of stage one, which sees no image."""
        return self.fusion == "text_only"

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this run.

        None is left out, so that a field added later (None: not used) renames no older run.
        """
        return digest(canonical_json(self.model_dump(mode="json", exclude_none=True)))
