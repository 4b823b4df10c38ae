"""Questions, written down before they are asked: what is compared, by which rule, and when."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from pydantic import Field

from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest
from clipit_lib.runs import StoredRun
from clipit_lib.settings import Rate, Seeds, Strict, known
from companion import tables
from companion.profile import Workbench
from companion.reading import read_strict
from companion.statistics import JUDGED, judgement
from companion.studies import find, runs_of

FOLDER = Path(__file__).with_name("registration")


class Pair(Strict):
    """The gain of `second` over `first`."""

    second: str
    first: str


class Question(Strict):
    """What is asked, of which runs, and what its answer will be called.

    Attributes:
        primary: what the answer rests on; `secondary` is explored beside it; in `negative` there
            is nothing to find by construction.
        seen: what had been run that could have informed the rule.
        deviations: what was done otherwise; not part of the hash.
    """

    question: str
    registered: date
    world: str
    profile: str
    study: str
    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    seeds: Seeds
    endpoint: str
    margin: Rate
    margin_because: str
    primary: dict[str, Pair]
    secondary: dict[str, Pair] = Field(default_factory=dict)
    negative: dict[str, Pair] = Field(default_factory=dict)
    expected: str
    stopping: str
    seen: str
    deviations: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of all but the deviations."""
        return digest(canonical_json(self.model_dump(mode="json", exclude={"deviations"})))


@dataclass(frozen=True)
class Registered:
    """A question, the time since which it has stood as it stands, and what says so."""

    name: str
    question: Question
    since: datetime
    dated_by: str


def load(name: str, folder: Path = FOLDER) -> Registered:
    """A registered question.

    It stands since the oldest commit after which nothing but `deviations` changed in its file; in
    a copy without that history, since the date that it bears.

    Raises:
        ClipItError: there is no such question, or it has been changed and not been committed.
    """
    names = [path.stem for path in folder.glob("*.yaml")]
    path = folder / f"{known(name, names, 'question', folder)}.yaml"
    question: Question = read_strict(path, Question)
    history = _git(path, "log", "--format=%H %cI", "--", path.name).splitlines()
    if not history:
        borne = datetime.combine(question.registered, datetime.min.time(), UTC)
        return Registered(name, question, borne, "its file")
    since = ""
    with TemporaryDirectory() as earlier:
        for commit, time in map(str.split, history):  # the youngest first
            copy = Path(earlier) / f"{commit}.yaml"
            copy.write_text(_git(path, "show", f"{commit}:./{path.name}"), encoding="utf-8")
            try:
                same = read_strict(copy, Question).hash == question.hash
            except ClipItError:  # of another form then
                same = False
            if not same:
                break
            since = time
    if not since:
        raise ClipItError("changed and not committed", path, "Commit it before its runs are made")
    return Registered(name, question, datetime.fromisoformat(since), "the repository's history")


def every(folder: Path = FOLDER) -> list[Registered]:
    """All registered questions, by name."""
    return [load(path.stem, folder) for path in sorted(folder.glob("*.yaml"))]


def _git(path: Path, *arguments: str) -> str:
    """What git says of a file; "" where there is no git or no history."""
    command = ["git", "-C", str(path.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def runs_for(registered: Registered, bench: Workbench) -> list[StoredRun]:
    """The stored runs that a question asks for; none is trained.

    Raises:
        ClipItError: it is not about this profile; a run is missing, has no time, or was made before
            the question stood as it stands.
    """
    asked, where = registered.question, f"question {registered.name}"
    if asked.profile != bench.profile.name:
        what = f"asked of the profile {asked.profile}, not {bench.profile.name}"
        raise ClipItError(what, where, f"Name the profile {asked.profile}")
    pairs = [*asked.primary.values(), *asked.secondary.values(), *asked.negative.values()]
    settings = {name for pair in pairs for name in (pair.first, pair.second)}
    specs = [
        spec
        for spec in runs_of(bench, asked.study)
        if spec.dataset in asked.datasets and spec.backbone in asked.backbones
        and spec.seed in asked.seeds and spec.setting in settings
    ]  # fmt: skip
    stored = [run for spec in specs if (run := find(bench, spec))]
    wanted = len(asked.datasets) * len(asked.backbones) * len(asked.seeds) * len(settings)
    if len(stored) < wanted:
        what = f"{wanted - len(stored)} of {wanted} runs are missing"
        raise ClipItError(what, where, f"Run python -m companion train {asked.study} first")
    for run in stored:
        finished = run.done().get("finished")
        if finished is None or datetime.fromisoformat(finished) < registered.since:
            when = "at an unknown time" if finished is None else finished
            what = f"run {run.key} was made {when}, before the question ({registered.since})"
            raise ClipItError(what, where, "Ask with seeds that have not been run")
    return stored


def answers(registered: Registered, stored: Sequence[StoredRun]) -> pd.DataFrame:
    """One row per comparison: role, name, gain with its interval, word, smallest gain seen."""
    asked, rows = registered.question, []
    for role in ("primary", "secondary", "negative"):
        for name, pair in getattr(asked, role).items():
            gain = tables.pooled_gain(stored, pair.first, pair.second)
            rows.append((role, name, pair.second, pair.first, *judgement(gain, asked.margin)))
    columns = ["role", "comparison", "second", "first", *JUDGED]
    return pd.DataFrame(rows, columns=columns)


def words(registered: Registered, found: pd.DataFrame, stored: Sequence[StoredRun]) -> str:
    """A question with its answer: when it was asked, what was found, what that means."""
    asked, gains = registered.question, found.assign(said=tables.judged_words(found))
    times = sorted(run.done()["finished"] for run in stored)
    said = [
        f"**{asked.question}** Registered {registered.since.isoformat()} (by "
        f"{registered.dated_by}; hash `{asked.hash}`); its {len(stored)} runs were made from "
        f"{times[0]} to {times[-1]}. Margin: {asked.margin:g} points, since "
        f"{asked.margin_because}. Seen before: {asked.seen} Expected: {asked.expected}"
    ]
    heads = {
        "primary": "What the answer rests on:", "secondary": "Explored beside it:",
        "negative": "Where there is nothing to find by construction:",
    }  # fmt: skip
    line = "{comparison} ({second} over {first}): {said}"
    for role, head in heads.items():
        if len(rows := gains[gains["role"] == role]):
            said.append(f"{head}\n\n{tables.items(rows, line)}")
    said += [f"Deviation: {each}" for each in asked.deviations]
    return "\n\n".join(said)


def told(bench: Workbench, *studies: str) -> str:
    """The questions of a profile, or of some of its studies, with their answers, which are saved.

    Raises:
        ClipItError: what `runs_for` raises.
    """
    name, said = bench.profile.name, list[str]()
    for each in every():
        if each.question.profile == name and (not studies or each.question.study in studies):
            stored = runs_for(each, bench)
            found = answers(each, stored)
            said.append(words(each, found, stored))
            keys = [run.key for run in stored]
            tables.save_table(name, f"registered_{each.name}", found, said[-1], keys)
    return "\n\n".join(said) or f"No question is registered for the profile {name}."
