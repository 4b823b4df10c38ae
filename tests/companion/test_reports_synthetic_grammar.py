"""Reports of the grammar: distinct, reproducible, about their class, plainer than the others."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from clipit_lib.data.reports import ReportCorpus
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from companion.crc5 import CLASS_TEXTS, CLASSES, DESCRIPTIONS
from companion.phantom.latents import WORLDS
from companion.phantom.reports import FINDINGS, PRETRAINING, REPORTS, PhantomCorpus
from companion.synthetic import KINDS, SYNTHETIC, SyntheticCorpus

CLASSES_OF = {name: dict(zip(w.classes, w.class_texts, strict=True)) for name, w in WORLDS.items()}
CLASSES_OF["crc5"] = dict(zip(CLASSES, CLASS_TEXTS, strict=True))


def written(kind: str, per_class: int = 60, seed: int = 0) -> ReportCorpus:
    settings = {"source": "synthetic", "classes_of": kind, "per_class": per_class, "seed": seed}
    return SyntheticCorpus.model_validate(settings).open("written")


@pytest.mark.parametrize("kind", KINDS)
def test_reports_are_distinct_of_the_stated_length_and_name_their_class(kind: str) -> None:
    corpus, classes = written(kind), CLASSES_OF[kind]
    assert len(corpus) == len(set(corpus.texts)) == len(set(corpus.ids)) == 60 * len(classes)
    assert corpus.ids[0] == f"{next(iter(classes))}-0001"
    assert corpus.organ == ("breast" if kind in ("pcam", "bach") else "colon")
    assert corpus.content_hash == digest(*corpus.ids, *corpus.texts)
    for report_id, text in zip(corpus.ids, corpus.texts, strict=True):
        assert f"Diagnosis: {classes[report_id.rsplit('-', 1)[0]]}." in text
        assert 40 <= len(text.split()) <= 100
    assert not any(re.search(r"[{}]|  |\.\.", text) for text in corpus.texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_reports_of_a_class_do_not_depend_on_how_many_follow(kind: str) -> None:
    few, many = written(kind, 5), written(kind, 40)
    texts = dict(zip(many.ids, many.texts, strict=True))
    assert {each: texts[each] for each in few.ids} == dict(zip(few.ids, few.texts, strict=True))
    assert written(kind, 5) == few
    other = written(kind, 5, seed=1)
    assert other.ids == few.ids and other.content_hash != few.content_hash


def test_the_paper_asks_for_500_of_each_class() -> None:
    assert len(set(written("crc", 500).texts)) == 9 * 500


def test_the_seed_stream_is_its_own() -> None:
    assert SYNTHETIC not in {PRETRAINING, REPORTS, *range(len(WORLDS))}


@pytest.mark.parametrize(("kind", "organ"), [("bach", "breast"), ("crc", "colon")])
def test_reports_are_plainer_than_those_of_the_phantom(kind: str, organ: str) -> None:
    """Fewer different words, and one phrase a grade where the phantom has synonyms."""
    ours = written(kind, 360 // len(WORLDS[kind].classes))
    settings = {"source": "phantom", "organ": organ, "reports": len(ours)}
    theirs = PhantomCorpus.model_validate(settings).open("real")
    words = [set(" ".join(c.texts).lower().split()) for c in (ours, theirs)]
    assert len(words[0]) < 0.6 * len(words[1])
    shown = [" ".join(re.findall(r"(?:show|reveals?|are|present:) ([^.]*)", t)) for t in ours.texts]
    spoken = {p for t in shown for p in re.split(r", | and ", t)}
    synonyms = {s for finding in FINDINGS.values() for grade in finding.grades for s in grade[1:]}
    assert not spoken & synonyms


def test_a_report_tells_what_its_class_looks_like() -> None:
    def share(corpus: ReportCorpus, name: str, phrases: tuple[str, ...]) -> float:
        own = [t for i, t in zip(corpus.ids, corpus.texts, strict=True) if i.startswith(f"{name}-")]
        return sum(any(phrase in text for phrase in phrases) for text in own) / len(own)

    crc = written("crc")
    for latent, name in {"fat": "ADI", "muscle": "MUS", "mucin": "MUC", "blank": "BACK"}.items():
        full = FINDINGS[latent].grades[-1]
        assert share(crc, name, full) > 0.9
        assert all(share(crc, other, full) < 0.2 for other in ("LYM", "TUM", "STR"))
    crc5 = written("crc5")
    for name, text in CLASSES_OF["crc5"].items():
        assert share(crc5, name, DESCRIPTIONS[text]) == 1


def test_more_than_there_are_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.synthetic.PATIENCE", 1)
    with pytest.raises(ClipItError, match=r"no more than about \d+ reports of ADI"):
        written("crc", 2000)


@pytest.mark.parametrize("origin", [{}, {"classes_of": "crc", "path": "reports.csv"}])
def test_settings_name_one_origin(origin: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give either classes_of or path"):
        SyntheticCorpus.model_validate({"source": "synthetic", **origin})


def test_a_profile_can_ask_for_them(tmp_path: Any) -> None:
    from companion import paths
    from companion.profile import read_profile

    smoke = (paths.profiles() / "smoke.yaml").read_text(encoding="utf-8")
    line = "  phantom-breast: {source: phantom, organ: breast, reports: 40}"
    asked = "  phantom-breast: {source: synthetic, classes_of: pcam, per_class: 20}"
    assert line in smoke
    (tmp_path / "p.yaml").write_text(smoke.replace(line, asked), encoding="utf-8")
    corpus = read_profile(tmp_path / "p.yaml").corpora["phantom-breast"]
    assert len(corpus.open("phantom-breast")) == 40
    (tmp_path / "p.yaml").write_text(smoke.replace(line, asked[:-1] + ", path: x.csv}"))
    with pytest.raises(ClipItError, match="give either classes_of or path") as caught:
        read_profile(tmp_path / "p.yaml")
    assert "\n" not in str(caught.value)
