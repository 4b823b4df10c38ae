"""Lists of histology terms as text: an image is described by the terms most similar to it.

Table 6 compares reports with such entities, which its authors take from Nguyen et al. (MICCAI
2024). That list is not ours to pass on; `terms.csv` beside this file is a smaller one of our own
in its manner, and `read_terms` opens any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from clipit_lib.errors import ClipItError
from clipit_lib.pairing import top_k
from clipit_lib.text_tables import read_text_table

OWN = Path(__file__).with_name("terms.csv")
# Groups that the released code of the paper chooses between, "all" being every group.
RELEASED_GROUPS = (
    "all",
    "Neoplastic Process",
    "Disease or Syndrome",
    "Pathologic Function",
)


@dataclass(frozen=True)
class Terms:
    """Terms and the semantic group of each, in one order."""

    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def of(self, group: str) -> Terms:
        """The terms of one group; "all" gives every term.

        Raises:
            ClipItError: no term is of this group.
        """
        if group == "all":
            return self
        if group not in self.groups:
            raise ClipItError(
                f"no group {group!r}", "terms", f"Known: all, {', '.join(sorted(set(self.groups)))}"
            )
        kept = tuple(n for n, g in zip(self.names, self.groups, strict=True) if g == group)
        return Terms(kept, (group,) * len(kept))


def own_terms() -> Terms:
    """The terms this project brings."""
    return read_terms(OWN)


def read_terms(path: Path) -> Terms:
    """Terms from a csv with the columns term and group.

    Raises:
        ClipItError: no such file, not a csv in UTF-8, a column is missing, no term, a term or a
            group is empty, or a term is listed twice.
    """
    if not path.is_file():
        raise ClipItError("no such file", path, "Name a csv with the columns term and group")
    table = read_text_table(path)
    missing = [column for column in ("term", "group") if column not in table]
    if missing:
        raise ClipItError(
            f"no column {' and no column '.join(missing)} (found: {', '.join(table.columns)})",
            path,
            "Name the columns term and group",
        )
    names, groups = (table[column].str.strip().tolist() for column in ("term", "group"))
    _check(names, groups, path)
    return Terms(tuple(names), tuple(groups))


def _check(names: Sequence[str], groups: Sequence[str], path: Path) -> None:
    if not names:
        raise ClipItError("no terms", path, "Add at least one row")
    for row, (name, group) in enumerate(zip(names, groups, strict=True), start=1):
        if not (name and group):
            raise ClipItError(
                f"row {row} has no {'group' if name else 'term'}", path, "Fill it in or delete it"
            )
    most, times = Counter(name.casefold() for name in names).most_common(1)[0]
    if times > 1:
        raise ClipItError(f"{most!r} is listed {times} times", path, "Keep one of them")


def term_texts(
    images: Float32[np.ndarray, "n d"],
    term_embeddings: Float32[np.ndarray, "m d"],
    terms: Terms,
    k: int,
) -> tuple[list[str], Int64[np.ndarray, " n"]]:
    """Describe each image by its `k` most similar terms, most similar first.

    Returns:
        The different texts ("term, term, term"), in the order in which images first need them,
        and the index [n] of each image's text.

    Raises:
        ClipItError: fewer than k terms, another number of embeddings than of terms, embeddings
            of different widths or not finite.
    """
    if len(term_embeddings) != len(terms):
        raise ClipItError(
            f"{len(term_embeddings)} embeddings of {len(terms)} terms",
            "terms",
            "Embed exactly these terms, in their order",
        )
    numbers: dict[str, int] = {}
    chosen = top_k(images, term_embeddings, k).reports
    texts = (", ".join(terms.names[term] for term in row) for row in chosen)
    index = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array(index, dtype=np.int64)
