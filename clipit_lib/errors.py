"""The one exception a user is meant to read."""

from __future__ import annotations


class ClipItError(Exception):
    """A mistake the user can mend, said in one line.

    Args:
        what: what is wrong, with the offending value.
        where: the file, key or argument it was found in.
        fix: what to do about it.
    """

    def __init__(self, what: str, where: object, fix: str) -> None:
        self.what, self.where, self.fix = what, str(where), fix
        # What came from data may hold line ends.
        super().__init__(" ".join(f"{where}: {what}. {fix}".splitlines()))

    def __reduce__(self) -> tuple[type[ClipItError], tuple[str, str, str]]:
        """So that another process can pass it on."""
        return type(self), (self.what, self.where, self.fix)


class Diverged(ClipItError):
    """A descent that left the finite numbers: nothing it made is stored, a search goes on."""
