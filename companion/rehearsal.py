"""What is smaller in a rehearsal of a profile, and how it is told from the profile itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipit_lib.files import digest
from clipit_lib.settings import Positive, Strict
from companion import paths
from companion.reading import read_strict

# Where reports of TCGA lie in the folder of a profile's miniatures.
REPORTS = {"path": "tcga/TCGA_Reports.csv",
           "cancer_type_table": "tcga/tcga_patient_to_cancer_type.csv"}  # fmt: skip
SUFFIX = "-rehearsal"  # of a profile's name: what is loaded, stored and printed under it is one
MARK = (
    "**A rehearsal, no result:** miniature data that a program drew, encoders of few blocks with "
    "random weights. The numbers mean nothing."
)


class Rehearsal(Strict):
    """The table of what is smaller: see `rehearsal.yaml`."""

    depth: Positive
    profile: dict[str, Any]
    images: dict[str, dict[str, int]]
    reports: Positive
    slides: Positive
    patches: Positive
    notebooks: dict[str, dict[str, Any]]

    def smaller(self, said: Any, key: str = "") -> Any:
        """Plain values of a profile with those of `profile` in place of what it says."""
        if isinstance(said, dict):
            return {name: self.smaller(value, name) for name, value in said.items()}
        return self.profile[key] if said and key in self.profile else said


FILE = Path(__file__).with_suffix(".yaml")
TABLE: Rehearsal = read_strict(FILE, Rehearsal)


def named(profile: str) -> bool:
    """Whether a name is that of a rehearsal."""
    return profile.endswith(SUFFIX)


def folder() -> Path:
    """Miniature data, weights and packages, as this table asks for them."""
    return paths.cache() / "rehearsal" / digest(FILE.read_bytes())


def packages() -> Path:
    """Where CONCH's package is looked for, too: ours of its shape, if theirs is not installed."""
    return folder() / "packages"
