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


class Labelled(Strict):
    """What is computed on which patches and labels; a hash of all fields is its key.

    Fields that are not used are None, so that they cannot change the key.
    """

    version: int = 2
    kernels: str  # what floating-point kernels computed it, see `kernels.level`
    dataset: str
    data_hash: str
    seed: int
    labels_per_class: Positive | None = None
    label_noise: Fraction = 0.0
    validation_per_class: Positive | None = None

    @property
    def key(self) -> str:
        """16 hexadecimal digits.

        None is left out, so that a field added later (None: not used) renames nothing older.
        """
        return digest(canonical_json(self.model_dump(mode="json", exclude_none=True)))


class TextSpec(Labelled):
    """Everything that can change which text each patch gets and what stage one makes of it.

    Attributes:
        corpus: None where no report is read.
        class_texts, templates: None where the texts do not name the classes.
        wording: digest of the fixed texts that are filled in or chosen from.
        lora: None leaves the text encoder as it is.
        stage: `ignored` is the released code's way, see `Protocol`, as the fields after it.
    """

    retriever: str
    retriever_hash: str
    corpus: str | None = None
    corpus_hash: str | None = None
    pairing: Pairing
    class_texts: tuple[str, ...] | None = None
    templates: Literal["conch", "quiltnet"] | None = None
    wording: str | None = None
    training: TextStage
    lora: Lora | None = None
    word_dropout: Fraction | None = None
    stage: Literal["fine_tuned", "ignored"] = "fine_tuned"
    lora_targets: Literal["attention_mlp", "all"] = "attention_mlp"
    double_softmax: bool = False
    letters_lost: Literal[True] | None = None
    class_text_share: Fraction | None = None


class RunSpec(Labelled):
    """Everything that can change the result of one run; its key names the run.

    Attributes:
        branch: where the text branch joins the image; `text_only` is the text classifier of
            stage one, which sees no image; None has no text branch.
        text: None where no text is read.
    """

    backbone: str
    backbone_hash: str
    setting: str
    pretraining: PhantomPretraining | None
    stand_in: StandInTraining | None = None
    normalisation: Literal["own", "imagenet", "clip"]
    probe: Probe
    adaptation: Literal["none", "lora", "full"] = "none"
    lora: Lora | None = None
    training: Training | None = None
    protocol: Protocol | None = None
    branch: Literal["late", "early", "direct", "text_only"] | None = None
    text: TextSpec | None = None
    target: Literal["image", "image_centroids"] | None = None
    distillation_weight: Weight | None = None
    contrastive: Contrastive | None = None

    @property
    def text_only(self) -> bool:
        """Whether the run is the text classifier of stage one, which sees no image."""
        return self.branch == "text_only"
