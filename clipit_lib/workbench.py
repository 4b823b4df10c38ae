"""What a profile names, opened when it is needed and once, and its own pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipit_lib import pairing, paths
from clipit_lib.data.contract import Split
from clipit_lib.encoders.published import PUBLISHED
from clipit_lib.encoders.sources import Sources
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.inputs import Inputs
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.settings import Profile, known


def sources_of_profile(profile: Profile, download: bool = True) -> Sources:
    """Where the weights of a profile's encoders come from.

    Raises:
        ClipItError: `weights` of the profile names no published model.
    """
    for name in profile.weights:
        known(name, PUBLISHED, "published model", f"profile {profile.name}, `weights`")
    return Sources(profile.pretraining, profile.stand_in, profile.weights, download)


class Workbench(Inputs):
    """The inputs of one profile, and what it takes if nothing else is named.

    Args:
        download: whether weights of published models may be fetched when they are needed.
    """

    def __init__(self, profile: Profile, download: bool = True) -> None:
        sources = sources_of_profile(profile, download)
        super().__init__(
            profile.data, profile.corpora, sources, paths.runs(profile.name),
            f"profile {profile.name}",
        )  # fmt: skip
        self.profile = profile

    def corpus(self, dataset: str) -> ReportCorpus:
        """The reports that a data set is paired with."""
        return self.named_corpus(self.profile.data_settings(dataset).corpus)

    @property
    def clip(self) -> ClipEncoder:
        """The profile's retriever."""
        return self.retriever(self.profile.retriever)

    def retriever_embeddings(self, dataset: str, split: Split) -> np.ndarray:
        """The image embeddings [m, d] of one split by the profile's retriever."""
        return self.image_embeddings(dataset, split, self.profile.retriever)

    def pairs(self, dataset: str, split: Split, k: int) -> pairing.Pairs:
        """The k best reports of each patch, by the profile's retriever among its reports."""
        return self.nearest(
            dataset, split, k, self.profile.retriever, self.profile.data_settings(dataset).corpus,
            self.profile.text_stage.long_text,
        )  # fmt: skip

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
