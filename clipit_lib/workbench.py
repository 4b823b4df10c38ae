"""What a profile names, opened when it is needed and once: data, reports, retriever, pairings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipit_lib import pairing
from clipit_lib.compute import device
from clipit_lib.data.contract import PatchDataset, Split
from clipit_lib.data.registry import open_dataset
from clipit_lib.encoders import backbones, clip
from clipit_lib.encoders.embeddings import image_embeddings, text_embeddings
from clipit_lib.encoders.sources import Sources
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.reports.registry import open_corpus
from clipit_lib.settings import Profile, known


class Workbench:
    """Opened parts of one profile.

    Args:
        download: whether weights of published models may be fetched when they are needed.
    """

    def __init__(self, profile: Profile, download: bool = True) -> None:
        self.profile = profile
        self.sources = Sources.of(profile, download)
        self._datasets: dict[str, PatchDataset] = {}
        self._corpora: dict[str, ReportCorpus] = {}
        self._clips: dict[str, ClipEncoder] = {}

    def dataset(self, name: str) -> PatchDataset:
        if name not in self._datasets:
            self._datasets[name] = open_dataset(name, self.profile.data_settings(name))
        return self._datasets[name]

    def corpus(self, dataset: str) -> ReportCorpus:
        """The reports that a data set is paired with."""
        return self.named_corpus(self.profile.data_settings(dataset).corpus)

    def named_corpus(self, name: str) -> ReportCorpus:
        """A corpus of the profile by its own name."""
        known(name, self.profile.corpora, "corpus", f"profile {self.profile.name}")
        if name not in self._corpora:
            self._corpora[name] = open_corpus(name, self.profile.corpora[name])
        return self._corpora[name]

    @property
    def clip(self) -> ClipEncoder:
        """The profile's retriever."""
        return self.retriever(self.profile.retriever)

    def retriever(self, name: str) -> ClipEncoder:
        """A retriever by name, frozen."""
        if name not in self._clips:
            self._clips[name] = clip.load(name, self.sources)
        return self._clips[name]

    def backbone(self, name: str, normalisation: str = "own") -> VisionEncoder:
        """A backbone with its own weights, loaded anew: training changes it."""
        return backbones.load(name, self.sources, normalisation)

    def retriever_embeddings(
        self, dataset: str, split: Split, retriever: str | None = None
    ) -> np.ndarray:
        """A retriever's image embeddings [m, d] of one split."""
        clip = self.retriever(retriever or self.profile.retriever)
        return image_embeddings(
            clip.image_tower, clip.weights_hash, clip.transform, self.dataset(dataset), split
        )

    def pairs(
        self,
        dataset: str,
        split: Split,
        k: int,
        retriever: str | None = None,
        corpus: str | None = None,
    ) -> pairing.Pairs:
        """The k best reports of each patch of a split; the profile's retriever and reports."""
        long_text = self.profile.text_stage.long_text
        reports = self.corpus(dataset) if corpus is None else self.named_corpus(corpus)
        clip = self.retriever(retriever or self.profile.retriever)
        texts = text_embeddings(clip, reports, long_text)
        images = self.retriever_embeddings(dataset, split, clip.name)
        return pairing.top_k(images, texts, k, device=device())

    def pairing_table(self, dataset: str, split: Split, k: int) -> pd.DataFrame:
        """`pairs` as a table of image and report ids."""
        data = self.dataset(dataset)
        ids = data.samples["id"].iloc[data.indices(split)]
        pairs = self.pairs(dataset, split, k)
        return pairing.pairing_table(ids, self.corpus(dataset).ids, pairs, split)

    def pairing_summary(self, dataset: str, k: int) -> pd.DataFrame:
        """One row a rank: similarity and how many different reports the train split uses."""
        pairs = self.pairs(dataset, "train", k)
        rows = [
            {
                "dataset": dataset,
                "rank": rank + 1,
                "images": len(pairs.reports),
                "reports": len(self.corpus(dataset)),
                "similarity_mean": float(pairs.similarities[:, rank].mean()),
                "similarity_sd": float(pairs.similarities[:, rank].std()),
                "distinct_reports": len(np.unique(pairs.reports[:, rank])),
                "effective_number": pairing.effective_number(pairs.reports[:, rank]),
                "top10_share": pairing.top_share(pairs.reports[:, rank]),
            }
            for rank in range(k)
        ]
        return pd.DataFrame(rows)
