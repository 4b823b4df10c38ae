"""A corpus of pathology reports, from whatever file holds them."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    organ: str
    content_hash: str
    licence: str = "not stated"

    def __len__(self) -> int:
        return len(self.texts)
