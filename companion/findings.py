"""What a check finds: how bad it is, what is so, what that does and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd


class Severity(StrEnum):
    """How bad it is, the worst first."""

    STOP = "stop"  # nothing can be run
    WARNING = "warning"  # it will run, but results can be poor or misleading
    NOTE = "note"
    PASS = "pass"  # as it should be


DOCTORS = dict(zip(Severity, ("FAIL", "WARN", "NOTE", "PASS"), strict=True))


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: the name of the check, as in docs/your_data.md, or the area that it is about.
        what: what is so, with its number.
        why: what it does to the results, with a number where there is one; "" if that is plain.
        fix: what to do about it.
        dataset: the data set it is about; "" for the whole profile.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    fix: str = ""
    dataset: str = ""

    @property
    def status(self) -> str:
        """The severity in the doctor's words."""
        return DOCTORS[self.severity]

    def __str__(self) -> str:
        """One line, or three if it says why."""
        if not self.why:
            end = f" -> {self.fix}" if self.fix else ""
            return f"{self.status:4}  {self.check:10} {self.what}{end}"
        said = f"{self.severity.upper():8}{self.dataset or 'profile'}: {self.what} [{self.check}]"
        return f"{said}\n        why: {self.why}\n        do:  {self.fix}"


def table(findings: Iterable[Finding], columns: Mapping[str, str]) -> pd.DataFrame:
    """One row a finding; `columns` are names of its attributes, with their headings."""
    rows = [[str(getattr(one, name)) for name in columns] for one in findings]
    return pd.DataFrame(rows, columns=list(columns.values()))
