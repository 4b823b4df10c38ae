"""From a specification to what each patch is paired with: reports, controls, image targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from clipit_lib.data.patches import Split
from clipit_lib.data.reports import TEMPLATES, own_terms, prompts, term_texts
from clipit_lib.encoders.encoder import embed_texts
from clipit_lib.inputs import Inputs, Labels
from clipit_lib.pairing import Pairs, effective_number
from clipit_lib.settings import TextSpec
from clipit_lib.training import Targets

# -- Which text each patch is paired with: a report, or what Table 6 puts in its place.


SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TERMS_PER_IMAGE = 5


@dataclass(frozen=True)
class PairedTexts:
    """Distinct texts, and for each split the index [m] into them of every patch's text."""

    texts: tuple[str, ...]
    chosen: dict[Split, np.ndarray]


def paired_texts(spec: TextSpec, inputs: Inputs, splits: Sequence[Split]) -> PairedTexts:
    """The texts of some splits of a run's data set."""
    if spec.pairing.source == "prompts":
        return _prompts(spec, inputs, splits)
    if spec.pairing.source == "terms":
        return _terms(spec, inputs)
    if spec.pairing.source == "class_prompts":
        return _class_prompts(spec, inputs, splits)
    assert spec.corpus is not None
    texts = inputs.named_corpus(spec.corpus).texts
    return PairedTexts(texts, {split: paired_reports(spec, inputs, split) for split in splits})


def paired_reports(spec: TextSpec, inputs: Inputs, split: Split) -> np.ndarray:
    """Index of the report that each patch of a split is paired with, [m] int64 (equation 1)."""
    if spec.pairing.reports in ("random", "redrawn"):
        rng = np.random.default_rng([spec.seed, 2])
        count = len(inputs.dataset(spec.dataset).indices(split))
        return rng.integers(_reports(spec, inputs), size=count)
    rank = spec.pairing.rank
    best = nearest(spec, inputs, split, rank).reports[:, -1]
    if spec.pairing.reports == "constant":
        train = nearest(spec, inputs, "train", rank)
        return np.full_like(best, np.bincount(train.reports[:, -1]).argmax())
    if spec.pairing.reports.startswith("shuffled"):
        data = inputs.dataset(spec.dataset)
        labels = data.labels[data.indices(split)]
        whole = np.zeros_like(labels) if spec.pairing.reports == "shuffled" else labels
        return shuffled(best, whole, np.random.default_rng([spec.seed, 5]))
    return best


def nearest(spec: TextSpec, inputs: Inputs, split: Split, k: int) -> Pairs:
    """The k most similar reports of each patch of a split, read as the run reads reports."""
    assert spec.corpus is not None
    return inputs.nearest(
        spec.dataset, split, k, spec.retriever, spec.corpus, spec.training.long_text
    )


def redrawn_reports(spec: TextSpec, inputs: Inputs, epochs: int) -> np.ndarray:
    """A random report for each training patch, drawn anew in each epoch, [epochs, m] int64."""
    rng = np.random.default_rng([spec.seed, 6])
    count = len(inputs.dataset(spec.dataset).indices("train"))
    return rng.integers(_reports(spec, inputs), size=(epochs, count))


def _reports(spec: TextSpec, inputs: Inputs) -> int:
    assert spec.corpus is not None
    return len(inputs.named_corpus(spec.corpus))


def shuffled(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`values` [n] in random order within each group [n]: each value keeps its frequency there."""
    moved = values.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        moved[rows] = values[rng.permutation(rows)]
    return moved


def _filled(spec: TextSpec) -> list[list[str]]:
    """The prompts of each class."""
    assert spec.class_texts is not None and spec.templates is not None
    return prompts(spec.class_texts, TEMPLATES[spec.templates])


def _prompts(spec: TextSpec, inputs: Inputs, splits: Sequence[Split]) -> PairedTexts:
    """The nearest class prompt: the retriever's zero-shot answer, in words."""
    texts = [text for of_class in _filled(spec) for text in of_class]
    embeddings = _embedded(spec, inputs, texts)
    chosen = {s: (_images(spec, inputs, s) @ embeddings.T).argmax(axis=1) for s in splits}
    return PairedTexts(tuple(texts), chosen)


def _class_prompts(spec: TextSpec, inputs: Inputs, splits: Sequence[Split]) -> PairedTexts:
    """The first prompt of each patch's own class: the label in words. Never for test patches."""
    assert "test" not in splits
    data = inputs.dataset(spec.dataset)
    texts = tuple(of_class[0] for of_class in _filled(spec))
    return PairedTexts(texts, {split: data.labels[data.indices(split)] for split in splits})


def _terms(spec: TextSpec, inputs: Inputs) -> PairedTexts:
    """The terms nearest to each patch, as one text."""
    terms = own_terms()
    images = [_images(spec, inputs, split) for split in SPLITS]
    embeddings = _embedded(spec, inputs, list(terms))
    texts, index = term_texts(np.concatenate(images), embeddings, terms, TERMS_PER_IMAGE)
    parts = np.split(index, np.cumsum([len(part) for part in images])[:-1])
    return PairedTexts(tuple(texts), dict(zip(SPLITS, parts, strict=True)))


def _images(spec: TextSpec, inputs: Inputs, split: Split) -> np.ndarray:
    return inputs.image_embeddings(spec.dataset, split, spec.retriever)


def _embedded(spec: TextSpec, inputs: Inputs, texts: list[str]) -> np.ndarray:
    clip = inputs.retriever(spec.retriever)
    return embed_texts(clip.text_tower, clip.tokenizer, texts, "truncate").numpy()


# -- Targets without any text: what the retriever sees in the image itself (a control).


def image_targets(spec: TextSpec, inputs: Inputs, labels: Labels, centroids: bool) -> Targets:
    """The retriever's own embedding of each patch, unit length; no text is read.

    Args:
        centroids: replace it by one of k centroids, where k is the effective number of reports of
            the pairing: as few distinct targets as hub reports give.
    """
    embeddings = inputs.image_embeddings(spec.dataset, "train", spec.retriever)
    images = F.normalize(torch.from_numpy(embeddings[labels.train_at]), dim=-1)
    if not centroids:
        return Targets(images, torch.arange(len(images)))
    from sklearn.cluster import KMeans  # slow to import, and seldom needed

    count = max(1, round(effective_number(paired_reports(spec, inputs, "train"))))
    clusters = KMeans(min(count, len(images)), n_init=4, random_state=spec.seed)
    cluster = clusters.fit_predict(images.numpy())
    means = torch.from_numpy(clusters.cluster_centers_).float()
    return Targets(F.normalize(means, dim=-1), torch.from_numpy(cluster).long())
