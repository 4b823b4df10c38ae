"""The runs of a profile, and which of them are stored already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from clipit_lib import runs, specs, studies
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Profile
from clipit_lib.workbench import Workbench, sources_of_profile


@dataclass(frozen=True)
class Job:
    """One run, the first study that asks for it, and whether it is stored."""

    study: str
    dataset: str
    backbone: str
    setting: str
    seed: int
    done: bool

    @property
    def cell(self) -> tuple[str, str]:
        return self.dataset, self.backbone

    @property
    def base(self) -> str:
        """The setting without what is changed in it."""
        return self.setting.split("/")[0]


def jobs(profile: Profile) -> list[Job]:
    """The runs of all studies, each once, in the order of the studies."""
    wanted: dict[tuple[str, str, str, int], str] = {}
    for study in studies.STUDIES:
        if studies.asked(profile, study):
            for dataset, backbone, settings, seeds in studies.cells(profile, study):
                for setting, seed in product(settings, seeds):
                    wanted.setdefault((dataset, backbone, setting, seed), study)
    done = _Done(profile)
    return [Job(study, *each, done(*each)) for each, study in wanted.items()]


def untrained(profile: Profile) -> tuple[str, ...]:
    """The encoders that are trained on the spot and have not been."""
    sources = sources_of_profile(profile)
    return tuple(name for name in profile.trained_encoders if not sources.recipe(name).trained)


class _Done:
    """Looks runs up; without the data or weights of a cell, none of it can be done."""

    def __init__(self, profile: Profile) -> None:
        self.bench = Workbench(profile, download=False)
        self.closed: set[tuple[str, str]] = set()

    def __call__(self, dataset: str, backbone: str, setting: str, seed: int) -> bool:
        if (dataset, backbone) in self.closed:
            return False
        try:
            spec = specs.resolve(self.bench, dataset, backbone, setting, seed)
        except ClipItError:
            self.closed.add((dataset, backbone))
            return False
        return runs.find(self.bench.profile.name, spec.key) is not None


def grouped(every: Iterable[Job]) -> dict[tuple[str, str, str, str], list[Job]]:
    """Jobs by study, data set, backbone and setting: what differs within is the seed."""
    groups: dict[tuple[str, str, str, str], list[Job]] = {}
    for job in every:
        groups.setdefault((job.study, *job.cell, job.setting), []).append(job)
    return groups
