"""One kind of progress bar, for a terminal, a log and a notebook alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

DELAY = 5.0  # seconds; what is done sooner shows no bar
Item = TypeVar("Item")


def progress(
    items: Iterable[Item], what: str, unit: str = "it", total: int | None = None
) -> tqdm[Item]:
    """`items` behind a bar that comes late and leaves nothing behind.

    It goes to standard output: a notebook colours standard error as if something were wrong, and
    shows an emptied bar there as an empty line, while here the next line takes its place.
    """
    return tqdm(items, desc=what, unit=unit, total=total, leave=False, delay=DELAY, file=sys.stdout)
