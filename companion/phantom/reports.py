"""Reports and captions of the phantom, written from latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from clipit_lib.data.reports import Corpus, ReportCorpus
from clipit_lib.files import digest
from clipit_lib.settings import Positive, Strict
from companion.phantom.latents import (
    MORPHOLOGY,
    PATCHES_PER_PATIENT,
    PATIENTS_PER_SPLIT,
    SPLITS,
    WORLDS,
    Latents,
    Tissue,
    balanced_labels,
    draw,
)
from companion.phantom.patches import render
from companion.reading import read_strict


class PhantomCorpus(Corpus):
    """Reports of phantom patches of one organ."""

    source: Literal["phantom"]
    organ: Literal["breast", "colon"]
    reports: Positive
    seed: int = 0

    def open(self, name: str) -> ReportCorpus:
        """Different reports on one organ; the first do not depend on how many there are."""
        texts: dict[str, None] = {}
        for number in range(self.reports):
            key = (REPORTS, ORGANS.index(self.organ), number)
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            while len(texts) == number:
                texts[write_report(self.organ, rng)] = None
        ids = tuple(f"phantom-{self.organ}-{k + 1:04d}" for k in range(self.reports))
        content = digest(*ids, *texts)
        return ReportCorpus(name, ids, tuple(texts), self.organ, content, LICENCE)


# -- The words of captions and reports: graded findings with synonyms, and what surrounds them.

Field = dict[str, float]


class Finding(Strict):
    """How one latent is put into words.

    Attributes:
        limits: value from which each grade is used; below the first nothing is said.
        grades: synonyms of each grade, from least to most.
        weight: how readily it is mentioned before others.
        needs: latents of which one must be seen for this one to be worth a word.
    """

    limits: tuple[float, ...]
    grades: tuple[tuple[str, ...], ...]
    weight: float = 1.0
    needs: tuple[str, ...] = ()


class Phrases(Strict):
    """What texts are made of besides findings; `{}` stands for a number, a letter or findings.

    `by_organ` are specimens, histories, gross and asides, which say little or nothing about
    morphology. `dominant`, `further`, `other` and `beside` frame findings of a report, `frames`
    and `long_frames` those of a caption.
    """

    findings: dict[str, Finding]
    by_organ: dict[str, dict[str, tuple[str, ...]]]
    headers: tuple[str, ...]
    blocks: tuple[str, ...]
    dominant: tuple[str, ...]
    further: tuple[str, ...]
    other: tuple[str, ...]
    beside: tuple[str, ...]
    undecided: tuple[str, ...]
    closings: tuple[str, ...]
    frames: tuple[str, ...]
    long_frames: tuple[str, ...]


PHRASES: Phrases = read_strict(Path(__file__).with_name("phrases.yaml"), Phrases)
FINDINGS = PHRASES.findings


def field_of(latents: Latents, row: int) -> Field:
    """The morphology of one patch, by name."""
    return {name: float(getattr(latents, name)[row]) for name in MORPHOLOGY}


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def grade(name: str, value: float) -> int:
    """Which grade of a finding a value belongs to; -1 below the first."""
    return sum(value >= limit for limit in FINDINGS[name].limits) - 1


def findings(field: Field, rng: np.random.Generator, omission: float) -> list[str]:
    """What there is to say of a field, most prominent first, each left out with `omission`.

    At least one finding is always left.
    """
    ranked = []
    for name, finding in FINDINGS.items():
        level = grade(name, field[name])
        seen = not finding.needs or max(field[need] for need in finding.needs) > 0.18
        if level >= 0 and seen:
            prominence = finding.weight * (0.35 + field[name]) + 0.15 * rng.standard_normal()
            ranked.append((prominence, pick(rng, finding.grades[level])))
    ranked.sort(reverse=True)
    kept = [phrase for _, phrase in ranked if rng.random() >= omission]
    return kept or [ranked[0][1]]


# -- One-line image captions, as in the figures that pathology CLIPs learn from.

SHORTEST_CAPTION, LONGEST_CAPTION = 8, 25
NAMED, OMITTED_IN_CAPTION = 0.6, 0.25


def captions(world: str, latents: Latents, rng: np.random.Generator) -> list[str]:
    """One caption per patch, of 8 to 25 words.

    A caption names some of the findings, each left out now and then, and in six of ten the kind
    of tissue, by the text of its class or a synonym.
    """
    kinds = WORLDS[world]
    tissues = zip(kinds.class_texts, kinds.tissues.values(), strict=True)
    names = [(text, *tissue.names) for text, tissue in tissues]
    return [_caption(names[latents.label[k]], latents, k, rng) for k in range(len(latents))]


def _caption(names: tuple[str, ...], latents: Latents, row: int, rng: np.random.Generator) -> str:
    parts = [pick(rng, names)] if rng.random() < NAMED else []
    parts += findings(field_of(latents, row), rng, OMITTED_IN_CAPTION)[: 2 + int(rng.integers(4))]
    frame = pick(rng, PHRASES.frames)
    while _words(frame.format(joined(parts))) > LONGEST_CAPTION:
        parts.pop()
    if _words(frame.format(joined(parts))) < SHORTEST_CAPTION:
        frame = pick(rng, PHRASES.long_frames)
    return frame.format(joined(parts))


def joined(parts: list[str]) -> str:
    """Phrases as an enumeration."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _words(text: str) -> int:
    return len(text.split())


# -- The grammar of a pathology report on the phantom.

SHORTEST_REPORT, LONGEST_REPORT = 60, 250
OMITTED_IN_REPORT, UNDECIDED_SHARE = 0.3, 0.25


def write_report(organ: str, rng: np.random.Generator) -> str:
    """One report of 60 to 250 words on a case drawn from the worlds of this organ.

    A case is four fields: two of its dominant kind and two of other kinds.
    """
    own = PHRASES.by_organ[organ]
    worlds = [world for world in WORLDS.values() if world.organ == organ]
    kinds = [(world, label) for world in worlds for label in range(len(world.classes))]
    world, label = kinds[int(rng.integers(len(kinds)))]
    others = [k for k in range(len(world.classes)) if k != label]
    labels = np.array([label, label, *rng.choice(others, 2)])
    latents = draw(world.name, labels, np.zeros(4, np.int64), rng)
    sections = [
        _filled(pick(rng, PHRASES.headers), rng),
        f"{pick(rng, ('Specimen', 'Source', 'Procedure'))}: {pick(rng, own['specimens'])}.",
        *_some(own["histories"], 1, rng),
        *_some(own["gross"], int(rng.integers(1, 4)), rng),
        *_some(PHRASES.blocks, 1, rng),
        *_microscopy([field_of(latents, row) for row in range(4)], rng),
        *_some(own["asides"], int(rng.integers(1, 4)), rng),
        _diagnosis(world.tissues[world.classes[label]], rng),
        *_some(PHRASES.closings, 1, rng),
    ]
    while _words(" ".join(sections)) < SHORTEST_REPORT:
        sections.insert(-1, _some(own["asides"], 1, rng)[0])
    return " ".join(" ".join(sections).split()[:LONGEST_REPORT])


def _microscopy(fields: list[Field], rng: np.random.Generator) -> list[str]:
    """Sentences on the dominant kind, then, less fully, on what else is there."""
    first = findings(fields[0], rng, OMITTED_IN_REPORT)
    second = findings(fields[1], rng, 2 * OMITTED_IN_REPORT)
    sentences = [pick(rng, PHRASES.dominant).format(joined(first[:3]))]
    if first[3:]:
        sentences.append(pick(rng, PHRASES.further).format(joined(first[3:6])))
    if rest := [phrase for phrase in second if phrase not in first]:
        sentences.append(pick(rng, PHRASES.other).format(joined(rest[:3])))
    for field in fields[2:]:
        if rng.random() >= OMITTED_IN_REPORT:
            frame = pick(rng, PHRASES.beside)
            sentences.append(frame.format(joined(findings(field, rng, OMITTED_IN_REPORT)[:2])))
    return sentences


def _diagnosis(tissue: Tissue, rng: np.random.Generator) -> str:
    decided = rng.random() >= UNDECIDED_SHARE
    text = pick(rng, tissue.diagnoses if decided else PHRASES.undecided)
    head = pick(rng, ("DIAGNOSIS", "Final diagnosis", "Diagnosis", "Impression"))
    return f"{head}: {_filled(text, rng)}."


def _some(options: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """`count` different sentences, in their order, with their numbers filled in."""
    rows = sorted(rng.permutation(len(options))[:count])
    return [_filled(options[row], rng) for row in rows]


def _filled(text: str, rng: np.random.Generator) -> str:
    return text.format(*(int(n) for n in rng.integers(1, 10, text.count("{}"))))


# -- Texts on the phantom: report corpora, and image-caption pairs to train its CLIP on.

# First spawn keys of the seed streams kept apart from those of data sets, which start with the
# number of a world: so no seed can make the patients of one appear in another.
PRETRAINING, REPORTS = 1000, 2000
ORGANS = ("breast", "colon")
# "world/class", in the order of the class ids of `pretraining_pairs`.
PRETRAINING_CLASSES = tuple(f"{name}/{c}" for name, w in WORLDS.items() for c in w.classes)
LICENCE = "generated by this library; MIT, as the library"


def pretraining_pairs(
    images: int, side: int, seed: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Image-caption pairs from all worlds, for encoders that know no data set.

    Their patients are in no data set: latents, captions and pixels come from the seed stream
    (seed, PRETRAINING), which no data set uses whatever its seed.

    Returns:
        pixels [n, side, side, 3] uint8, n captions, and class ids [n] int64 into
        `PRETRAINING_CLASSES`.
    """
    seeds = np.random.SeedSequence(seed, spawn_key=(PRETRAINING,))
    label_seeds, pixel_seeds, *world_seeds = seeds.spawn(2 + len(WORLDS))
    ids = balanced_labels(images, len(PRETRAINING_CLASSES), np.random.default_rng(label_seeds))
    parts, texts, rows, start = [], [], [], 0
    for world, child in zip(WORLDS.values(), world_seeds, strict=True):
        stop = start + len(world.classes)
        here = np.flatnonzero((ids >= start) & (ids < stop))
        latent_rng, text_rng = np.random.default_rng(child).spawn(2)
        patients = PATIENTS_PER_SPLIT * len(SPLITS) + np.arange(len(here)) // PATCHES_PER_PATIENT
        parts.append(draw(world.name, ids[here] - start, patients, latent_rng))
        texts += captions(world.name, parts[-1], text_rng)
        rows.append(here)
        start = stop
    order, pixel_seed = np.argsort(np.concatenate(rows)), int(pixel_seeds.generate_state(1)[0])
    pixels = render(Latents.concatenate(parts).take(order), side, pixel_seed)
    return pixels, [texts[k] for k in order], ids
