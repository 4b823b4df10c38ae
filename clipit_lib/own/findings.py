"""A finding: something in data, reports or retriever that will hurt, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd

# Checks after which an interval says less than it seems to.
TOO_SURE = ("unknown_groups", "few_groups", "duplicates")


class Severity(StrEnum):
    """How bad it is, the worst first."""

    STOP = "stop"  # nothing can be run
    WARNING = "warning"  # results can be poor or misleading
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: the name of the check, as in docs/your_data.md.
        what: what is so, with its number.
        why: what it does to the results, with a number where there is one.
        fix: what to do about it.
        dataset: the data set it is about; "" for the whole profile.
    """

    check: str
    severity: Severity
    what: str
    why: str
    fix: str
    dataset: str = ""

    def about(self, dataset: str) -> Finding:
        """The same finding, said of a data set."""
        return replace(self, dataset=dataset)


def sorted_findings(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first, otherwise in the order given; each once."""
    return sorted(dict.fromkeys(findings), key=lambda one: list(Severity).index(one.severity))


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """To read and to keep: severity, data set, check, what, why, what to do."""
    columns = ["severity", "data set", "check", "what", "why it hurts", "what to do"]
    rows = [
        [str(one.severity), one.dataset, one.check, one.what, one.why, one.fix]
        for one in sorted_findings(findings)
    ]
    return pd.DataFrame(rows, columns=columns)


def counts_sentence(findings: Sequence[Finding]) -> str:
    """How many findings of each severity."""
    if not findings:
        return "Nothing was found that is known to hurt."
    found = [one.severity for one in findings]
    return "Found: " + ", ".join(f"{found.count(each)} {each}" for each in Severity) + "."


def interval_caveats(findings: Sequence[Finding]) -> str:
    """What must be said beside every interval, one Markdown item each; "" if nothing."""
    said = [one for one in findings if one.check in TOO_SURE]
    return "\n".join(f"- {one.dataset}: {one.what}; {one.why}." for one in said)


def findings_text(findings: Sequence[Finding]) -> str:
    """For a terminal: three lines a finding, then the counts."""
    blocks = [
        f"{str(one.severity).upper():8}{one.dataset or 'profile'}: {one.what} [{one.check}]\n"
        f"        why: {one.why}\n        do:  {one.fix}"
        for one in sorted_findings(findings)
    ]
    return "\n".join([*blocks, counts_sentence(findings)])
