"""The phantom's texts: distinct, of the stated length, graded by the latents, kept apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipit_lib.files import digest
from companion.phantom.latents import MORPHOLOGY, WORLDS, draw_dataset
from companion.phantom.patches import render
from companion.phantom.reports import (
    FINDINGS,
    PRETRAINING_CLASSES,
    PhantomCorpus,
    captions,
    findings,
    grade,
    pretraining_pairs,
    write_report,
)

ORGANS = ("breast", "colon")


def corpus_settings(organ: str, reports: int = 300, seed: int = 0) -> PhantomCorpus:
    return PhantomCorpus.model_validate(
        {"source": "phantom", "organ": organ, "reports": reports, "seed": seed}
    )


@pytest.mark.parametrize("organ", ORGANS)
def test_reports_are_distinct_and_of_the_stated_length(organ: str) -> None:
    corpus = corpus_settings(organ).open("reports")
    assert (corpus.name, corpus.organ, len(corpus)) == ("reports", organ, 300)
    assert corpus.ids[0] == f"phantom-{organ}-0001"
    assert len(set(corpus.ids)) == len(set(corpus.texts)) == 300
    assert all(60 <= len(text.split()) <= 250 for text in corpus.texts)
    assert not any(re.search(r"[{}]|  |\.\.", text) for text in corpus.texts)


def test_the_first_reports_do_not_depend_on_how_many_follow() -> None:
    short, long = (corpus_settings("colon", n).open("x") for n in (20, 60))
    assert long.texts[:20] == short.texts
    other = corpus_settings("colon", 20, seed=1).open("x")
    assert not set(other.texts) & set(short.texts)


def test_the_hash_is_that_of_ids_and_texts() -> None:
    corpora = [corpus_settings(o, 20, s).open("x") for o in ORGANS for s in (0, 1)]
    assert len({corpus.content_hash for corpus in corpora}) == 4
    assert corpora[0].content_hash == digest(*corpora[0].ids, *corpora[0].texts)


def test_most_reports_do_not_name_a_class_in_the_words_of_the_data_set() -> None:
    corpus = corpus_settings("breast").open("x")
    texts = WORLDS["pcam"].class_texts + WORLDS["bach"].class_texts
    named = [any(text in report for text in texts) for report in corpus.texts]
    assert np.mean(named) < 0.2


def test_a_report_speaks_of_its_dominant_kind() -> None:
    """Where the diagnosis says fat, fat is found more often than where it says muscle."""
    rng = np.random.default_rng(0)
    reports = [write_report("colon", rng) for _ in range(300)]
    words = {"fat": "ADI", "muscle": "MUS"}
    share = {}
    for diagnosis in words.values():
        lines = WORLDS["crc"].tissues[diagnosis].diagnoses
        own = [report for report in reports if any(line in report for line in lines)]
        bodies = [re.split("diagnosis:|impression:", report, flags=re.I)[0] for report in own]
        marked = (FINDINGS["fat"].grades[-1], FINDINGS["muscle"].grades[-1])
        share[diagnosis] = [np.mean([any(p in b for p in g) for b in bodies]) for g in marked]
    assert share["ADI"][0] > 2 * share["MUS"][0]
    assert share["MUS"][1] > 2 * share["ADI"][1]


def test_every_latent_and_class_has_words() -> None:
    assert tuple(FINDINGS) == MORPHOLOGY
    for finding in FINDINGS.values():
        assert len(finding.limits) == len(finding.grades)
        assert list(finding.limits) == sorted(finding.limits)
        assert all(phrase for phrases in finding.grades for phrase in phrases)
    phrases = [p for f in FINDINGS.values() for synonyms in f.grades for p in synonyms]
    assert len(phrases) == len(set(phrases))
    for world in WORLDS.values():
        assert tuple(world.tissues) == world.classes
        assert all(each.names and each.diagnoses for each in world.tissues.values())


@given(st.sampled_from(MORPHOLOGY), st.floats(0, 1), st.floats(0, 1))
def test_words_grade_with_the_latent(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert -1 <= grade(name, low) <= grade(name, high) < len(FINDINGS[name].grades)
    assert grade(name, 1.0) == len(FINDINGS[name].grades) - 1


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(deadline=None)
def test_findings_say_the_grade_of_the_value_and_never_nothing(value: float, seed: int) -> None:
    field = dict.fromkeys(MORPHOLOGY, 0.0) | {"lymphocytes": value}
    said = findings(field, np.random.default_rng(seed), omission=0.0)
    assert said
    level = grade("lymphocytes", value)
    expected = set(FINDINGS["lymphocytes"].grades[level]) if level >= 0 else set()
    spoken = {p for synonyms in FINDINGS["lymphocytes"].grades for p in synonyms} & set(said)
    assert spoken <= expected
    assert bool(spoken) == (level >= 0)
    assert findings(field, np.random.default_rng(seed), omission=1.0)


@pytest.mark.parametrize("world", WORLDS)
def test_captions_are_short_and_name_the_tissue_often_but_not_always(world: str) -> None:
    latents, _ = draw_dataset(world, 300, 0, 0, 0)
    lines = captions(world, latents, np.random.default_rng(0))
    assert len(lines) == 300
    assert all(8 <= len(line.split()) <= 25 for line in lines)
    assert lines == captions(world, latents, np.random.default_rng(0))
    kinds = WORLDS[world]
    tissues = zip(kinds.class_texts, kinds.tissues.values(), strict=True)
    names = [(text, *tissue.names) for text, tissue in tissues]
    named = [
        any(name in line for name in names[label])
        for line, label in zip(lines, latents.label, strict=True)
    ]
    assert 0.45 < np.mean(named) < 0.85


def test_captions_and_reports_share_their_findings() -> None:
    spoken = {p for finding in FINDINGS.values() for level in finding.grades for p in level}
    latents, _ = draw_dataset("crc", 400, 0, 0, 0)
    lines = " ".join(captions("crc", latents, np.random.default_rng(0)))
    reports = " ".join(corpus_settings("colon").open("x").texts)
    shared = {phrase for phrase in spoken if phrase in lines and phrase in reports}
    assert len(shared) > 0.7 * len(spoken)


def test_pairs_come_from_every_class_and_from_no_data_set() -> None:
    pixels, lines, ids = pretraining_pairs(45, 32, 0)
    assert pixels.shape == (45, 32, 32, 3)
    assert len(lines) == len(ids) == 45
    assert (np.bincount(ids) == 3).all()
    assert len(PRETRAINING_CLASSES) == 15
    again = pretraining_pairs(45, 32, 0)
    assert np.array_equal(pixels, again[0])
    assert lines == again[1]
    for world in WORLDS:
        patches = render(draw_dataset(world, 45, 0, 0, 0)[0], 32, 0)
        assert not {patch.tobytes() for patch in patches} & {patch.tobytes() for patch in pixels}


def test_a_caption_belongs_to_its_class() -> None:
    _, lines, ids = pretraining_pairs(300, 16, 0)
    glands = FINDINGS["glands"].grades[-1]
    normal, fat = (PRETRAINING_CLASSES.index(f"crc/{name}") for name in ("NORM", "ADI"))
    share = [np.mean([any(p in lines[k] for p in glands) for k in np.flatnonzero(ids == c)])
             for c in (normal, fat)]  # fmt: skip
    assert share[0] > share[1] + 0.2
