"""Repairs of report text that lose no letter and no digit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from clipit_lib.settings import known

RULES: dict[str, Callable[[str], str]] = {
    "control": lambda text: re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff\u200b-\u200f\ufffd]", " ", text),
    "hyphenation": lambda text: re.sub(r"(\w)- (?=[a-z])", r"\1-", text),
    "spacing": lambda text: re.sub(r" +([,.;:)])", r"\1", re.sub(r"\s+", " ", text)).strip(),
}


def clean(text: str, rules: Sequence[str]) -> str:
    """Apply rules in the order given."""
    for rule in rules:
        text = RULES[known(rule, RULES, "cleaning rule", "corpus settings")](text)
    return text
