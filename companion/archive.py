"""What is kept of a profile: raw predictions in small files, so that tables can be checked."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, write_text, written_beside
from clipit_lib.predictions import LOGIT
from clipit_lib.runs import CARD, StoredRun, find_run
from companion import paths, tables
from companion.archived import (
    BY,
    LIMITS,
    LISTED,
    PREDICTIONS,
    RISKS,
    RUNS,
    SLIDES,
    Archive,
    by_others,
    by_run,
)
from companion.figures import write_gallery
from companion.profile import load_profile
from companion.statistics import accuracy, balanced_accuracy
from companion.survival import SurvivalRun, SurvivalSpec, fold_metrics, folder_of


def archive(profile: str, runs: Sequence[StoredRun]) -> Path:
    """Write predictions.parquet: the runs' keys with every test prediction, and what a reader must
    know of each data set.
    """
    order = ["sample", "group"]  # equal in every run of a data set, so that it packs well
    frames = [
        run.predictions().drop(columns="split").assign(run=run.key).sort_values(order)
        for run in sorted(runs, key=lambda run: (run.spec.dataset, run.key))
    ]
    frame = pd.concat(frames, ignore_index=True)
    path = paths.results(profile) / PREDICTIONS
    cards = {run.spec.dataset: run.folder / CARD for run in runs}
    limits = {name: json.loads(card.read_text())["limits"] for name, card in cards.items()}
    return write(path, frame, ["run", *order], {LIMITS: json.dumps(limits).encode()})


def archive_survival(profile: str, runs: Sequence[SurvivalRun]) -> Path:
    """Write survival_predictions.parquet: the risk of each slide, by a model that never saw it."""
    frame = pd.concat([run.predictions().assign(run=run.key) for run in runs], ignore_index=True)
    return write(paths.results(profile) / RISKS, frame, ["run", "slide"])


def write(
    path: Path, frame: pd.DataFrame, names: list[str], metadata: Mapping[bytes, bytes] | None = None
) -> Path:
    """Write an archive; the columns `names` hold few different values each."""
    frame[names] = frame[names].astype("category")
    logits = [str(name) for name in frame if str(name).startswith(LOGIT)]
    others = [str(name) for name in frame if name not in logits]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    with written_beside(path) as temporary:
        # Bytes of equal weight beside each other: signs and exponents of logits repeat.
        pq.write_table(
            table, temporary, compression="zstd", compression_level=19, use_dictionary=others,
            use_byte_stream_split=logits,
        )  # fmt: skip
    return path


def list_runs(
    profile: str, runs: Sequence[StoredRun], survival: Sequence[SurvivalRun] = ()
) -> Path:
    """Write runs.csv: what each key stands for, what it took, and who made it if others did."""
    every: list[StoredRun | SurvivalRun] = [*runs, *survival]
    cells = [(run.spec.dataset, run.spec.backbone) for run in runs] + [(SLIDES, "")] * len(survival)
    rows = [
        (run.key, *cell, run.spec.setting, run.spec.seed, run.spec.kernels, done["seconds"],
         done.get("peak_memory_mib"), done.get("finished", ""), bool(done.get("notes")),
         done.get(BY, ""))
        for cell, run in zip(cells, every, strict=True)
        for done in [run.done()]
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*LISTED, BY])
    table = table if table[BY].any() else table.drop(columns=BY)
    path = paths.results(profile) / RUNS
    write_text(path, table.sort_values("key").to_csv(index=False))
    return path


def keys(sidecar: Path) -> list[str]:
    """The run keys in a NAME.runs.json.

    Raises:
        ClipItError: it is missing or damaged.
    """
    with whole(sidecar, "Run the notebook that writes it again"):
        return TypeAdapter(list[str]).validate_json(sidecar.read_bytes())


class ArchivedRisks(SurvivalRun):
    """A survival run of which only the predicted risks are here."""

    def predictions(self) -> pd.DataFrame:
        return by_run(self.folder.parent / RISKS)[self.key]


def survival_run(results: Path, key: str, archive: Archive | None = None) -> SurvivalRun | None:
    """A finished survival run in a folder of results, or in an archive, or None."""
    if archive is None:
        return find_run(SurvivalRun, folder_of(results, key))
    (row,) = archive.runs[archive.runs["key"] == key].itertuples()
    spec = SurvivalSpec.model_construct(setting=row.setting, seed=row.seed)
    return ArchivedRisks(archive.folder / key, spec)


def recomputed(path: Path, keys: Collection[str] | None = None) -> pd.DataFrame:
    """Accuracies of all or some archived runs: run, accuracy, balanced_accuracy (percent)."""
    rows = [
        (key, accuracy(own), balanced_accuracy(own))
        for key, own in by_run(path).items()
        if keys is None or key in keys
    ]
    return pd.DataFrame(rows, columns=["run", "accuracy", "balanced_accuracy"])


def recomputed_survival(path: Path, keys: Collection[str] | None = None) -> pd.DataFrame:
    """Metrics of archived survival runs by fold: run, fold, c_index, iauc."""
    parts = [
        fold_metrics(own).assign(run=key)
        for key, own in by_run(path).items()
        if keys is None or key in keys
    ]
    columns = ["run", "fold", "c_index", "iauc"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


# -- `collect`: the archives of a profile, the list of its runs, and the gallery of figures.


def cited(profile: str) -> list[str]:
    """Keys of the runs behind tables, figures and claims of a profile, as their sidecars list."""
    folders = (paths.tables(profile), paths.figures(profile), paths.results(profile))
    sidecars = [path for folder in folders for path in sorted(folder.glob("*.runs.json"))]
    return list(dict.fromkeys(key for path in sidecars for key in keys(path)))


def main(options: Namespace) -> None:
    """Gather the predictions behind a profile's tables, runs.csv and figures/README.md."""
    profile = load_profile(options.profile).name
    asked = cited(profile)
    found: list[StoredRun] = []
    for key in asked:
        with suppress(ClipItError):  # a table that is no longer asked for may cite an older version
            found += filter(None, [runs.find(profile, key)])
    results = paths.results(profile)
    risks = [each for key in asked if (each := survival_run(results, key)) is not None]
    if found:
        print(f"{len(found)} runs in {archive(profile, found)}")
    if risks:
        print(f"{len(risks)} runs in {archive_survival(profile, risks)}")
    if found or risks:
        print(f"all listed in {list_runs(profile, found, risks)}")
    for said in filter(None, (tables.doubtful(profile, asked), by_others(results, asked))):
        print(said)
    if missing := len(asked) - len(found) - len(risks):
        print(f"{missing} cited runs are not here, or are of an older version")
    print(f"gallery in {write_gallery()}")
