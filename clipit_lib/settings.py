"""Settings as frozen models, and specifications: everything that can change a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest

# -- A frozen model that refuses what it does not know.


Item = TypeVar("Item")


def _each_once(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"{twice[0]} is given twice")
    return values


Distinct = Annotated[tuple[Item, ...], AfterValidator(_each_once)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]
Seeds = Annotated[Distinct[Seed], Field(min_length=1)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def known(value: str, choices: Any, name: str, where: object) -> str:
    """Return `value` if it is among `choices`; if not, raise a ClipItError that lists them."""
    if value not in choices:
        fix = f"Known: {', '.join(sorted(choices))}"
        raise ClipItError(f"unknown {name} {value!r}", where, fix)
    return value


# -- Settings of the method: protocol switches, adapters, training stages.


class Protocol(Strict):
    """Where the paper and its released code differ, one switch each (defaults: the paper)."""

    double_softmax: bool = False
    moving_target: bool = False
    text_stage: Literal["fine_tuned", "ignored"] = "fine_tuned"
    lora_targets: Literal["attention_mlp", "all"] = "attention_mlp"
    normalisation: Literal["own", "imagenet", "clip"] = "own"
    checkpoint: Literal["best", "last"] = "best"
    fusion_start: Literal["average", "random"] = "average"
    unit_distilled: bool = True
    # Switches added since; None means: as the paper says.
    vision_head: Literal["adapted", "random_adapted"] | None = None
    letters_lost: Literal[True] | None = None
    class_text_share: Fraction | None = None
    validation_per_class: Positive | None = None


class Lora(Strict):
    """Low-rank adapters: update scaled by alpha / rank."""

    rank: Positive = 16
    alpha: Positive = 8
    dropout: Fraction = 0.0


class Descent(Strict):
    """One stage of gradient descent with Adam; `checks_per_epoch` counts looks at validation.

    `precision` is that of forward passes while training, looks included; all else is float32. An
    epoch goes over all rows so many `passes`: few of them are then learned from in as many steps.
    """

    epochs: Positive = 1
    passes: Positive | None = None
    batch_size: Positive = 64
    learning_rate: Rate = 1e-3
    weight_decay: Weight = 1e-4
    gradient_clip: Rate = 0.5
    checks_per_epoch: Positive = 1
    precision: Literal["no", "bf16"] = "no"


class Training(Descent):
    """Stage two (CLIP-IT and its LoRA-only control alike); see `vision.checkpoint_gradients`, and
    `training.Patches.some` of the most patches of validation that a look reads. `compiled` has the
    backbone translated by torch.compile: minutes at first, and other digits.
    """

    augment: bool = False
    looks_at: Positive | None = None
    gradient_checkpointing: Literal[True] | None = None
    compiled: Literal[True] | None = None


class Probe(Descent):
    """The linear probe on frozen features."""

    epochs: Positive = 30


class TextStage(Descent):
    """Stage one: text encoder and head on (paired report, label); batches count reports."""

    epochs: Positive = 10
    batch_size: Positive = 16
    long_text: Literal["truncate", "chunk"] = "truncate"


class Pairing(Strict):
    """Which text an image gets: the report of this `rank` by cosine similarity (1 is equation 1).

    Controls: `random` draws a report for each patch once, `redrawn` anew in each epoch; `shuffled`
    moves the paired reports among all patches, `shuffled_within_class` among those of a class;
    `constant` gives every patch the most used one. An oracle gives a share `right` of the patches,
    drawn by the seed, the report whose id is the patch's (`own`), one on any patch of its label
    (`own_class`), or one of the ten most similar to its own (`own_neighbour`); the rest get a
    random one. `source` replaces reports by the retriever's nearest class prompt, by the histology
    terms nearest to the image (Table 6), or by a prompt of the patch's own class (where a share is
    `right`: of another one for the rest).
    """

    rank: Positive = 1
    reports: Literal[
        "matched", "random", "none", "redrawn", "shuffled", "shuffled_within_class", "constant",
        "own", "own_class", "own_neighbour",
    ] = "matched"  # fmt: skip
    right: Part | None = None
    source: Literal["prompts", "terms", "class_prompts"] | None = None


class Contrastive(Strict):
    """Prompt-based classification by a CLIP (Table 2, appendix E).

    `same_class`: other patches of it, which have the same prompt, are left out of the loss or, as
    by the released code, taken as negatives.
    """

    templates: Literal["conch", "quiltnet"] = "conch"
    averaging: Literal["similarities", "embeddings"] = "similarities"
    temperature: Rate = 0.07
    same_class: Literal["left_out", "negatives"] = "left_out"
    misaligned_names: Literal[True] | None = None
    # What the names of classes and templates say; filled in when a run is specified.
    class_texts: tuple[str, ...] = ()
    wording: str | None = None


# -- Settings of the encoders that are trained on the spot.


def trained_here(encoder: str) -> bool:
    """Whether an encoder of this name is trained on the spot."""
    return encoder.startswith("phantom_") or encoder == "stand_in"


# Part of what names the phantom's caches, corpora and encoders: raise it when the same settings
# draw anything else.
PHANTOM_VERSION = 1


class PhantomPretraining(Strict):
    """How the phantom's own encoders are trained, on its own pretraining patches."""

    images: Positive
    clip_epochs: Positive
    vision_epochs: Positive
    side: Positive = 64
    batch_size: Positive = 128
    learning_rate: Rate = 1e-3
    seed: Seed = 0


class StandInTraining(Strict):
    """How the stand-in retriever is trained: projections that join EfficientNet-Lite2 and MiniLM.

    `dataset` names the data set whose retriever split is used, read at `side` pixels;
    `context_length` counts tokens.
    """

    dataset: str
    side: Positive = 128
    epochs: Positive = 30
    captions_per_class: Positive = 100
    width: Positive = 128
    batch_size: Positive = 256
    learning_rate: Rate = 1e-3
    context_length: Positive = 128
    seed: Seed = 0


# -- Everything that can change the result of one run.


class Labelled(Strict):
    """What is computed on which patches and labels; a hash of all fields is its key.

    Fields not used are None, which cannot change the key. `depth`, of published encoders in blocks,
    marks a rehearsal. Wrong labels are of any other class, or the `next` one (Han et al. 2018).
    """

    version: int = 2
    depth: Positive | None = None
    kernels: str  # what floating-point kernels computed it, see `kernels.level`
    dataset: str
    data_hash: str
    seed: int
    labels_per_class: Positive | None = None
    label_noise: Fraction = 0.0
    noise_to: Literal["next"] | None = None
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
        target: what is distilled instead of text features; `soft_labels` as in `text.soft_labels`.
        unlabelled: share of the other training patches that are distilled without their labels.
        smoothing, mixup: share of a training label spread over all classes; a of Beta(a, a).
        averaged: decay of the moving average of the weights, see `training.fit`.
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
    target: Literal["image", "image_centroids", "noise", "soft_labels"] | None = None
    distillation_weight: Weight | None = None
    unlabelled: Part | None = None
    smoothing: Fraction | None = None
    mixup: Rate | None = None
    averaged: Fraction | None = None
    contrastive: Contrastive | None = None
