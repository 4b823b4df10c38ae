"""Bytes that a profile needs on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clipit_lib.plan.effort import FROZEN
from clipit_lib.plan.jobs import Job
from clipit_lib.plan.models import Facts
from clipit_lib.plan.sizes import Sizes
from clipit_lib.settings import Profile

FLOAT = 4
BYTES_A_PREDICTION = 24  # a row of predictions.parquet: compressed logits, label, id
SMALL = 1 << 20  # heads, history and cards of one run


@dataclass(frozen=True)
class Disk:
    """Bytes of decoded patches, of embeddings, and of finished runs."""

    patches: int
    embeddings: int
    runs: int

    @property
    def total(self) -> int:
        return self.patches + self.embeddings + self.runs


def disk(
    todo: list[Job], profile: Profile, sizes: Mapping[str, Sizes], known: Mapping[str, Facts]
) -> Disk:
    """What the runs that are left will write (and keep: nothing of it is temporary)."""
    embedded = {job.cell for job in todo if job.base != "text"}
    embedded |= {(dataset, name) for dataset in sizes for name in profile.retrievers}
    return Disk(
        patches=sum(one.total * one.side**2 * 3 for one in sizes.values()),
        embeddings=sum(sizes[d].total * known[b].width * FLOAT for d, b in embedded if b in known),
        runs=sum(_of_run(job, sizes[job.dataset], known) for job in todo),
    )


def _of_run(job: Job, sizes: Sizes, known: Mapping[str, Facts]) -> int:
    written = (sizes.validation + sizes.test) * BYTES_A_PREDICTION + SMALL
    adapted = job.base not in (*FROZEN, "text")
    return written + (known[job.backbone].adapters * FLOAT if adapted else 0)
