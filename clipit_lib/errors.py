"""The one exception a user is meant to read."""

from __future__ import annotations


class ClipItError(Exception):
    """A mistake the user can fix, said in one line.

    Args:
        what: what is wrong, with the offending value.
        where: the file, key or argument it was found in.
        fix: what to do about it.
    """

    def __init__(self, what: str, where: object, fix: str) -> None:
        self.what, self.where, self.fix = _visible(what), _visible(str(where)), _visible(fix)
        super().__init__(f"{self.where}: {self.what}. {self.fix}")

    def __reduce__(self) -> tuple[type[ClipItError], tuple[str, str, str]]:
        """So that another process can pass it on."""
        return type(self), (self.what, self.where, self.fix)


def _visible(text: str) -> str:
    """One line, in which nothing that came from data hides: blanks of no width, broken names."""
    line = " ".join(text.splitlines())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


class Diverged(ClipItError):
    """A descent that left the finite numbers: nothing it made is stored, a search goes on."""
