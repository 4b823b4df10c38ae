"""One mistake of a user, and the world it is made in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from companion import paths

Spoil = Callable[[Path], object]
PROFILES = "Known: " + ", ".join(sorted(path.stem for path in paths.profiles().glob("*.yaml")))


@dataclass(frozen=True)
class World:
    """A user's files beside what was finished before.

    Attributes:
        home: patches, reports and a profile that are right; shared by all cases, never changed.
        place: an empty folder, for what is wrong.
        output: results, figures and caches of before; this case's own copy.
    """

    home: Path
    place: Path
    output: Path

    @property
    def values(self) -> dict[str, Any]:
        """The profile that is right, with absolute paths."""
        found: dict[str, Any] = yaml.safe_load((self.home / "mine.yaml").read_text())
        return found

    @property
    def run(self) -> Path:
        """The finished run of CLIP-IT."""
        return next((self.results / "runs").glob("*/done.json")).parent

    @property
    def results(self) -> Path:
        """What was made of the profile that is right."""
        return self.output / "results" / "mine"

    @property
    def again(self) -> list[str]:
        """The command whose run is finished."""
        return ["train", "own", "--profile", str(self.home / "mine.yaml")]

    def cached(self, pattern: str) -> Path:
        return next((self.output / "cache").glob(pattern))

    def spoil(self, path: Path, how: Spoil) -> None:
        """Do `how` to a file of `output`, which may be a link to that of other cases."""
        own = path.read_bytes()
        path.unlink()
        path.write_bytes(own)
        how(path)

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def profile(self, **changes: Any) -> str:
        return str(self.file("bad.yaml", yaml.safe_dump(self.values | changes)))

    def plan(self, **changes: Any) -> list[str]:
        """A command that reads a profile with some keys changed."""
        return ["plan", "--profile", self.profile(**changes)]

    def train(self, **changes: Any) -> list[str]:
        """A command that opens everything that a profile names."""
        return ["train", "own", "--profile", self.profile(**changes)]

    def data(self, **changes: Any) -> list[str]:
        """`train` with keys of the data set changed."""
        return self.train(data={"patches": self.values["data"]["patches"] | changes})

    def corpus(self, **changes: Any) -> list[str]:
        """`train` with keys of the corpus changed."""
        return self.train(corpora={"reports": self.values["corpora"]["reports"] | changes})

    def patches(self) -> Path:
        """A copy of the patches, to be spoilt."""
        return Path(shutil.copytree(self.home / "patches", self.place / "patches"))

    def manifest(self, *lines: str, **changes: Any) -> list[str]:
        """`train` with a manifest of these lines beside a copy of the patches."""
        folder = self.patches()
        (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.data(folder=str(folder), manifest="list.csv", **changes)

    def setting(self, name: str) -> list[str]:
        """`train` with a study of one setting."""
        return self.train(studies={"own": {"settings": [name]}})


Act = Callable[[World], list[str]]


@dataclass(frozen=True)
class BadInput:
    """A mistake, made by a command line, and what must be said about it.

    Attributes:
        name: of the case.
        act: makes the mistake in a world and gives the arguments of `python -m companion`.
        where, what, fix: parts of the one line that must be said, in this order.
    """

    name: str
    act: Act
    where: str
    what: str
    fix: str


def said(*arguments: str) -> Act:
    """A command line that needs no file."""
    return lambda world: list(arguments)


def cut(path: Path, share: float = 0.5) -> None:
    """Lose the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
