"""What runs read, opened when it is needed and once: patches, labels, reports, encoders, pairs.

Nothing here knows a profile: with its specification these parts are all that a run sees.

"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipit_lib import pairing
from clipit_lib.compute import device
from clipit_lib.data.patches import PatchData, PatchDataset, Split
from clipit_lib.data.reports import Corpus, ReportCorpus
from clipit_lib.encoders import registry, weights
from clipit_lib.encoders.embeddings import image_embeddings, text_embeddings
from clipit_lib.encoders.encoder import ClipEncoder, LongText
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Labelled, RunSpec, known, trained_here

# -- Which patches and labels a run learns from and is chosen by.


@dataclass(frozen=True)
class Labels:
    """What is learned from and chosen by, after subsampling and noise.

    Attributes:
        train, validation: [n] rows of the data set; `_at` are their positions in their split,
            `_labels` what they are called.
    """

    train: np.ndarray
    train_at: np.ndarray
    train_labels: Tensor
    validation: np.ndarray
    validation_at: np.ndarray
    validation_labels: Tensor


def choose_labels(spec: Labelled, dataset: PatchDataset) -> Labels:
    """Take `labels_per_class` training patches of each class and flip a share of all labels.

    Flips reach training and validation alike, as they would in life; never the test split.
    """
    rng = np.random.default_rng([spec.seed, 1])
    train, validation = dataset.indices("train"), dataset.indices("validation")
    if spec.labels_per_class is not None:
        train = _some_of_each(dataset, train, spec.labels_per_class, rng)
    if spec.validation_per_class is not None:
        draws = np.random.default_rng([spec.seed, 7])
        validation = _some_of_each(dataset, validation, spec.validation_per_class, draws)
    noisy = [
        torch.from_numpy(_flip(dataset.labels[rows], len(dataset.classes), spec.label_noise, rng))
        for rows in (train, validation)
    ]
    at = np.searchsorted(dataset.indices("train"), train)
    held_at = np.searchsorted(dataset.indices("validation"), validation)
    return Labels(train, at, noisy[0], validation, held_at, noisy[1])


def _some_of_each(
    dataset: PatchDataset, rows: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """At most `count` random rows of each class, ascending."""
    of_class = [rows[dataset.labels[rows] == c] for c in range(len(dataset.classes))]
    return np.sort(np.concatenate([rng.permutation(part)[:count] for part in of_class]))


def _flip(labels: np.ndarray, classes: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a share of the labels by another class, drawn evenly from the other classes."""
    flipped = rng.random(len(labels)) < share
    other = (labels + rng.integers(1, classes, size=len(labels))) % classes
    return np.where(flipped, other, labels).astype(np.int64)


# -- What runs read, opened when it is needed and once: patches, reports, encoders, pairs.
#
# Nothing here knows a profile: with its specification these parts are all that a run sees.


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
        self._datasets: dict[str, PatchDataset] = {}
        self._reports: dict[str, ReportCorpus] = {}
        self._clips: dict[str, ClipEncoder] = {}

    def dataset(self, name: str) -> PatchDataset:
        known(name, self._data, "dataset", self._where)
        if name not in self._datasets:
            self._datasets[name] = self._data[name].open(name)
        return self._datasets[name]

    def named_corpus(self, name: str) -> ReportCorpus:
        known(name, self._corpora, "corpus", self._where)
        if name not in self._reports:
            self._reports[name] = self._corpora[name].open(name)
        return self._reports[name]

    def retriever(self, name: str) -> ClipEncoder:
        """A retriever by name, frozen."""
        if name not in self._clips:
            self._clips[name] = registry.load_clip(name, self.sources)
        return self._clips[name]

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
        self,
        dataset: str,
        split: Split,
        k: int,
        retriever: str,
        corpus: str,
        long_text: LongText,
    ) -> pairing.Pairs:
        """The k reports of a corpus most similar to each patch of a split (equation 1)."""
        clip = self.retriever(retriever)
        texts = text_embeddings(clip, self.named_corpus(corpus), long_text)
        images = self.image_embeddings(dataset, split, retriever)
        return pairing.top_k(images, texts, k, device=device())

    def trained(self, spec: RunSpec) -> dict[str, str]:
        """A digest of the weights of each encoder of a run that is trained here, by name.

        Raises:
            ClipItError: one has not been trained.
        """
        names = {spec.backbone, *([spec.text.retriever] if spec.text else [])}
        return {
            name: str(weights.read_card(self.sources.recipe(name))["weights_hash"])
            for name in sorted(names)
            if trained_here(name)
        }

    def check(self, spec: RunSpec) -> None:
        """Look whether what these inputs call by a name is what a run was specified with.

        Raises:
            ClipItError: it is something else, or it is not here.
        """
        self.trained(spec)
        found = {
            f"data set {spec.dataset}": (spec.data_hash, self.dataset(spec.dataset).content_hash),
            f"encoder {spec.backbone}": (
                spec.backbone_hash, registry.weights_hash(spec.backbone, self.sources),
            ),
        }  # fmt: skip
        if spec.text is not None:
            retriever, corpus = spec.text.retriever, spec.text.corpus
            found[f"encoder {retriever}"] = (
                spec.text.retriever_hash, registry.weights_hash(retriever, self.sources, text=True),
            )  # fmt: skip
            if corpus is not None:
                here = self.named_corpus(corpus).content_hash
                found[f"corpus {corpus}"] = (spec.text.corpus_hash or "", here)
        for what, (asked, here) in found.items():
            if asked != here:
                raise ClipItError(
                    f"the {what} is {here} here, not {asked} as the run was specified with",
                    self._where, "Specify the run again",
                )  # fmt: skip
