"""Report corpora by their settings."""

from __future__ import annotations

from clipit_lib import paths
from clipit_lib.files import digest
from clipit_lib.reports.cleaning import clean
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.settings import CorpusSettings, PhantomCorpus


def open_corpus(name: str, settings: CorpusSettings) -> ReportCorpus:
    """Read, clean and check a corpus."""
    if isinstance(settings, PhantomCorpus):
        from clipit_lib.reports.phantom import report_corpus

        return report_corpus(settings, name)
    lines = (paths.data() / settings.path).read_text(encoding="utf-8").splitlines()
    texts = tuple(clean(line, settings.cleaning) for line in lines)
    ids = tuple(f"line-{i:04d}" for i in range(1, len(texts) + 1))
    return ReportCorpus(name, ids, texts, settings.organ, digest(*ids, *texts), settings.licence)
