"""Images by files and folders, and the csv that answers them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float

from clipit_lib.data.folder import SUFFIXES
from clipit_lib.errors import ClipItError
from clipit_lib.files import written_beside


def images(given: Iterable[Path]) -> list[Path]:
    """The given files, and the images in the given folders at any depth, by name.

    Hidden files and folders are left out.

    Raises:
        ClipItError: a folder holds no image.
    """
    found: list[Path] = []
    for path in given:
        found += _within(path) if path.is_dir() else [path]
    return found


def _within(folder: Path) -> list[Path]:
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise ClipItError(
            "no images in this folder", folder, f"Known: {' '.join(sorted(SUFFIXES))}"
        )
    return found


@contextmanager
def csv_stream(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is whole or absent."""
    if output is None:
        yield sys.stdout
        return
    with (
        written_beside(output) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        yield stream


def cells(row: Float[np.ndarray, " c"] | None, classes: Sequence[str]) -> list[str]:
    """The most probable class and all probabilities; empty where there is no answer."""
    if row is None:
        return [""] * (1 + len(classes))
    return [classes[int(row.argmax())], *(f"{value:.4f}" for value in row)]
