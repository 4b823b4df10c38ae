"""Settings of the survival study (section F.6)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clipit_lib.settings.base import Fraction, Positive, Seed, Seeds, Strict, Weight
from clipit_lib.settings.method import Descent


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
