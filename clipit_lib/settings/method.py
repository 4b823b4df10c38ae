"""Settings of the method: protocol switches, adapters, training stages."""

from __future__ import annotations

from typing import Literal

from clipit_lib.settings.base import Fraction, Positive, Rate, Strict, Weight


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

    `precision` is that of forward passes while training, looks at validation included. Weights and
    their updates, cached embeddings and stored predictions are float32 whatever it is.
    """

    epochs: Positive = 1
    batch_size: Positive = 64
    learning_rate: Rate = 1e-3
    weight_decay: Weight = 1e-4
    gradient_clip: Rate = 0.5
    checks_per_epoch: Positive = 1
    precision: Literal["no", "bf16"] = "no"


class Training(Descent):
    """Stage two (CLIP-IT and its LoRA-only control alike).

    `gradient_checkpointing` computes the image encoder's blocks twice and keeps one block's
    activations at a time: less memory, the same gradients.
    """

    augment: bool = False
    gradient_checkpointing: Literal[True] | None = None


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
    `constant` gives every patch the most used one. `source` replaces reports by the retriever's
    nearest class prompt, by the histology terms nearest to the image (Table 6), or by a prompt of
    the patch's own class.
    """

    rank: Positive = 1
    reports: Literal[
        "matched", "random", "none", "redrawn", "shuffled", "shuffled_within_class", "constant"
    ] = "matched"
    source: Literal["prompts", "terms", "class_prompts"] | None = None


class Contrastive(Strict):
    """Prompt-based classification by a CLIP (Table 2, appendix E).

    Other patches of the same class have the same prompt: `same_class` leaves them out of the loss,
    or takes them as negatives, as the released code does.
    """

    templates: Literal["conch", "quiltnet"] = "conch"
    averaging: Literal["similarities", "embeddings"] = "similarities"
    temperature: Rate = 0.07
    same_class: Literal["left_out", "negatives"] = "left_out"
    misaligned_names: Literal[True] | None = None
    # What the names of classes and templates say; filled in when a run is specified.
    class_texts: tuple[str, ...] = ()
    wording: str | None = None
