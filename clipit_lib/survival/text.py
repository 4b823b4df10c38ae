"""The text of a slide: every patch paired with its most similar report (equation 1)."""

from __future__ import annotations

import numpy as np
import torch

from clipit_lib import pairing
from clipit_lib.compute import device
from clipit_lib.encoders.embeddings import text_embeddings
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.reports.registry import open_corpus
from clipit_lib.settings import Profile, known
from clipit_lib.survival.cohort import Cohort
from clipit_lib.survival.opening import settings_of
from clipit_lib.survival.training import TextTargets, padded
from clipit_lib.workbench import Workbench


def corpus_of(profile: Profile) -> ReportCorpus:
    """The reports that patches are paired with.

    Raises:
        ClipItError: no survival section, or the profile has no such corpus.
    """
    name = settings_of(profile).corpus
    known(name, profile.corpora, "corpus", f"profile {profile.name}, survival")
    return open_corpus(name, profile.corpora[name])


def pairs(bench: Workbench, cohort: Cohort) -> tuple[list[np.ndarray], np.ndarray]:
    """The report of every patch, an array [p] a slide, and the features [m, e] of all reports.

    Both come from the frozen retriever: stage one of the method would need a label for every
    report, and follow-up gives none.

    Raises:
        ClipItError: the bags hold no retriever embeddings, or of another width than the reports.
    """
    width = cohort.text_width
    embeddings = [bag.retriever for bag in cohort.bags if bag.retriever is not None]
    assert {each.shape[1] for each in embeddings} == {width} and len(embeddings) == len(cohort)
    long_text = bench.profile.text_stage.long_text
    texts = text_embeddings(bench.clip, corpus_of(bench.profile), long_text)
    best = pairing.top_k(np.concatenate(embeddings), texts, 1, device=device()).reports[:, 0]
    return np.split(best, np.cumsum([len(each) for each in embeddings])[:-1]), texts


def text_targets(bench: Workbench, cohort: Cohort) -> TextTargets:
    """What CLIP-IT distils into h_d(v), patch by patch."""
    reports, texts = pairs(bench, cohort)
    return TextTargets(torch.from_numpy(texts).to(device()), padded(reports).to(device()))
