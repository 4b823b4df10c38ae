"""Class-conditional reports by a grammar, for where no language model is at hand.

They stand for what a language model writes from a class name: more stereotyped than the reports
of `phantom_reports`. A report is about one kind of tissue, tells what is typical of it, in one
word for each grade of a finding, always names its class, and has no section beside the point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from clipit_lib.data.reports import Corpus, FileCorpus, ReportCorpus
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from clipit_lib.settings import Positive, Strict
from companion.crc5 import CLASS_TEXTS, CLASSES, DESCRIPTIONS
from companion.phantom.latents import MORPHOLOGY, WORLDS, Tissue
from companion.phantom.reports import FINDINGS, LICENCE, findings, joined, pick
from companion.reading import read_strict

# First spawn key of this seed stream, apart from those in `phantom` and from the worlds' numbers.
SYNTHETIC = 3000
KINDS = ("pcam", "bach", "crc", "crc5")
SHORTEST, LONGEST = 40, 100
# How far a report's morphology strays from the mean of its class.
SPREAD = 0.08
PATIENCE = 1000


class Grammar(Strict):
    """Sentences with a place for an organ, for phrases or for a class."""

    openings: tuple[str, ...]
    shown: tuple[tuple[str, ...], ...]
    uniform: tuple[str, ...]
    impressions: tuple[str, ...]


SENTENCES: Grammar = read_strict(Path(__file__).parent / "manifests" / "grammar.yaml", Grammar)
# The only word for each grade of a finding: the first of its synonyms.
WORD = {
    phrase: synonyms[0]
    for finding in FINDINGS.values()
    for synonyms in finding.grades
    for phrase in synonyms
}


@dataclass(frozen=True)
class Subject:
    """One class to write about.

    Attributes:
        organ: "breast" or "colon".
        name, text: of the class.
        names: other ways to name it in an impression.
        typical: phrases on what it looks like, drawn anew for each report.
    """

    organ: str
    name: str
    text: str
    names: tuple[str, ...]
    typical: Callable[[np.random.Generator], list[str]]


class SyntheticCorpus(Corpus):
    """Reports written class by class: by a grammar, or by a language model beforehand.

    `classes_of` names the classes that the grammar writes `per_class` reports of, those of a
    phantom world or of crc5. `path` opens a csv of the command `synthesize` instead.
    """

    source: Literal["synthetic"]
    classes_of: Literal["pcam", "bach", "crc", "crc5"] | None = None
    per_class: Positive = 500
    seed: int = 0
    path: str | None = None
    organ: str = "unknown"
    licence: str = "not stated"

    @model_validator(mode="after")
    def _one_origin(self) -> SyntheticCorpus:
        if (self.classes_of is None) == (self.path is None):
            raise ValueError("give either classes_of or path")
        return self

    def open(self, name: str) -> ReportCorpus:
        """The csv, or `per_class` different reports of each class, class by class.

        Ids are CLASS-NUMBER. The first reports of a class do not depend on how many are asked for.

        Raises:
            ClipItError: more reports are asked for than the grammar has; as `FileCorpus.open`.
        """
        if self.classes_of is None:
            assert self.path is not None
            return FileCorpus(
                source="file", path=self.path, column="text", organ=self.organ, licence=self.licence
            ).open(name)
        classes = subjects(self.classes_of)
        ids, texts = [], []
        for number, subject in enumerate(classes):
            key = (SYNTHETIC, KINDS.index(self.classes_of), number)
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            texts += _different(subject, self.per_class, rng)
            ids += [f"{subject.name}-{k + 1:04d}" for k in range(self.per_class)]
        content = digest(*ids, *texts)
        return ReportCorpus(name, tuple(ids), tuple(texts), classes[0].organ, content, LICENCE)


def _different(subject: Subject, count: int, rng: np.random.Generator) -> list[str]:
    """The first `count` different reports that this generator gives."""
    texts: dict[str, None] = {}
    misses = 0
    while len(texts) < count:
        before = len(texts)
        texts[write_report(subject, rng)] = None
        misses = 0 if len(texts) > before else misses + 1
        if misses == PATIENCE:
            what = f"the grammar has no more than about {before} reports of {subject.name}"
            raise ClipItError(what, "per_class", "Ask for fewer")
    return list(texts)


def write_report(subject: Subject, rng: np.random.Generator) -> str:
    """One report of 40 to 100 words: what it is, what is typical of it, what that means.

    The class comes first, within the window of every text encoder, however short.
    """
    typical = subject.typical(rng)
    sentences = [pick(rng, SENTENCES.openings).format(subject.organ), f"Diagnosis: {subject.text}."]
    for pair, frames in enumerate(SENTENCES.shown):
        if phrases := typical[2 * pair : 2 * pair + 2]:
            sentences.append(pick(rng, frames).format(joined(phrases)))
    sentences.append(pick(rng, SENTENCES.impressions).format(pick(rng, subject.names)))
    if len(" ".join(sentences).split()) < SHORTEST:
        sentences.insert(-1, pick(rng, SENTENCES.uniform))
    return " ".join(sentences)


def subjects(kind: str) -> list[Subject]:
    """The classes of a phantom world or of crc5, in the data set's order."""
    if kind == "crc5":
        return [
            Subject("colon", name, text, (text,), _described(text))
            for name, text in zip(CLASSES, CLASS_TEXTS, strict=True)
        ]
    world = WORLDS[kind]
    tissues = zip(world.tissues.items(), world.class_texts, strict=True)
    return [
        Subject(world.organ, name, text, own.names + own.diagnoses, _seen(own))
        for (name, own), text in tissues
    ]


def _described(text: str) -> Callable[[np.random.Generator], list[str]]:
    return lambda rng: [str(phrase) for phrase in rng.permutation(DESCRIPTIONS[text])[:4]]


def _seen(tissue: Tissue) -> Callable[[np.random.Generator], list[str]]:
    """Findings of a morphology near the mean of a class of the phantom."""
    mean = np.array([tissue.mean.get(latent, 0.0) for latent in MORPHOLOGY])

    def typical(rng: np.random.Generator) -> list[str]:
        strays = SPREAD * rng.standard_normal(len(mean)) * (mean > 0)
        field = dict(zip(MORPHOLOGY, np.clip(mean + strays, 0, 1).tolist(), strict=True))
        return [WORD[phrase] for phrase in findings(field, rng, omission=0.0)]

    return typical
