"""What a profile needs of a machine, said without running or opening anything."""

from __future__ import annotations

from dataclasses import dataclass

from clipit_lib.encoders.published import PUBLISHED
from clipit_lib.errors import ClipItError
from clipit_lib.plan.sizes import Sizes, sizes
from clipit_lib.settings import Profile

GIB = 2**30
BYTES_A_RUN = 30 * 2**20  # adapters of a large vision transformer, predictions, cards
FEATURES = 1024  # of the widest model


@dataclass(frozen=True)
class Needs:
    """Bytes of main memory a job and of disk in all, and whether cores alone would take weeks."""

    memory: int
    disk: int
    accelerator: bool


def needs(profile: Profile) -> Needs:
    """An upper estimate; the plan counts more closely, what is done left out."""
    published = [name for name in (*profile.retrievers, *profile.backbones) if name in PUBLISHED]
    counts = [found for name in profile.data if (found := _sizes(profile, name)) is not None]
    patches = sum(one.total * one.side**2 * 3 for one in counts)
    models = len({*profile.retrievers, *profile.backbones})
    embeddings = sum(one.total for one in counts) * FEATURES * 4 * models
    weights = sum(PUBLISHED[name].parameters for name in set(published)) * 4
    largest = max((one.total * FEATURES * 4 for one in counts), default=0)
    return Needs(
        memory=4 * GIB + largest + (8 * GIB if published else 0),
        disk=patches + embeddings + weights + 100 * BYTES_A_RUN * len(counts),
        accelerator=bool(published),
    )


def _sizes(profile: Profile, name: str) -> Sizes | None:
    try:
        return sizes(profile, name)
    except ClipItError:
        return None  # the user's own, and not there: said where the data are checked
