"""Phantom slides: bags of phantom patches whose aggressiveness sets a planted hazard.

A slide has a latent aggressiveness a ~ N(0, 1). It shifts the mixture of classes from normal to
invasive and, within a patch, size and pleomorphism of the nuclei. The time to the event is
exponential with log hazard beta * a + constant; the time to censoring is exponential and
independent of everything else. A phantom, as everywhere here: never tissue, never a patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from clipit_lib.data.phantom.latents import PATIENTS_PER_SPLIT, SPLITS, Latents, draw
from clipit_lib.data.phantom.render import render
from clipit_lib.settings import PhantomSlides

# First spawn key of the slides' seed stream; see PRETRAINING and REPORTS in reports/phantom.py.
SLIDES = 4000
VERSION = 1  # raise it when the same settings draw anything else
WORLD = "bach"
MEDIAN_MONTHS = 36.0  # time to the event at average aggressiveness
# Change of the log odds of Benign, InSitu, Invasive, Normal by one unit of aggressiveness, and of
# each latent in every patch.
MIXTURE = np.array([-0.3, 0.3, 0.9, -0.9])
MORPHOLOGY = {"pleomorphism": 0.06, "nuclear_size": 0.05, "regularity": -0.04, "cellularity": 0.04}
SCATTER = 0.5  # of the log odds between slides of equal aggressiveness


@dataclass(frozen=True)
class Slides:
    """What is known of n phantom slides before any pixel is drawn.

    Attributes:
        clinical: slide, time (months), event, fold.
        log_hazard: [n], planted: beta * aggressiveness.
        latents: of all patches, slide after slide.
        pixel_seed: for `render`.
    """

    clinical: pd.DataFrame
    log_hazard: np.ndarray
    latents: Latents
    pixel_seed: int


def draw_slides(settings: PhantomSlides, folds: int) -> Slides:
    """Draw aggressiveness, follow-up, folds (stratified by event) and the latents of patches."""
    seeds = np.random.SeedSequence(settings.seed, spawn_key=(SLIDES,)).spawn(4)
    slide_rng, time_rng, patch_rng = (np.random.default_rng(seed) for seed in seeds[:3])
    aggressiveness = slide_rng.standard_normal(settings.slides)
    log_hazard = settings.beta * aggressiveness
    time, event = _follow_up(log_hazard, settings.censored, time_rng)
    clinical = pd.DataFrame({
        "slide": [f"phantom-{number:04d}" for number in range(1, settings.slides + 1)],
        "time": time, "event": event.astype(int), "fold": _stratified(event, folds, time_rng),
    })  # fmt: skip
    latents = _patches(aggressiveness, settings.patches, patch_rng)
    return Slides(clinical, log_hazard, latents, int(seeds[3].generate_state(1)[0]))


def _follow_up(
    log_hazard: np.ndarray, censored: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Months (to one decimal, so that ties occur) and whether the event was seen."""
    rate = np.log(2) / MEDIAN_MONTHS * np.exp(log_hazard)
    until_event = rng.exponential(1 / rate)
    waiting = rng.exponential(size=len(rate))
    until_censoring = waiting / _censoring_rate(rate, censored) if censored > 0 else np.inf
    months = np.minimum(until_event, until_censoring)
    return np.maximum(months.round(1), 0.1), until_event <= until_censoring


def _censoring_rate(rate: np.ndarray, censored: float) -> float:
    """The rate c at which the mean of c / (c + rate) is the share to be censored."""

    def excess(c: float) -> float:
        return float((c / (c + rate)).mean()) - censored

    return float(brentq(excess, 0.0, 1e6 * float(rate.max())))


def _stratified(event: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Folds from 1, [n]: events and censored slides are dealt out in turn."""
    order = rng.permutation(len(event))
    order = order[np.argsort(event[order], kind="stable")]
    fold = np.empty(len(event), np.int64)
    fold[order] = np.arange(len(event)) % folds + 1
    return fold


def _patches(aggressiveness: np.ndarray, patches: int, rng: np.random.Generator) -> Latents:
    mixture_rng, latent_rng = rng.spawn(2)
    slides = len(aggressiveness)
    odds = aggressiveness[:, None] * MIXTURE + SCATTER * mixture_rng.standard_normal((slides, 4))
    share = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    uniform = mixture_rng.random((slides, patches, 1))
    labels = (uniform > share.cumsum(axis=1)[:, None, :-1]).sum(axis=2).ravel()
    # Ids beyond those of data sets and of pretraining patches; one patient a slide.
    patients = 2 * PATIENTS_PER_SPLIT * len(SPLITS) + np.repeat(np.arange(slides), patches)
    latents = draw(WORLD, labels, patients, latent_rng)
    of_patch = np.repeat(aggressiveness, patches)
    shifted = {
        name: np.clip(getattr(latents, name) + shift * of_patch, 0, 1).astype(np.float32)
        for name, shift in MORPHOLOGY.items()
    }
    return replace(latents, **shifted)


def pixels(slides: Slides, settings: PhantomSlides, number: int) -> np.ndarray:
    """The patches of one slide (counted from 0), [patches, side, side, 3] uint8."""
    first = number * settings.patches
    latents = slides.latents.take(slice(first, first + settings.patches))
    return render(latents, settings.side, slides.pixel_seed, first=first)
