"""The grammar of a pathology report on the phantom."""

from __future__ import annotations

import numpy as np

from clipit_lib.data.phantom.latents import WORLDS, draw
from clipit_lib.reports.phantom_captions import joined
from clipit_lib.reports.phantom_phrases import (
    BLOCKS,
    CLOSINGS,
    HEADERS,
    PHRASES,
    UNDECIDED,
    Phrases,
)
from clipit_lib.reports.phantom_words import Field, field_of, findings, pick

SHORTEST, LONGEST = 60, 250
OMITTED, UNDECIDED_SHARE = 0.3, 0.25
DOMINANT = (
    "Microscopic examination shows {}.",
    "Sections show {}.",
    "Histology: {}.",
    "The slides demonstrate {}.",
    "Microscopic description: {}.",
    "Most of the material consists of {}.",
)
FURTHER = ("Also noted: {}.", "Further findings are {}.", "Also present: {}.")
OTHER = ("Other sections contain {}.", "In other blocks: {}.", "Additional blocks show {}.")
BESIDE = (
    "The adjacent tissue shows {}.",
    "Elsewhere, {}.",
    "At the periphery: {}.",
    "A separate fragment has {}.",
)


def write_report(organ: str, rng: np.random.Generator) -> str:
    """One report of 60 to 250 words on a case drawn from the worlds of this organ.

    A case is four fields: two of its dominant kind and two of other kinds.
    """
    phrases = PHRASES[organ]
    worlds = [world for world in WORLDS.values() if world.organ == organ]
    kinds = [(world.name, label) for world in worlds for label in range(len(world.classes))]
    world, label = kinds[int(rng.integers(len(kinds)))]
    fields = _case(world, label, rng)
    sections = [
        _filled(pick(rng, HEADERS), rng),
        f"{pick(rng, ('Specimen', 'Source', 'Procedure'))}: {pick(rng, phrases.specimens)}.",
        *_some(phrases.histories, 1, rng),
        *_some(phrases.gross, int(rng.integers(1, 4)), rng),
        *_some(BLOCKS, 1, rng),
        *_microscopy(fields, rng),
        *_some(phrases.asides, int(rng.integers(1, 4)), rng),
        _diagnosis(phrases, world, label, rng),
        *_some(CLOSINGS, 1, rng),
    ]
    return _within_length(sections, phrases, rng)


def _case(world: str, label: int, rng: np.random.Generator) -> list[Field]:
    others = [k for k in range(len(WORLDS[world].classes)) if k != label]
    labels = np.array([label, label, *rng.choice(others, 2)])
    latents = draw(world, labels, np.zeros(4, np.int64), rng)
    return [field_of(latents, row) for row in range(4)]


def _microscopy(fields: list[Field], rng: np.random.Generator) -> list[str]:
    """Sentences on the dominant kind, then, less fully, on what else is there."""
    first, second = findings(fields[0], rng, OMITTED), findings(fields[1], rng, 2 * OMITTED)
    sentences = [pick(rng, DOMINANT).format(joined(first[:3]))]
    if first[3:]:
        sentences.append(pick(rng, FURTHER).format(joined(first[3:6])))
    repeated = set(first)
    rest = [phrase for phrase in second if phrase not in repeated]
    if rest:
        sentences.append(pick(rng, OTHER).format(joined(rest[:3])))
    for field in fields[2:]:
        if rng.random() >= OMITTED:
            sentences.append(pick(rng, BESIDE).format(joined(findings(field, rng, OMITTED)[:2])))
    return sentences


def _diagnosis(phrases: Phrases, world: str, label: int, rng: np.random.Generator) -> str:
    known = phrases.diagnoses[world][WORLDS[world].classes[label]]
    text = pick(rng, UNDECIDED if rng.random() < UNDECIDED_SHARE else known)
    head = pick(rng, ("DIAGNOSIS", "Final diagnosis", "Diagnosis", "Impression"))
    return f"{head}: {_filled(text, rng)}."


def _some(options: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """`count` different sentences, in their order, with their numbers filled in."""
    rows = sorted(rng.permutation(len(options))[:count])
    return [_filled(options[row], rng) for row in rows]


def _filled(text: str, rng: np.random.Generator) -> str:
    return text.format(*(int(n) for n in rng.integers(1, 10, text.count("{}"))))


def _within_length(sections: list[str], phrases: Phrases, rng: np.random.Generator) -> str:
    """The sections as one text: padded with asides if short, cut if long."""
    while len(" ".join(sections).split()) < SHORTEST:
        sections.insert(-1, _some(phrases.asides, 1, rng)[0])
    return " ".join(" ".join(sections).split()[:LONGEST])
