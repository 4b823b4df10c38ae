"""Targets without any text: what the retriever sees in the image itself (a control)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clipit_lib.labels import Labels
from clipit_lib.paired_texts import paired_reports
from clipit_lib.pairing import effective_number
from clipit_lib.settings import RunSpec
from clipit_lib.targets import FixedTargets
from clipit_lib.workbench import Workbench


def image_targets(spec: RunSpec, bench: Workbench, labels: Labels) -> FixedTargets:
    """The retriever's own embedding of each patch, unit length; no text is read.

    `image_centroids` replaces it by one of k centroids, where k is the effective number of reports
    of the pairing: as few distinct targets as hub reports give.
    """
    dataset = bench.dataset(spec.dataset)
    embeddings = bench.retriever_embeddings(spec.dataset, "train", spec.retriever)
    position = np.searchsorted(dataset.indices("train"), labels.train)
    images = F.normalize(torch.from_numpy(embeddings[position]), dim=-1)
    if spec.target == "image":
        return FixedTargets(images, torch.arange(len(images)))
    from sklearn.cluster import KMeans  # slow to import, and seldom needed

    count = max(1, round(effective_number(paired_reports(spec, bench, "train"))))
    clusters = KMeans(min(count, len(images)), n_init=4, random_state=spec.seed)
    cluster = clusters.fit_predict(images.numpy())
    centroids = torch.from_numpy(clusters.cluster_centers_).float()
    return FixedTargets(F.normalize(centroids, dim=-1), torch.from_numpy(cluster).long())
