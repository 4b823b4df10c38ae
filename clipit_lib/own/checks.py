"""All checks of a profile's data sets, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from clipit_lib import paths, studies
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.folder import read_manifest
from clipit_lib.encoders import backbones, clip, vision
from clipit_lib.errors import ClipItError
from clipit_lib.own import data_checks, report_checks
from clipit_lib.own.findings import Finding, Severity, sorted_findings
from clipit_lib.reports.coverage import token_coverage
from clipit_lib.settings import FolderData, Profile
from clipit_lib.specs import fields_of
from clipit_lib.workbench import Workbench, sources_of_profile
from clipit_lib.zero_shot import zero_shot_hits


def check(bench: Workbench) -> list[Finding]:
    """Everything known to hurt in what the study `own` would run, the worst first.

    Nothing is trained, and no test label is compared with an answer. Pairs are checked if the
    retriever is there; one that is trained on the spot must have been.
    """
    found = list(_names(bench.profile))
    for dataset in datasets(bench.profile):
        found += [one.about(dataset) for one in _dataset(bench, dataset)]
    return sorted_findings(found)


def datasets(profile: Profile) -> list[str]:
    """The data sets of the study `own`."""
    return list(dict.fromkeys(dataset for dataset, *_ in studies.cells(profile, "own")))


def _names(profile: Profile) -> Iterator[Finding]:
    """Backbones, retriever and settings that mean nothing, encoders that cannot be trained."""
    for _, backbone, settings, _ in studies.cells(profile, "own"):
        yield from _refused("backbone", partial(backbones.check, backbone))
        for setting in settings:
            yield from _refused("setting", partial(fields_of, setting, profile))
    yield from _refused("retriever", partial(clip.entry, profile.retriever))
    for name in profile.trained_encoders:
        yield from _refused(
            "encoder", partial(getattr, sources_of_profile(profile).recipe(name), "key")
        )


def _refused(name: str, attempt: Callable[[], object]) -> list[Finding]:
    """A finding if an attempt fails."""
    try:
        attempt()
    except ClipItError as error:
        what = f"{error.where}: {error.what}"
        return [Finding(name, Severity.STOP, what, "nothing can be run", error.fix)]
    return []


def _dataset(bench: Workbench, name: str) -> list[Finding]:
    settings = bench.profile.data_settings(name)
    found: list[Finding] = []
    try:
        if isinstance(settings, FolderData) and settings.manifest is not None:
            listed = _manifest(settings)
            found += data_checks.shared_groups(listed)
            found += data_checks.split_through_groups(listed, settings.validation_split)
            if found:
                return found  # it cannot be opened
        data = bench.dataset(name)
    except ClipItError as error:
        what = f"{error.where}: {error.what}"
        return [*found, Finding("data", Severity.STOP, what, "nothing can be run", error.fix)]
    found += _patches(bench.profile, name, data)
    return [*found, *(_refused("reports", partial(bench.corpus, name)) or _texts(bench, name))]


def _manifest(settings: FolderData) -> pd.DataFrame:
    folder = Path(settings.folder).expanduser()
    place = folder if folder.is_absolute() else paths.data() / folder
    return read_manifest(place / str(settings.manifest))


def _patches(profile: Profile, name: str, data: PatchDataset) -> list[Finding]:
    labels = {split: data.labels[data.indices(split)] for split in ("train", "validation")}
    batch = profile.training_settings(name).batch_size
    return [
        *data_checks.shared_groups(data.samples),
        *data_checks.unknown_groups(data.samples),
        *data_checks.few_groups(data.samples),
        *data_checks.duplicates(data),
        *data_checks.small_validation(labels["validation"], data.classes),
        *data_checks.imbalance(labels["train"], data.classes, batch),
        *data_checks.resized_twice(data.pixels.shape[1], _sizes(profile)),
    ]


def _sizes(profile: Profile) -> dict[str, int]:
    side = profile.pretraining.side if profile.pretraining else None
    named = {backbone for _, backbone, *_ in studies.cells(profile, "own")}
    return {name: vision.transform(name, side).size for name in named if name in vision.VISION}


def _texts(bench: Workbench, name: str) -> list[Finding]:
    data, corpus = bench.dataset(name), bench.corpus(name)
    rows = data.indices("train")
    labels = data.labels[rows]
    found = [
        *report_checks.few_reports(len(corpus), len(rows)),
        *report_checks.unmentioned(corpus.texts, data.class_texts),
    ]
    try:
        here = sources_of_profile(bench.profile, download=False)
        clip.weights_hash(bench.profile.retriever, here)  # a check fetches nothing
        tokenizer = bench.clip.tokenizer
    except ClipItError as error:
        why = "pairs, length of reports and the retriever could not be checked"
        return [*found, Finding("retriever", Severity.NOTE, str(error.what), why, error.fix)]
    cover = token_coverage(corpus.texts, tokenizer.lengths, tokenizer.context_length)
    reports = bench.pairs(name, "train", 1).reports[:, 0]
    samples = data.samples.iloc[rows]
    groups = samples["group"].where(samples["group"] != "", samples["id"]).to_numpy()
    hits, draws = zero_shot_hits(bench, name, "train"), bench.profile.bootstrap_draws
    return [
        *found,
        *report_checks.few_used(reports, len(data.classes)),
        *report_checks.hubs(reports, corpus.ids),
        *report_checks.truncation(cover, bench.profile.text_stage.long_text),
        *report_checks.weak_retriever(hits, labels, groups, len(data.classes), draws),
        *report_checks.classes_without_text(reports, labels, data.class_texts),
    ]
