"""What a check finds, in one line, with the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd


class Status(StrEnum):
    """PASS: as it should be. WARN: it will run, but read this. FAIL: it will not run."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: the area it is about, what was seen, and what to do about it."""

    status: Status
    area: str
    seen: str
    fix: str = ""

    def __str__(self) -> str:
        end = f" -> {self.fix}" if self.fix else ""
        return f"{self.status:4}  {self.area:10} {self.seen}{end}"


def passed(area: str, seen: str) -> Finding:
    return Finding(Status.PASS, area, seen)


def warned(area: str, seen: str, fix: str) -> Finding:
    return Finding(Status.WARN, area, seen, fix)


def failed(area: str, seen: str, fix: str) -> Finding:
    return Finding(Status.FAIL, area, seen, fix)


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row a finding: status, area, seen, fix."""
    rows = [(str(each.status), each.area, each.seen, each.fix) for each in findings]
    return pd.DataFrame(rows, columns=["status", "area", "seen", "fix"])
