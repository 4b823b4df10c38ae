"""What runs read: patches, labels, reports and encoders, opened when needed and once; pairs.

Nothing here knows a profile: with its specification these parts are all that a run sees.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from clipit_lib import pairing
from clipit_lib.compute import device
from clipit_lib.data.patches import PatchData, PatchDataset, Split
from clipit_lib.data.reports import TEMPLATES, Corpus, ReportCorpus, own_terms, prompts, term_texts
from clipit_lib.encoders import registry, weights
from clipit_lib.encoders.embeddings import image_embeddings, text_embeddings
from clipit_lib.encoders.encoder import ClipEncoder, LongText, embed_texts
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Labelled, RunSpec, TextSpec, known, trained_here

Made = TypeVar("Made")

# -- Which patches and labels a run learns from and is chosen by.


class Chosen(NamedTuple):
    """Patches [n] of one split: rows of the data set, positions in the split, labels to learn."""

    rows: np.ndarray
    at: np.ndarray
    labels: Tensor


Labels = dict[Split, Chosen]  # train, validation


def choose_labels(spec: Labelled, dataset: PatchDataset) -> Labels:
    """What is learned from and chosen by: so many patches per class, a share of labels flipped.

    Flips reach training and validation alike, as they would in life; never the test split.
    """
    rng, draws = (np.random.default_rng([spec.seed, purpose]) for purpose in (1, 7))
    rows: dict[Split, np.ndarray] = {
        "train": _some_of_each(dataset, "train", spec.labels_per_class, rng),
        "validation": _some_of_each(dataset, "validation", spec.validation_per_class, draws),
    }
    chosen = {}
    for split, own in rows.items():
        true, classes = dataset.labels[own], len(dataset.classes)
        flipped = rng.random(len(true)) < spec.label_noise
        step = 1 if spec.noise_to == "next" else rng.integers(1, classes, size=len(true))
        other = (true + step) % classes
        labels = np.where(flipped, other, true).astype(np.int64)
        at = np.searchsorted(dataset.indices(split), own)
        chosen[split] = Chosen(own, at, torch.from_numpy(labels))
    return chosen


def with_unlabelled(spec: RunSpec, dataset: PatchDataset, labels: Labels) -> Labels:
    """What stage two learns from where a run distils patches without labels, too.

    Their rows of soft labels are zero; those of the others are scaled so that a batch's loss stays,
    in expectation, the mean over labelled patches.
    """
    if spec.unlabelled is None:
        return labels
    train, rows, c = labels["train"], dataset.indices("train"), len(dataset.classes)
    rest = np.random.default_rng([spec.seed, 9]).permutation(np.setdiff1d(rows, train.rows))
    every = np.union1d(train.rows, rest[: round(spec.unlabelled * len(rest))])
    soft, scale = torch.zeros(len(every), c), len(every) / len(train.rows)
    soft[np.searchsorted(every, train.rows)] = scale * F.one_hot(train.labels, c)
    return labels | {"train": Chosen(every, np.searchsorted(rows, every), soft)}


def _some_of_each(
    dataset: PatchDataset, split: Split, count: int | None, rng: np.random.Generator
) -> np.ndarray:
    """At most `count` random rows of each class, ascending; all for None."""
    rows = dataset.indices(split)
    if count is None:
        return rows
    of_class = [rows[dataset.labels[rows] == c] for c in range(len(dataset.classes))]
    return np.sort(np.concatenate([rng.permutation(part)[:count] for part in of_class]))


# -- Data sets, corpora, encoders and pairs, by name.


class Inputs:
    """Opened data sets, report corpora and encoders, by name.

    Args:
        runs: folder in which runs are stored.
        where: what to name in a message if there is no such name.
    """

    def __init__(
        self,
        data: Mapping[str, PatchData],
        corpora: Mapping[str, Corpus],
        sources: Sources,
        runs: Path,
        where: str = "inputs",
    ) -> None:
        self.sources, self.runs = sources, runs
        self._data, self._corpora, self._where = data, corpora, where
        self._made: dict[Hashable, Any] = {}

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What has this name: made when it is first asked for, and shared by all runs of a job."""
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made

    def dataset(self, name: str) -> PatchDataset:
        known(name, self._data, "dataset", self._where)
        return self.once(("data", name), lambda: self._data[name].open(name))

    def named_corpus(self, name: str) -> ReportCorpus:
        known(name, self._corpora, "corpus", self._where)
        return self.once(("corpus", name), lambda: self._corpora[name].open(name))

    def retriever(self, name: str) -> ClipEncoder:
        """A retriever by name, frozen."""
        return self.once(("clip", name), lambda: registry.load_clip(name, self.sources))

    def backbone(self, name: str, normalisation: str = "own") -> VisionEncoder:
        """A backbone with its own weights, loaded anew: training changes it."""
        return registry.load_backbone(name, self.sources, normalisation)

    def image_embeddings(self, dataset: str, split: Split, retriever: str) -> np.ndarray:
        """A retriever's image embeddings [m, d] of one split."""
        clip = self.retriever(retriever)
        return image_embeddings(
            clip.image_tower, clip.weights_hash, clip.transform, self.dataset(dataset), split
        )

    def nearest(
        self, dataset: str, split: Split, k: int, retriever: str, corpus: str, long_text: LongText
    ) -> pairing.Pairs:
        """The k reports of a corpus most similar to each patch of a split (equation 1)."""

        def make() -> pairing.Pairs:
            texts = text_embeddings(self.retriever(retriever), self.named_corpus(corpus), long_text)
            images = self.image_embeddings(dataset, split, retriever)
            return pairing.top_k(images, texts, k, device=device())

        return self.once(("pairs", dataset, split, k, retriever, corpus, long_text), make)

    def trained(self, spec: RunSpec) -> dict[str, str]:
        """A digest of the weights of each encoder of a run that is trained here, by name; one that
        has not been trained is a ClipItError.
        """
        names = {spec.backbone, *([spec.text.retriever] if spec.text else [])}
        return {
            name: str(weights.read_card(self.sources.recipe(name))["weights_hash"])
            for name in sorted(names)
            if trained_here(name)
        }

    def check(self, spec: RunSpec) -> None:
        """Raise unless what these inputs call by a name is here, and is what a run was specified
        with.
        """
        self.trained(spec)
        here = registry.weights_hash(spec.backbone, self.sources)
        found = [
            ("data set", spec.dataset, spec.data_hash, self.dataset(spec.dataset).content_hash),
            ("encoder", spec.backbone, spec.backbone_hash, here),
        ]
        if (text := spec.text) is not None:
            here = registry.weights_hash(text.retriever, self.sources, text=True)
            found.append(("encoder", text.retriever, text.retriever_hash, here))
            if text.corpus is not None:
                here = self.named_corpus(text.corpus).content_hash
                found.append(("corpus", text.corpus, text.corpus_hash or "", here))
        for what, name, asked, here in found:
            if asked != here:
                said = f"the {what} {name} is {here} here, not {asked} as the run was specified"
                raise ClipItError(f"{said} with", self._where, "Specify the run again")


# -- Which text each patch is paired with: a report, or what Table 6 puts in its place.


SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TERMS_PER_IMAGE = 5
NEIGHBOURS = 10  # of a patch's own report


@dataclass(frozen=True)
class PairedTexts:
    """Distinct texts, and for each split the index [m] into them of every patch's text."""

    texts: tuple[str, ...]
    chosen: dict[Split, np.ndarray]


def paired_texts(spec: TextSpec, inputs: Inputs, splits: Sequence[Split]) -> PairedTexts:
    """The texts of some splits of a run's data set."""
    source, data = spec.pairing.source, inputs.dataset(spec.dataset)
    if source is None:
        texts = _reports(spec, inputs).texts
        return PairedTexts(texts, {split: paired_reports(spec, inputs, split) for split in splits})
    if source == "terms":
        return _terms(spec, inputs)
    assert spec.class_texts is not None and spec.templates is not None
    by_class = prompts(spec.class_texts, TEMPLATES[spec.templates])
    if source == "class_prompts":
        assert "test" not in splits  # the first prompt of a patch's class is its label in words
        firsts, named = tuple(of_class[0] for of_class in by_class), dict[Split, np.ndarray]()
        for split in splits:
            own, rng = data.labels[data.indices(split)], np.random.default_rng([spec.seed, 2])
            other = (own + rng.integers(1, len(firsts), size=len(own))) % len(firsts)
            named[split] = np.where(rng.random(len(own)) < (spec.pairing.right or 1), own, other)
        return PairedTexts(firsts, named)
    # The nearest prompt: the retriever's zero-shot answer, in words.
    texts = tuple(text for of_class in by_class for text in of_class)
    embeddings = _embedded(spec, inputs, texts)
    seen = {s: inputs.image_embeddings(spec.dataset, s, spec.retriever) for s in splits}
    chosen = {s: (images @ embeddings.T).argmax(axis=1) for s, images in seen.items()}
    return PairedTexts(texts, chosen)


def paired_reports(spec: TextSpec, inputs: Inputs, split: Split) -> np.ndarray:
    """Index of the report that each patch of a split is paired with, [m] int64 (equation 1)."""
    if spec.pairing.reports in ("random", "redrawn") or spec.pairing.right is not None:
        rng = np.random.default_rng([spec.seed, 2])
        count = len(inputs.dataset(spec.dataset).indices(split))
        drawn = rng.integers(len(_reports(spec, inputs)), size=count)
        if spec.pairing.right is None:
            return drawn
        # The pairs that are right with a share are right with every larger one.
        right = rng.random(count) < spec.pairing.right
        return np.where(right, oracle_reports(spec, inputs, split, rng), drawn)
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


def oracle_reports(
    spec: TextSpec, inputs: Inputs, split: Split, rng: np.random.Generator
) -> np.ndarray:
    """The right report of each patch of a split, [m] int64, by ids and true classes.

    Raises:
        ClipItError: a patch of train or validation has no report of its own in the corpus.
    """
    data, corpus = inputs.dataset(spec.dataset), _reports(spec, inputs)
    paired = data.samples[data.samples["split"] != "test"]
    chosen = pd.Index(corpus.ids).get_indexer(pd.Index(paired["id"]))
    if len(lost := paired["id"][chosen < 0]):
        what = f"no report of {len(lost)} of {len(paired)} patches ({lost.iloc[0]}, ...)"
        raise ClipItError(what, f"corpus {corpus.name}", "Give each report the id of its patch")
    here = (paired["split"] == split).to_numpy()
    own, labels = chosen[here], paired["label"].to_numpy()
    if spec.pairing.reports == "own":
        return own
    if spec.pairing.reports == "own_class":
        choices = [chosen[labels == label] for label in labels[here]]
    else:
        texts = text_embeddings(inputs.retriever(spec.retriever), corpus, spec.training.long_text)
        close = pairing.top_k(texts[own], texts, NEIGHBOURS + 1, device=device()).reports
        choices = [row[row != mine][:NEIGHBOURS] for row, mine in zip(close, own, strict=True)]
    return np.array([rng.choice(each) for each in choices])


def nearest(spec: TextSpec, inputs: Inputs, split: Split, k: int) -> pairing.Pairs:
    """The k most similar reports of each patch of a split, read as the run reads reports."""
    assert spec.corpus is not None
    return inputs.nearest(
        spec.dataset, split, k, spec.retriever, spec.corpus, spec.training.long_text
    )


def redrawn_reports(spec: TextSpec, inputs: Inputs, epochs: int) -> np.ndarray:
    """A random report for each training patch, drawn anew in each epoch, [epochs, m] int64."""
    rng = np.random.default_rng([spec.seed, 6])
    count = len(inputs.dataset(spec.dataset).indices("train"))
    return rng.integers(len(_reports(spec, inputs)), size=(epochs, count))


def _reports(spec: TextSpec, inputs: Inputs) -> ReportCorpus:
    assert spec.corpus is not None
    return inputs.named_corpus(spec.corpus)


def shuffled(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`values` [n] in random order within each group [n]: each value keeps its frequency there."""
    moved = values.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        moved[rows] = values[rng.permutation(rows)]
    return moved


def _terms(spec: TextSpec, inputs: Inputs) -> PairedTexts:
    """The terms nearest to each patch, as one text."""
    terms = own_terms()
    images = [inputs.image_embeddings(spec.dataset, split, spec.retriever) for split in SPLITS]
    embeddings = _embedded(spec, inputs, terms)
    texts, index = term_texts(np.concatenate(images), embeddings, terms, TERMS_PER_IMAGE)
    parts = np.split(index, np.cumsum([len(part) for part in images])[:-1])
    return PairedTexts(tuple(texts), dict(zip(SPLITS, parts, strict=True)))


def _embedded(spec: TextSpec, inputs: Inputs, texts: Sequence[str]) -> np.ndarray:
    clip = inputs.retriever(spec.retriever)
    return embed_texts(clip.text_tower, clip.tokenizer, texts, "truncate").numpy()
