"""Term lists: well formed, chosen by similarity, and one line for whatever is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipit_lib.data.reports import RELEASED_GROUPS, Terms, own_terms, read_terms, term_texts
from clipit_lib.errors import ClipItError


def test_own_terms_cover_every_group() -> None:
    terms = own_terms()
    assert 120 <= len(terms) <= 200
    assert set(RELEASED_GROUPS) - {"all"} < set(terms.groups)
    sizes = {group: len(terms.of(group)) for group in set(terms.groups)}
    assert sum(sizes.values()) == len(terms.of("all")) == len(terms)
    assert min(sizes.values()) >= 20
    assert not any("," in name for name in terms.names)  # a comma parts terms in a text
    assert set(terms.of("Tissue").names).isdisjoint(terms.of("Neoplastic Process").names)


def test_an_unknown_group_lists_the_known() -> None:
    with pytest.raises(ClipItError, match=r"no group 'Organ'.*all, .*Neoplastic Process"):
        own_terms().of("Organ")


TERMS = Terms(("fat", "mucin", "gland", "nerve"), ("Tissue", "Finding", "Tissue", "Tissue"))


def test_images_get_their_nearest_terms_in_order() -> None:
    embeddings = np.eye(4, dtype=np.float32) * np.float32([[1], [9], [0.1], [1]])
    images = np.array(
        [[0.1, 0.5, 0.9, 0], [1, 0, 0, 0.5], [0.2, 0.5, 0.8, 0.1], [0, 0.9, 0.8, 0]], np.float32
    )
    texts, index = term_texts(images, embeddings, TERMS, 2)
    assert texts == ["gland, mucin", "fat, nerve", "mucin, gland"]
    assert index.tolist() == [0, 1, 0, 2]


def test_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    terms = own_terms()
    images = rng.standard_normal((50, 8)).astype(np.float32)
    embeddings = rng.standard_normal((len(terms), 8)).astype(np.float32)
    texts, index = term_texts(images, embeddings, terms, 3)
    assert len(set(texts)) == len(texts) and index.shape == (50,)
    for image, row in zip(images, index, strict=True):
        cosines = [float(image @ e / np.linalg.norm(e)) for e in embeddings]
        best = sorted(range(len(terms)), key=lambda k: -cosines[k])[:3]
        assert texts[row] == ", ".join(terms.names[k] for k in best)


def test_embeddings_must_be_those_of_the_terms() -> None:
    images = np.ones((1, 2), np.float32)
    with pytest.raises(ClipItError, match="3 embeddings of 4 terms"):
        term_texts(images, np.ones((3, 2), np.float32), TERMS, 1)
    with pytest.raises(ClipItError, match="rank 5 of 4"):
        term_texts(images, np.ones((4, 2), np.float32), TERMS, 5)


def test_a_list_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "terms.csv"
    path.write_bytes('\ufeffcode,group,term\n1, Cell ,NA\n2,Tissue,"naïve T cell, CD4"\n'.encode())
    assert read_terms(path) == Terms(("NA", "naïve T cell, CD4"), ("Cell", "Tissue"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,group\nfat,Tissue\n", r"no column term \(found: name, group\)"),
        (b"fat\n", "no column term and no column group"),
        (b"", "not a csv"),
        (b"term,group\n\xff,Tissue\n", "not a csv"),
        (b"term,group\n", "no terms"),
        (b"term,group\nfat,Tissue\nmucin,\n", "row 2 has no group"),
        (b"term,group\n ,Tissue\n", "row 1 has no term"),
        (b"term,group\nFat,Tissue\nmucin,Cell\nfat,Cell\n", "'fat' is listed 2 times"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "terms.csv"
    path.write_bytes(content)
    with pytest.raises(ClipItError, match=said) as caught:
        read_terms(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipItError, match=r"none\.csv: no such file"):
        read_terms(tmp_path / "none.csv")
