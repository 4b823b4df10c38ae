"""Headings of the page: unique anchors, and no level left out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from markupsafe import Markup


class Outline:
    """Gives each heading its level and anchor, in the order in which the page is written.

    Args:
        taken: anchors that the page has already.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = dict.fromkeys(taken, 1)
        self._level = 1
        self.title = self.at = ""  # text and anchor of the last heading

    def heading(self, text: Markup, level: int, name: str = "") -> Markup:
        """A heading as HTML, at most one level below the one before it.

        Args:
            text: its content as HTML.
            level: the wanted level, 2 to 6.
            name: its anchor; made from the text if empty.
        """
        self._level = max(2, min(level, self._level + 1, 6))
        self.title = text.striptags()
        self.at = self.anchor(name or self.title)
        return Markup("<h{0} id='{1}'>{2}</h{0}>\n").format(self._level, self.at, text)

    def anchor(self, text: str) -> str:
        """An id that no other element of the page has: letters, digits, hyphens."""
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
        count = self._taken[base] = self._taken.get(base, 0) + 1
        # A base may itself end in a number, so the numbered name is checked as well.
        return base if count == 1 else self.anchor(f"{base}-{count}")
