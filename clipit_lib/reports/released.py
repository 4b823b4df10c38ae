"""What the released code does to the texts it trains on."""

from __future__ import annotations

import re

CLASS_TEXT = "an H&E image of {}"


def lose_letters(text: str) -> str:
    """Without every i, I, 1 and |, as a regular expression of its PCAM loader leaves it."""
    return re.sub(r"[iI1|]", "", text)
