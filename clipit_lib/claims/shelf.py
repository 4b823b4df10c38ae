"""The stored runs and tables of a profile that a claim can be judged by; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from clipit_lib import archive, paths, runs, studies
from clipit_lib.files import whole
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from clipit_lib.workbench import Workbench


class Untestable(Exception):
    """A claim that a profile cannot test; the message says why in a word."""


class Shelf:
    """What one profile has stored."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._specs: dict[str, list[RunSpec]] = {}
        self._found: dict[str, StoredRun | None] = {}

    @property
    def profile(self) -> str:
        return self.bench.profile.name

    @property
    def draws(self) -> int:
        """Draws of each bootstrap."""
        return self.bench.profile.bootstrap_draws

    def runs(
        self, study: str, settings: Sequence[str], datasets: Sequence[str] = ()
    ) -> list[StoredRun]:
        """The runs of some settings, in the cells of a study that have all of them.

        Args:
            datasets: those that count; all if empty.

        Raises:
            Untestable: the profile has no such study, data set, setting or run.
        """
        specs = self._specs_of(study)
        if datasets:
            specs = [spec for spec in specs if spec.dataset in datasets]
            if not specs:
                raise Untestable("no such data set in the profile")
        held = _settings_by_cell(specs)
        for setting in settings:
            if not any(setting in cell for cell in held.values()):
                raise Untestable(f"{setting} not in the profile's {study}")
        complete = [cell for cell, names in held.items() if names >= set(settings)]
        if not complete:
            raise Untestable(f"no cell of {study} has all of {', '.join(settings)}")
        return self._stored(
            spec
            for spec in specs
            if spec.setting in settings and (spec.dataset, spec.backbone) in complete
        )

    def settings(self, study: str) -> set[str]:
        """All settings of a study.

        Raises:
            Untestable: the profile does not have it.
        """
        return {spec.setting for spec in self._specs_of(study)}

    def table(self, name: str) -> pd.DataFrame:
        """A table of the profile.

        Raises:
            Untestable: it has not been made.
        """
        path = paths.tables(self.profile) / f"{name}.csv"
        if not path.exists():
            raise Untestable(f"no table {name}")
        with whole(path, "Run the notebook that writes it again"):
            return pd.read_csv(path)

    def keys_behind(self, table: str) -> tuple[str, ...]:
        """Keys of the runs behind a table."""
        path = paths.tables(self.profile) / f"{table}.runs.json"
        return tuple(archive.keys(path)) if path.exists() else ()

    def _specs_of(self, study: str) -> list[RunSpec]:
        if not studies.asked(self.bench.profile, study):
            raise Untestable(f"{study} not in the profile")
        if study not in self._specs:
            self._specs[study] = studies.runs_of(self.bench, study)
        return self._specs[study]

    def _stored(self, specs: Iterable[RunSpec]) -> list[StoredRun]:
        found = {spec.key: self._find(spec.key) for spec in specs}
        missing = sum(run is None for run in found.values())
        if missing:
            raise Untestable(f"runs missing ({missing} of {len(found)})")
        return [run for run in found.values() if run is not None]

    def _find(self, key: str) -> StoredRun | None:
        if key not in self._found:
            self._found[key] = runs.find(self.profile, key)
        return self._found[key]


def _settings_by_cell(specs: Sequence[RunSpec]) -> dict[tuple[str, str], set[str]]:
    held: dict[tuple[str, str], set[str]] = {}
    for spec in specs:
        held.setdefault((spec.dataset, spec.backbone), set()).add(spec.setting)
    return held
