"""The data sets and reports of a profile: are they there, are they whole, on which terms?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

from clipit_lib.data import crc5
from clipit_lib.data.published import PUBLISHED
from clipit_lib.data.registry import open_dataset, problems
from clipit_lib.doctor.finding import Finding, failed, passed, warned
from clipit_lib.errors import ClipItError
from clipit_lib.reports.registry import open_corpus
from clipit_lib.settings import Crc5Data, FolderData, Profile, PublishedData

SHOWN = 3  # problems of one data set


def data(profile: Profile) -> list[Finding]:
    """Findings on all data sets of a profile; nothing is decoded, but for the user's own."""
    return [finding for name in profile.data for finding in _dataset(profile, name)]


def _dataset(profile: Profile, name: str) -> list[Finding]:
    settings = profile.data_settings(name)
    if isinstance(settings, get_args(PublishedData)):
        return _published(name, settings)
    if isinstance(settings, Crc5Data):
        return [_checked(name, crc5.check, crc5.LICENCE)]
    if isinstance(settings, FolderData):
        own = partial(open_dataset, name, settings)
        return [_checked(name, own, f"licence: {settings.licence}")]
    return [passed("data", f"{name}: drawn on the spot")]


def _published(name: str, settings: PublishedData) -> list[Finding]:
    known = PUBLISHED[settings.source]
    try:
        found = problems(settings)
    except ClipItError as error:
        found = [error]
    if not found:
        return [passed("data", f"{name}: {known.title}, whole; {known.terms}")]
    lines = [_failure(f"{name}: {known.name}", error) for error in found[:SHOWN]]
    if len(found) > SHOWN:
        more = f"{name}: {len(found) - SHOWN} further problems"
        lines.append(failed("data", more, "Mend the first; then ask again"))
    return [*lines, warned("data", f"{name}: {known.licence}", f"Read the terms at {known.page}")]


def reports(profile: Profile) -> list[Finding]:
    """Findings on all corpora: each is read and cleaned."""
    findings = []
    for name, settings in profile.corpora.items():
        try:
            corpus = open_corpus(name, settings)
        except ClipItError as error:
            findings.append(_failure(name, error, "reports"))
        else:
            seen = f"{name}: {len(corpus)} reports; licence: {corpus.licence}"
            findings.append(passed("reports", seen))
    return findings


def _checked(name: str, look: Callable[[], object], terms: str) -> Finding:
    try:
        look()
    except ClipItError as error:
        return _failure(name, error)
    return passed("data", f"{name}: whole; {terms}")


def _failure(name: str, error: ClipItError, area: str = "data") -> Finding:
    return failed(area, f"{name}: {error.what}: {error.where}", error.fix)
