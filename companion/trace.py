"""From a figure or table back to the runs behind it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from companion import archive, archived
from companion.statistics import accuracy, balanced_accuracy
from companion.survival import fold_metrics

WHAT = ["dataset", "backbone", "setting", "seed"]
SCORES = ["balanced_accuracy", "accuracy", "c_index"]


def main(options: Namespace) -> None:
    """Print one line for each run behind a figure or table."""
    path: Path = options.file
    results, keys = product(path)
    if not keys:
        print(f"{path}: no run is behind it; it was made from data and encoders alone")
        return
    print(trace(results, keys).to_string(index=False, na_rep="-", float_format="{:.2f}".format))


def product(path: Path) -> tuple[Path, list[str]]:
    """Of a figure or table: the folder of its profile's results, and the keys of its runs.

    Raises:
        ClipItError: no such file; no sidecar beside it, or a damaged one.
    """
    if not path.is_file():
        raise ClipItError("no such file", path, "Name a figure or table, with its ending")
    path = path.resolve()
    sidecar = path.with_name(f"{path.name.split('.')[0]}.runs.json")
    if not sidecar.exists():
        what = f"there is no {sidecar.name} beside it"
        raise ClipItError(what, path, "Name a file that a notebook has saved")
    folder = path.parent
    if folder.parent.name == "figures":
        folder = folder.parents[1] / "results" / folder.name
    return folder.parent if folder.name == "tables" else folder, archive.keys(sidecar)


def trace(results: Path, keys: Sequence[str]) -> pd.DataFrame:
    """One row a run: key, dataset, backbone, setting, seed, scores on test, run_folder.

    Scores are balanced accuracy and accuracy (percent) or, of a survival run, the C-index (mean
    over folds): from the run's folder if it is there, else from the archive. What is known of no
    run is no column.
    """
    listed = archived.listed(results).set_index("key")[WHAT]
    kept: dict[Any, dict[Any, Any]] = {}  # scores of the runs that are in the archives
    for name, read in (
        (archived.PREDICTIONS, archive.recomputed), (archived.RISKS, archive.recomputed_survival),
    ):  # fmt: skip
        if (results / name).exists():
            # A row a run, or a fold of a run.
            means = read(results / name, keys).groupby("run").mean(numeric_only=True)
            kept |= means[means.columns.intersection(SCORES)].to_dict("index")
    rows = []
    for key in keys:
        stored = _stored(results, key)
        about: dict[Any, Any] = listed.loc[key].to_dict() if key in listed.index else {}
        folder = "here" if stored else "not here"
        rows.append({"key": key, **about, **(stored or kept.get(key, {})), "run_folder": folder})
    columns = ["key", *WHAT, *SCORES, "run_folder"]
    return pd.DataFrame(rows, columns=columns).dropna(axis=1, how="all")


def _stored(results: Path, key: str) -> dict[str, object]:
    """What the folder of a run says, of whatever version; nothing if it is not there."""
    if survival := archive.survival_run(results, key):
        about = {"setting": survival.spec.setting, "seed": survival.spec.seed}
        c_index = fold_metrics(survival.predictions())["c_index"].mean()
        return {"dataset": archived.SLIDES, "backbone": "", **about, "c_index": c_index}
    folder = results / "runs" / key
    if not (folder / runs.DONE).exists():
        return {}
    with whole(folder / runs.SPEC, runs.AGAIN):
        spec: dict[str, object] = json.loads((folder / runs.SPEC).read_text(encoding="utf-8"))
    with whole(folder / runs.PREDICTIONS, runs.AGAIN):
        tested = pd.read_parquet(folder / runs.PREDICTIONS).query("split == 'test'")
    scores = {"balanced_accuracy": balanced_accuracy(tested), "accuracy": accuracy(tested)}
    return {name: spec[name] for name in WHAT} | scores
