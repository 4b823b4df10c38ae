"""What came with the repository in place of trained runs: their test predictions, by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.runs import AGAIN, DONE, SPEC, StoredRun
from clipit_lib.settings import RunSpec

PREDICTIONS, RISKS, RUNS = "predictions.parquet", "survival_predictions.parquet", "runs.csv"
NAMES = ["dataset", "backbone", "setting", "seed"]
LISTED = ("key", *NAMES, "kernels", "seconds", "peak_memory_mib", "finished", "doubtful")
BY = "by"  # who made a run, in its done.json and the list, where others did
AGAIN_ALL = "Run ./run_all.sh, or python -m companion collect, again"
SLIDES = "slides"  # what stands for the data set of a survival run
LIMITS = b"limits"  # of each data set, in the metadata of the predictions


def listed(results: Path) -> pd.DataFrame:
    """The runs.csv of a folder of results; no row if it has none.

    What an older version did not list is missing; `BY` is there where runs are by others.
    """
    path = results / RUNS
    text = dict.fromkeys(("key", *NAMES[:3], "kernels", "finished", BY), str)
    if not path.exists():
        return pd.DataFrame(columns=list(LISTED))
    empty = dict.fromkeys(("peak_memory_mib", "doubtful"), "")
    with whole(path, AGAIN_ALL):
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)
        more = table.columns.intersection([BY])
        return table.set_index("key").reset_index().reindex(columns=[*LISTED, *more])


def noted(results: Path, keys: Collection[str]) -> dict[str, dict[Any, Any]]:
    """What its folder or else the list says of each run, by its key: its names, whether its course
    is `doubtful`, `BY`. Missing are runs that are in neither, and what older versions did not note.
    """
    known = listed(results).set_index("key").to_dict("index")
    for key, store in product(keys, ("runs", "survival_runs")):
        folder = results / store / key
        if (folder / DONE).exists():
            # Where its specification names neither:
            known[key] = {"dataset": SLIDES, "backbone": ""}
            for path in (folder / SPEC, folder / DONE):
                with whole(path, AGAIN):
                    known[key] |= json.loads(path.read_text(encoding="utf-8"))
            known[key]["doubtful"] = bool(known[key].get("notes"))
    return {key: known[key] for key in dict.fromkeys(keys) if key in known}


def by_others(results: Path, keys: Collection[str]) -> str:
    """One line that counts the runs among `keys` that others made, by name; "" if there is none."""
    made = Counter(each[BY] for each in noted(results, keys).values() if each.get(BY))
    said = ", ".join(f"{count} by {name}" for name, count in sorted(made.items()))
    return f"Of {len(set(keys))} runs others made: {said}." if said else ""


def by_run(path: Path) -> dict[str, pd.DataFrame]:
    """The rows of each run, by its key, in a file of predictions or of risks."""
    with whole(path, AGAIN_ALL):
        frame = pd.read_parquet(path)
    texts = frame.select_dtypes("category").columns
    frame[texts] = frame[texts].astype(str)
    return {
        # Runs of data sets with fewer classes leave logit columns empty.
        str(key): run.drop(columns="run").dropna(axis=1, how="all").reset_index(drop=True)
        for key, run in frame.groupby("run")
    }


def named(dataset: str, backbone: str, setting: str, seed: int) -> RunSpec:
    """A specification of which only the names are known."""
    return RunSpec.model_construct(dataset=dataset, backbone=backbone, setting=setting, seed=seed)


@dataclass(frozen=True)
class ArchivedRun(StoredRun):
    """A run of which only the test predictions are here."""

    archive: Archive

    def predictions(self, split: str = "test") -> pd.DataFrame:
        if split != "test":
            raise self._missing(f"{split} predictions")
        return self.archive.by_run[self.key].copy()

    def history(self) -> pd.DataFrame:
        raise self._missing("history")

    def done(self) -> dict[str, Any]:
        row = self.archive.runs.set_index("key").loc[self.key].dropna()
        return {name: row[name] for name in ("finished", "seconds", BY) if row.get(name, "") != ""}

    def _missing(self, what: str) -> ClipItError:
        return ClipItError(
            f"no {what}", self.archive.folder, "Train it: leave out --from-predictions"
        )


@dataclass(frozen=True)
class Archive:
    """The predictions in a folder of results.

    Attributes:
        folder: that of one profile.
    """

    folder: Path

    @cached_property
    def runs(self) -> pd.DataFrame:
        """As `listed`."""
        return listed(self.folder)

    @cached_property
    def by_run(self) -> dict[str, pd.DataFrame]:
        """Each run's test predictions by its key: sample, group, label, a logit per class."""
        return by_run(self.folder / PREDICTIONS)

    @cached_property
    def _keys(self) -> dict[tuple[Any, ...], str]:
        names = self.runs[NAMES].itertuples(index=False, name=None)
        return dict(zip(names, self.runs["key"], strict=True))

    def find(self, spec: RunSpec) -> StoredRun | None:
        """The run of a specification, of which nothing but `NAMES` is read."""
        key = self._keys.get(tuple(getattr(spec, name) for name in NAMES))
        return None if key is None else ArchivedRun(Path(key), spec, self)

    def limits(self, dataset: str) -> str:
        """What a reader must know of a data set."""
        import pyarrow.parquet as pq

        with whole(self.folder / PREDICTIONS, AGAIN_ALL):
            held = pq.read_schema(self.folder / PREDICTIONS).metadata or {}
            return str(json.loads(held[LIMITS])[dataset])
