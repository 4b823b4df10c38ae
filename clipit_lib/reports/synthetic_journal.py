"""Answers kept one a line as they come, so that nothing paid for is asked again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json

Key = tuple[str, int]


@dataclass(frozen=True)
class Entry:
    """A report: its class, its number, a digest of all that asked for it, and its text."""

    class_name: str
    number: int
    request: str
    text: str


@dataclass(frozen=True)
class Journal:
    """A file of entries, one JSON object a line. What follows the last line end was cut off in
    the middle of writing and does not count."""

    path: Path

    def entries(self) -> dict[Key, Entry]:
        """All whole entries by class and number; none if there is no file.

        Raises:
            ClipItError: a whole line is not an entry.
        """
        found = {}
        whole = self.path.read_bytes()[: self._whole()] if self.path.exists() else b""
        for line, data in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                entry = Entry(**json.loads(data))
            except (ValueError, TypeError):
                raise ClipItError(
                    f"line {line} is not an answer", self.path, "Delete this line and run again"
                ) from None
            found[entry.class_name, entry.number] = entry
        return found

    def open_to_append(self) -> None:
        """Make the file and cut off what follows the last line end.

        Raises:
            ClipItError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.truncate(self._whole())
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, entry: Entry) -> None:
        """Write an entry through to the disk.

        Raises:
            ClipItError: it cannot be written.
        """
        line = canonical_json(vars(entry)) + "\n"
        try:
            with self.path.open("ab") as stream:
                stream.write(line.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _whole(self) -> int:
        """Bytes up to and with the last line end."""
        return self.path.read_bytes().rfind(b"\n") + 1

    def _unwritable(self, error: OSError) -> ClipItError:
        return ClipItError(
            f"cannot write ({error.strerror})", self.path, "Free space or name another --output"
        )
