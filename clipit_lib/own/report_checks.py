"""What in the reports, their pairs and the retriever will hurt; [] where all is well."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from clipit_lib.own.findings import Finding, Severity
from clipit_lib.pairing import effective_number, top_share
from clipit_lib.reports.coverage import Coverage
from clipit_lib.statistics import Interval, paired_bootstrap

FEW_REPORTS = 100
FEW_USED = 10
TOP1, TOP10 = 0.2, 0.8
SEEN = 0.75
TOLD = 0.02  # share of a class's entropy
PERMUTATIONS = 200
FILLERS = {"a", "an", "and", "in", "no", "of", "or", "the", "to", "with"}


def few_reports(count: int, patches: int) -> list[Finding]:
    """A small corpus.

    Args:
        count: reports of the corpus.
        patches: training patches.
    """
    if count >= FEW_REPORTS:
        return []
    return [
        Finding(
            "few_reports",
            Severity.WARNING,
            f"{count} reports",
            f"{patches} training patches share them, {patches / count:.0f} to a report if evenly: "
            f"text can tell patches apart into {count} kinds at most",
            f"Bring at least {FEW_REPORTS} reports on this organ; they need not be of these "
            "patients",
        )
    ]


def few_used(reports: Int[np.ndarray, " n"], classes: int) -> list[Finding]:
    """So few reports in use that the text says little more than a label.

    Args:
        reports: index of the report that each training patch is paired with.
    """
    used = effective_number(reports)
    if used >= max(FEW_USED, 2 * classes):
        return []
    distinct = len(np.unique(reports))
    return [
        Finding(
            "few_used",
            Severity.WARNING,
            f"the patches use {distinct} reports, as many as {used:.1f} used equally often",
            f"that is {np.log2(used):.1f} bits a patch where {classes} classes are "
            f"{np.log2(classes):.1f}: what is distilled is close to a few cluster labels",
            "Bring more varied reports or another retriever; compare with "
            "`clip_it/report_rank_5` and with image_centroids of notebook 14",
        )
    ]


def hubs(reports: Int[np.ndarray, " n"], ids: Sequence[str]) -> list[Finding]:
    """One or ten reports that serve most patches."""
    first, ten = top_share(reports, 1), top_share(reports, 10)
    if first <= TOP1 and ten <= TOP10:
        return []
    hub = ids[int(np.bincount(reports).argmax())]
    return [
        Finding(
            "hubs",
            Severity.WARNING,
            f"report {hub} serves {first:.0%} of the training patches, ten reports {ten:.0%}",
            f"{round(first * len(reports))} of {len(reports)} patches have the same target, and "
            "equal targets cannot teach what tells patches apart",
            f"Read {hub}: if it is generic, take it out or shorten it to its findings; see the "
            "hubs in notebook 09",
        )
    ]


def truncation(cover: Coverage, long_text: str) -> list[Finding]:
    """Reports that are cut at the text encoder's window."""
    if long_text != "truncate" or cover.seen_share >= SEEN:
        return []
    return [
        Finding(
            "truncation",
            Severity.WARNING,
            f"{1 - cover.seen_share:.0%} of all tokens lie beyond the window of "
            f"{cover.context_length} tokens; {cover.longer_share:.0%} of the reports are cut",
            f"the median report has {cover.median:.0f} tokens, and the diagnosis often stands at "
            "its end",
            "Write `text_stage: {long_text: chunk}`, or keep only diagnosis and findings",
        )
    ]


def weak_retriever(
    hits: Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    groups: np.ndarray,
    classes: int,
    draws: int,
) -> list[Finding]:
    """A retriever whose zero-shot answers are not above chance (balanced accuracy).

    Args:
        hits: whether the nearest class text is right, for training patches: test is not looked at.
        groups: [n], the unit of the bootstrap.
        draws: of the bootstrap.
    """
    found = _share_right(hits, labels, groups, draws)
    chance = 100 / classes
    if found.low > chance:
        return []
    return [
        Finding(
            "weak_retriever",
            Severity.WARNING,
            f"zero-shot, the retriever names the class of {found.estimate:.0f}% of the training "
            f"patches [{found.low:.0f}, {found.high:.0f}]; chance is {chance:.0f}%",
            "the interval reaches chance, so it may not see what the classes are about and its "
            "pairs may be as good as random ones",
            "Write `class_texts` as a pathologist would say them; if that does not help, take a "
            "retriever of this tissue and stain",
        )
    ]


def _share_right(hits: np.ndarray, labels: np.ndarray, groups: np.ndarray, draws: int) -> Interval:
    """Balanced accuracy, as a gain over never being right."""
    right = np.asarray(hits, bool)[None]
    rng = np.random.default_rng(0)
    return paired_bootstrap(np.zeros_like(right), right, labels, groups, draws, rng)


def class_information(
    reports: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], classes: int
) -> Float[np.ndarray, " c"]:
    """Mutual information of the paired report with "is of this class", in bits, a class."""
    table = np.zeros((int(reports.max()) + 1, classes))
    np.add.at(table, (reports, labels), 1.0)
    uses = table.sum(axis=1, keepdims=True)
    inside = _entropy(table / np.maximum(uses, 1.0))
    whole = _entropy(table.sum(axis=0) / len(labels))
    information: np.ndarray = whole - (uses / len(labels) * inside).sum(axis=0)
    return information


def _entropy(share: np.ndarray) -> np.ndarray:
    """Bits of a coin that shows heads with this share."""
    parts = [-p * np.log2(p, out=np.zeros_like(p), where=p > 0) for p in (share, 1 - share)]
    total: np.ndarray = parts[0] + parts[1]
    return total


def classes_without_text(
    reports: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], names: Sequence[str]
) -> list[Finding]:
    """Classes that the paired report says nothing of: it is shared alike with all others.

    The information counted is what is above its mean over random labels, because a table of many
    reports and few patches shows some by luck. A class is found if that is below 2% of the class's
    entropy, or within what 95% of random labels show.
    """
    classes = len(names)
    told = class_information(reports, labels, classes)
    entropy = _entropy(np.bincount(labels, minlength=classes) / len(labels))
    rng = np.random.default_rng(0)
    chance = np.array(
        [class_information(reports, rng.permutation(labels), classes) for _ in range(PERMUTATIONS)]
    )
    mean, high = chance.mean(axis=0), np.quantile(chance, 0.95, axis=0)
    silent = np.flatnonzero((told <= high) | (told - mean < TOLD * entropy)).tolist()
    if not silent:
        return []
    said = ", ".join(
        f"{told[c]:.3f} of {entropy[c]:.2f} bits of {names[c]} ({mean[c]:.3f} for random labels)"
        for c in silent
    )
    return [
        Finding(
            "class_without_text",
            Severity.WARNING,
            f"the paired reports say nothing of: {', '.join(names[c] for c in silent)}",
            f"they tell {said}: such patches get the same reports as all others, so text cannot "
            "help to tell their class",
            "Bring reports that describe it, or a retriever that sees it",
        )
    ]


def unmentioned(texts: Sequence[str], class_texts: Sequence[str]) -> list[Finding]:
    """Classes whose words stand together in no report."""
    vocabularies = [_words(text) for text in texts]
    absent = [
        each
        for each in class_texts
        if not any(_words(each) - FILLERS <= words for words in vocabularies)
    ]
    if not absent:
        return []
    return [
        Finding(
            "unmentioned",
            Severity.NOTE,
            f"no report has all the words of: {', '.join(absent)}",
            f"0 of {len(texts)} reports name the class, so its patches take what is written of "
            "others",
            "Check that the reports cover it, perhaps in other words",
        )
    ]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
