"""The text of a slide: every patch paired with its most similar report (equation 1)."""

from __future__ import annotations

import numpy as np
import torch

from clipit_lib import pairing
from clipit_lib.compute import device
from clipit_lib.encoders.embeddings import text_embeddings
from clipit_lib.encoders.tokens import LongText
from clipit_lib.inputs import Inputs
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.reports.registry import open_corpus
from clipit_lib.settings import Profile, known
from clipit_lib.survival.cohort import Cohort
from clipit_lib.survival.opening import settings_of
from clipit_lib.survival.training import TextTargets, padded


def corpus_of(profile: Profile) -> ReportCorpus:
    """The reports that patches are paired with.

    Raises:
        ClipItError: no survival section, or the profile has no such corpus.
    """
    name = settings_of(profile).corpus
    known(name, profile.corpora, "corpus", f"profile {profile.name}, survival")
    return open_corpus(name, profile.corpora[name])


def read_by(profile: Profile) -> tuple[str, str, LongText]:
    """Retriever, corpus and treatment of long texts: what a profile pairs slides by."""
    return profile.retriever, settings_of(profile).corpus, profile.text_stage.long_text


def pairs(
    inputs: Inputs, cohort: Cohort, retriever: str, corpus: str, long_text: LongText
) -> tuple[list[np.ndarray], np.ndarray]:
    """The report of every patch, an array [p] a slide, and the features [m, e] of all reports.

    Both come from the frozen retriever: stage one of the method would need a label for every
    report, and follow-up gives none.

    Raises:
        ClipItError: the bags hold no retriever embeddings, or of another width than the reports.
    """
    width = cohort.text_width
    embeddings = [bag.retriever for bag in cohort.bags if bag.retriever is not None]
    assert {each.shape[1] for each in embeddings} == {width} and len(embeddings) == len(cohort)
    texts = text_embeddings(inputs.retriever(retriever), inputs.named_corpus(corpus), long_text)
    best = pairing.top_k(np.concatenate(embeddings), texts, 1, device=device()).reports[:, 0]
    return np.split(best, np.cumsum([len(each) for each in embeddings])[:-1]), texts


def text_targets(
    inputs: Inputs, cohort: Cohort, retriever: str, corpus: str, long_text: LongText
) -> TextTargets:
    """What CLIP-IT distils into h_d(v), patch by patch."""
    reports, texts = pairs(inputs, cohort, retriever, corpus, long_text)
    return TextTargets(torch.from_numpy(texts).to(device()), padded(reports).to(device()))
