"""Which text each patch is paired with: a report, or what Table 6 puts in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipit_lib.data.contract import Split
from clipit_lib.encoders.tokens import embed_texts
from clipit_lib.reports.prompts import TEMPLATES, prompts
from clipit_lib.reports.terms import own_terms, term_texts
from clipit_lib.settings import RunSpec
from clipit_lib.workbench import Workbench

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TERMS_PER_IMAGE = 5


@dataclass(frozen=True)
class PairedTexts:
    """Distinct texts, and for each split the index [m] into them of every patch's text."""

    texts: tuple[str, ...]
    chosen: dict[Split, np.ndarray]


def paired_texts(spec: RunSpec, bench: Workbench, splits: Sequence[Split]) -> PairedTexts:
    """The texts of some splits of a run's data set."""
    assert spec.pairing is not None and spec.corpus is not None
    if spec.pairing.source == "prompts":
        return _prompts(spec, bench, splits)
    if spec.pairing.source == "terms":
        return _terms(spec, bench)
    if spec.pairing.source == "class_prompts":
        return _class_prompts(spec, bench, splits)
    texts = bench.named_corpus(spec.corpus).texts
    return PairedTexts(texts, {split: paired_reports(spec, bench, split) for split in splits})


def paired_reports(spec: RunSpec, bench: Workbench, split: Split) -> np.ndarray:
    """Index of the report that each patch of a split is paired with, [m] int64 (equation 1)."""
    assert spec.pairing is not None and spec.corpus is not None
    if spec.pairing.reports in ("random", "redrawn"):
        rng = np.random.default_rng([spec.seed, 2])
        count = len(bench.dataset(spec.dataset).indices(split))
        return rng.integers(len(bench.named_corpus(spec.corpus)), size=count)
    rank = spec.pairing.rank
    best = bench.pairs(spec.dataset, split, rank, spec.retriever, spec.corpus).reports[:, -1]
    if spec.pairing.reports == "constant":
        train = bench.pairs(spec.dataset, "train", rank, spec.retriever, spec.corpus)
        return np.full_like(best, np.bincount(train.reports[:, -1]).argmax())
    if spec.pairing.reports.startswith("shuffled"):
        data = bench.dataset(spec.dataset)
        labels = data.labels[data.indices(split)]
        whole = np.zeros_like(labels) if spec.pairing.reports == "shuffled" else labels
        return shuffled(best, whole, np.random.default_rng([spec.seed, 5]))
    return best


def redrawn_reports(spec: RunSpec, bench: Workbench, epochs: int) -> np.ndarray:
    """A random report for each training patch, drawn anew in each epoch, [epochs, m] int64."""
    assert spec.corpus is not None
    rng = np.random.default_rng([spec.seed, 6])
    count = len(bench.dataset(spec.dataset).indices("train"))
    return rng.integers(len(bench.named_corpus(spec.corpus)), size=(epochs, count))


def shuffled(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`values` [n] in random order within each group [n]: each value keeps its frequency there."""
    moved = values.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        moved[rows] = values[rng.permutation(rows)]
    return moved


def _prompts(spec: RunSpec, bench: Workbench, splits: Sequence[Split]) -> PairedTexts:
    """The nearest class prompt: the retriever's zero-shot answer, in words."""
    by_class = prompts(bench.dataset(spec.dataset).class_texts, TEMPLATES[bench.profile.templates])
    texts = [text for of_class in by_class for text in of_class]
    embeddings = _embedded(spec, bench, texts)
    chosen = {s: (_images(spec, bench, s) @ embeddings.T).argmax(axis=1) for s in splits}
    return PairedTexts(tuple(texts), chosen)


def _class_prompts(spec: RunSpec, bench: Workbench, splits: Sequence[Split]) -> PairedTexts:
    """The first prompt of each patch's own class: the label in words. Never for test patches."""
    assert "test" not in splits
    data = bench.dataset(spec.dataset)
    by_class = prompts(data.class_texts, TEMPLATES[bench.profile.templates])
    texts = tuple(of_class[0] for of_class in by_class)
    return PairedTexts(texts, {split: data.labels[data.indices(split)] for split in splits})


def _terms(spec: RunSpec, bench: Workbench) -> PairedTexts:
    """The terms nearest to each patch, as one text."""
    terms = own_terms()
    images = [_images(spec, bench, split) for split in SPLITS]
    embeddings = _embedded(spec, bench, list(terms.names))
    texts, index = term_texts(np.concatenate(images), embeddings, terms, TERMS_PER_IMAGE)
    parts = np.split(index, np.cumsum([len(part) for part in images])[:-1])
    return PairedTexts(tuple(texts), dict(zip(SPLITS, parts, strict=True)))


def _images(spec: RunSpec, bench: Workbench, split: Split) -> np.ndarray:
    return bench.retriever_embeddings(spec.dataset, split, spec.retriever)


def _embedded(spec: RunSpec, bench: Workbench, texts: list[str]) -> np.ndarray:
    assert spec.retriever is not None
    clip = bench.retriever(spec.retriever)
    return embed_texts(clip.text_tower, clip.tokenizer, texts, "truncate").numpy()
