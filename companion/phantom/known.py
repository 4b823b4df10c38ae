"""A world whose answer is known: how much a patch's own report adds to its label and its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from clipit_lib.data.patches import Recipe, Undecoded, ValidationSplit
from clipit_lib.data.reports import Corpus, ReportCorpus
from clipit_lib.files import digest
from clipit_lib.settings import Positive, Rate, Strict
from companion.phantom import Phantom
from companion.phantom.latents import (
    PATCH_SPREAD,
    PATCHES_PER_PATIENT,
    PATIENT_SPREAD,
    PATIENTS_PER_SPLIT,
    RESIDUE,
    SPLITS,
    WORLDS,
    Latents,
    class_means,
    draw,
    scattered,
)
from companion.phantom.reports import LICENCE, captions

KNOWN, WORLD = 3000, WORLDS["bach"]  # a seed stream of its own; the world of these classes
ENDS = ("Normal", "Invasive")
PLACES = [WORLD.classes.index(end) for end in ENDS]
Share = Annotated[float, Field(ge=0, le=1)]


class Known(Strict):
    """Patches of a grade z from 0 to 1, drawn on the line between the means of two classes.

    The truth is whether z is above a half. Test labels are the truth; a label to learn from is the
    second class with probability 1 / (1 + exp((1/2 - z) / noise)).

    Attributes:
        contrast: how much of the way between the means grades are apart in the image.
        spread: both parameters of the grades' beta distribution; below 1 most lie near an end.
    """

    train: Positive
    validation: Positive
    test: Positive
    contrast: Share = 1.0
    noise: Rate
    spread: Rate = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Drawn:
    """Latents, truth ([n] int64) and split ([n] str) of every patch."""

    latents: Latents
    truth: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, world: Known) -> Drawn:
        """The first patches of a split do not depend on the sizes asked for."""
        counts, parts, truths = (world.train, world.validation, world.test), [], []
        for number, count in enumerate(counts):
            seeds = np.random.SeedSequence(world.seed, spawn_key=(KNOWN, number))
            grades, noises, *rngs = np.random.default_rng(seeds).spawn(4)
            z, u = grades.beta(world.spread, world.spread, count), noises.random(count)
            truth = z > 0.5
            high = truth if SPLITS[number] == "test" else u < probability(z, world.noise)
            low_mean, high_mean = class_means(WORLD.name)[PLACES]
            way = 0.5 + world.contrast * (z[:, None] - 0.5)
            mean = (1 - way) * low_mean + way * high_mean
            patients = number * PATIENTS_PER_SPLIT + np.arange(count) // PATCHES_PER_PATIENT
            parts.append(scattered(mean, high.astype(np.int64), patients, *rngs))
            truths.append(truth.astype(np.int64))
        splits = np.repeat(np.array(SPLITS), counts)
        return cls(Latents.concatenate(parts), np.concatenate(truths), splits)


def probability(grade: np.ndarray, noise: float) -> np.ndarray:
    """Of the high label, given the grade."""
    chance: np.ndarray = 1 / (1 + np.exp((0.5 - grade) / noise))
    return chance


@dataclass(frozen=True)
class Information:
    """What an ideal observer of a patch's latents knows of its truth, in bits of the one there is.

    Attributes:
        label: from its label alone; image: from the latents alone; both: from the two together.
        text: what its own report adds to both.
        text_to_label: what it adds to the label alone.
    """

    label: float
    image: float
    both: float
    text: float
    text_to_label: float


def information(world: Known, informs: float) -> Information:
    """Computed on a grid from the generator. Latents are taken as Gaussian around their means, so
    that they say as much as their projection on the line between the classes; a real image model
    sees less, and its report may add more.
    """
    low, high = class_means(WORLD.name)[PLACES]
    middle = (low + high) / 2
    scatter = 2 * np.sqrt(middle * (1 - middle)) * np.hypot(PATCH_SPREAD, PATIENT_SPREAD)
    distance = world.contrast * float(np.linalg.norm((high - low) / np.hypot(scatter, RESIDUE)))
    edges = np.linspace(0, 1, 1001)
    grade = (edges[1:] + edges[:-1]) / 2
    from scipy import stats  # slow to import

    mass = np.diff(stats.beta.cdf(edges, world.spread, world.spread))
    seen = np.arange(-5, distance + 5, 0.05)
    density = stats.norm.pdf(seen[:, None] - distance * grade) * 0.05  # [x, z]
    second = probability(grade, world.noise)
    labels = np.stack([1 - second, second])  # [y, z]
    said = np.array([[1 + informs, 1 - informs], [1 - informs, 1 + informs]]) / 2  # [t, truth]
    true = np.stack([grade <= 0.5, grade > 0.5]).astype(float)  # [truth, z]
    joint = np.einsum("z,xz,yz,cz,tc->xytc", mass, density, labels, true, said, optimize=True)

    def bits(*kept: int) -> float:
        """About the truth, from the axes `kept` of x, y and t."""
        left = joint.sum(axis=tuple(axis for axis in range(3) if axis not in kept))
        left = left.reshape(-1, 2) / left.sum()
        apart = left.sum(axis=1, keepdims=True) * left.sum(axis=0)
        return float(np.sum(left * np.log2(left / apart, where=left > 0, out=np.zeros_like(left))))

    label, both = bits(1), bits(0, 1)
    return Information(label, bits(0), both, bits(0, 1, 2) - both, bits(1, 2) - label)


class KnownData(Phantom):
    """The patches of a known world."""

    source: Literal["known"]
    world: Known

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.world.train, self.world.validation, self.world.test

    def recipe(self, name: str) -> Recipe:
        texts = tuple(WORLD.class_texts[place] for place in PLACES)
        return self._recipe(name, ENDS, texts, self._draw, ValidationSplit())

    def _draw(self) -> Undecoded:
        drawn = Drawn.of(self.world)
        return self._undecoded("known", drawn.latents, drawn.splits, self.world.seed)


class KnownCorpus(Corpus):
    """A report on each patch of train and validation, by its id.

    Attributes:
        informs: share of the reports that are on a case of the patch's true class; the others are
            on a case of either, at random.
    """

    source: Literal["known"]
    world: Known
    informs: Share

    @property
    def organ(self) -> str:
        return WORLD.organ

    def open(self, name: str) -> ReportCorpus:
        drawn, seed = Drawn.of(self.world), self.world.seed
        rows = np.flatnonzero(drawn.splits != "test")
        seeds = np.random.SeedSequence(seed, spawn_key=(KNOWN, len(SPLITS)))
        which, cases_rng, words = np.random.default_rng(seeds).spawn(3)
        informed = which.random(len(rows)) < self.informs
        label = np.where(informed, drawn.truth[rows], which.integers(2, size=len(rows)))
        # On other fields than the patch: beyond the class, a report says nothing about it.
        cases = draw(WORLD.name, np.array(PLACES)[label], np.arange(len(rows)), cases_rng)
        texts = captions(WORLD.name, cases, words)
        ids = [f"known-{row:06d}" for row in rows]
        content = digest(*ids, *texts)
        return ReportCorpus(name, tuple(ids), tuple(texts), self.organ, content, LICENCE)
