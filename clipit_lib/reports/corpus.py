"""A corpus of pathology reports, from whatever file holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from clipit_lib.reports.cleaning import clean


@dataclass(frozen=True)
class ReportCorpus:
    """Reports of one organ.

    Attributes:
        name: as the profile calls it.
        ids: one a report, unique.
        texts: cleaned, none empty.
        organ: the tissue the reports are about.
        content_hash: digest of ids and texts.
        licence: terms of the reports.
        notes: what was left out when the corpus was read, for a reader.
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    organ: str
    content_hash: str
    licence: str = "not stated"
    notes: str = ""

    def __len__(self) -> int:
        return len(self.texts)


def cleaned_corpus(
    name: str,
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    organ: str,
    cleaning: Sequence[str] = (),
    licence: str = "not stated",
    origin: object = "corpus",
) -> ReportCorpus:
    """Clean raw reports and check them.

    Args:
        cleaning: names of rules in `cleaning.RULES`.
        origin: the file to name in messages.

    Raises:
        ClipItError: no reports, a report that is empty once cleaned, an id used twice, or an
            unknown rule.
    """
    if not texts:
        raise ClipItError("no reports", origin, "Add at least one report")
    cleaned = tuple(clean(text, cleaning) for text in texts)
    for each, text in zip(ids, cleaned, strict=True):
        if not text.strip():
            raise ClipItError(f"report {each} is empty", origin, "Take it out or write a report")
    most, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise ClipItError(f"{times} reports have the id {most}", origin, "Make the ids unique")
    return ReportCorpus(name, tuple(ids), cleaned, organ, digest(*ids, *cleaned), licence)
