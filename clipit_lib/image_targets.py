"""Targets without any text: what the retriever sees in the image itself (a control)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clipit_lib.inputs import Inputs
from clipit_lib.labels import Labels
from clipit_lib.paired_texts import paired_reports
from clipit_lib.pairing import effective_number
from clipit_lib.settings import TextSpec
from clipit_lib.targets import FixedTargets


def image_targets(spec: TextSpec, inputs: Inputs, labels: Labels, centroids: bool) -> FixedTargets:
    """The retriever's own embedding of each patch, unit length; no text is read.

    Args:
        centroids: replace it by one of k centroids, where k is the effective number of reports of
            the pairing: as few distinct targets as hub reports give.
    """
    dataset = inputs.dataset(spec.dataset)
    embeddings = inputs.image_embeddings(spec.dataset, "train", spec.retriever)
    position = np.searchsorted(dataset.indices("train"), labels.train)
    images = F.normalize(torch.from_numpy(embeddings[position]), dim=-1)
    if not centroids:
        return FixedTargets(images, torch.arange(len(images)))
    from sklearn.cluster import KMeans  # slow to import, and seldom needed

    count = max(1, round(effective_number(paired_reports(spec, inputs, "train"))))
    clusters = KMeans(min(count, len(images)), n_init=4, random_state=spec.seed)
    cluster = clusters.fit_predict(images.numpy())
    means = torch.from_numpy(clusters.cluster_centers_).float()
    return FixedTargets(F.normalize(means, dim=-1), torch.from_numpy(cluster).long())
