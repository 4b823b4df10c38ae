"""A csv of the user: every cell is text, and every row has the cells of the header."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd

from clipit_lib.errors import ClipItError

SAVE = "Save it as UTF-8 csv with a header"


def read_text_table(path: Path, fix: str = SAVE, content: str | None = None) -> pd.DataFrame:
    """Read a csv; an empty cell is "".

    Args:
        fix: what to do if it cannot be read.
        content: what the file holds, if it has been decoded.

    Raises:
        ClipItError: no csv in UTF-8, or rows with more cells than the header: texts with commas
            that are not quoted, whose first cells pandas would take for names of the rows.
    """
    source = path if content is None else StringIO(content)
    try:
        table = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ClipItError(f"not a csv in UTF-8 ({reason})", path, fix) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise ClipItError(
            "rows have more cells than the header", path, "Quote texts that hold commas"
        )
    return table
