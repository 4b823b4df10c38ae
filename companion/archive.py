"""What is kept of runs: raw predictions in small files, what follows from them, and from whom."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, write_text, written_beside
from clipit_lib.predictions import LOGIT
from clipit_lib.runs import CARD, StoredRun, find_run
from companion import archived, paths, studies, tables
from companion.figures import write_gallery
from companion.profile import load_profile
from companion.statistics import accuracy, balanced_accuracy
from companion.survival import SurvivalRun, SurvivalSpec, fold_metrics, folder_of

# -- `collect`: the archives of a profile, the list of its runs, and the gallery of figures.


def archive(profile: str, runs: Sequence[StoredRun]) -> Path:
    """Write predictions.parquet: the runs' keys with every test prediction, and what a reader must
    know of each data set.
    """
    order = ["sample", "group"]  # equal in every run of a data set, so that it packs well
    frames = [
        run.predictions().assign(run=run.key).sort_values(order)
        for run in sorted(runs, key=lambda run: (run.spec.dataset, run.key))
    ]
    frame = pd.concat(frames, ignore_index=True).drop(columns="split", errors="ignore")
    path = paths.results(profile) / archived.PREDICTIONS
    limits = {
        name: run.archive.limits(name) if isinstance(run, archived.ArchivedRun)
        else json.loads((run.folder / CARD).read_text())["limits"]
        for name, run in {run.spec.dataset: run for run in runs}.items()
    }  # fmt: skip
    return write(path, frame, ["run", *order], json.dumps(limits))


def archive_survival(profile: str, runs: Sequence[SurvivalRun]) -> Path:
    """Write survival_predictions.parquet: the risk of each slide, by a model that never saw it."""
    frame = pd.concat([run.predictions().assign(run=run.key) for run in runs], ignore_index=True)
    return write(paths.results(profile) / archived.RISKS, frame, ["run", "slide"])


def write(path: Path, frame: pd.DataFrame, names: list[str], limits: str = "{}") -> Path:
    """Write an archive; the columns `names` hold few different values each."""
    frame[names] = frame[names].astype("category")
    logits = [str(name) for name in frame if str(name).startswith(LOGIT)]
    others = [str(name) for name in frame if name not in logits]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, archived.LIMITS: limits})
    with written_beside(path) as temporary:
        # Bytes of equal weight beside each other: signs and exponents of logits repeat.
        pq.write_table(
            table, temporary, compression="zstd", compression_level=19, use_dictionary=others,
            use_byte_stream_split=logits,
        )  # fmt: skip
    return path


def list_runs(profile: str, keys: Sequence[str], kept: Sequence[str] = ()) -> Path:
    """Write runs.csv: what a key stands for, took, and whose it is; of `kept` it is as it was."""
    results = paths.results(profile)
    before = archived.listed(results).set_index("key").loc[list(kept)].to_dict("index")
    rows = [{**row, "key": key} for key, row in (archived.noted(results, keys) | before).items()]
    table = pd.DataFrame(rows, columns=[*archived.LISTED, archived.BY])
    table = table if table[archived.BY].any() else table.drop(columns=archived.BY)
    table["peak_memory_mib"] = table["peak_memory_mib"].astype("Int64")
    write_text(results / archived.RUNS, table.sort_values("key").to_csv(index=False))
    return results / archived.RUNS


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
        return archived.by_run(self.folder.parent / archived.RISKS)[self.key]


def survival_run(
    results: Path, key: str, archive: archived.Archive | None = None
) -> SurvivalRun | None:
    """A finished survival run in a folder of results, or in an archive, or None."""
    if archive is None:
        return find_run(SurvivalRun, folder_of(results, key))
    (row,) = archive.runs[archive.runs["key"] == key].itertuples()
    spec = SurvivalSpec.model_construct(setting=row.setting, seed=row.seed)
    return ArchivedRisks(archive.folder / key, spec)


def cited(profile: str) -> list[str]:
    """Keys of the runs behind tables, figures and claims of a profile, as their sidecars list."""
    folders = (paths.tables(profile), paths.figures(profile), paths.results(profile))
    sidecars = [path for folder in folders for path in sorted(folder.glob("*.runs.json"))]
    return list(dict.fromkeys(key for path in sidecars for key in keys(path)))


def collect(options: Namespace) -> None:
    """Gather the predictions behind a profile's tables, runs.csv and figures/README.md.

    Of runs that are not here, what the archives have stays, unless one of the same names is here.
    """
    profile = load_profile(options.profile).name
    results, asked = paths.results(profile), cited(profile)
    found: list[StoredRun] = []
    for key in asked:
        with suppress(ClipItError):  # a table that is no longer asked for may cite an older version
            found += filter(None, [runs.find(profile, key)])
    risks = [each for key in asked if (each := survival_run(results, key)) is not None]
    here = archived.noted(results, [*(run.key for run in found), *(run.key for run in risks)])
    names = {tuple(run[name] for name in archived.NAMES) for run in here.values()}
    came, kept = archived.Archive(results), list[str]()
    for key, *called in came.runs[["key", *archived.NAMES]].itertuples(index=False, name=None):
        if key in asked and tuple(called) not in names:
            kept.append(key)
            if called[0] == archived.SLIDES:
                risks += filter(None, [survival_run(results, key, came)])
            else:
                found.append(archived.ArchivedRun(Path(key), archived.named(*called), came))
    if here:
        if found:
            print(f"{len(found)} runs in {archive(profile, found)}")
        if risks:
            print(f"{len(risks)} runs in {archive_survival(profile, risks)}")
        print(f"all listed in {list_runs(profile, list(here), kept)}")
    told = [tables.doubtful(profile, asked), archived.by_others(results, asked)]
    if gone := len(asked) - len(here):
        missing = f"{gone} cited runs are not here, or are of an older version"
        told.append(f"{missing}: of {len(kept)} what the archives have stays")
    print(*filter(None, told), f"gallery in {write_gallery()}", sep="\n")


# -- `trace`: from a figure or table back to the runs behind it.

SCORES = ["balanced_accuracy", "accuracy", "c_index"]


def print_runs(options: Namespace) -> None:
    """Print one line for each run behind a figure or table."""
    results, keys = product(options.file)
    if not keys:
        print(f"{options.file}: no run is behind it; it was made from data and encoders alone")
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
    return folder.parent if folder.name == "tables" else folder, keys(sidecar)


def scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row with both accuracies (percent) or, of risks, one per fold with its metrics."""
    if "log_risk" in predictions:
        return fold_metrics(predictions)
    found = {"accuracy": accuracy(predictions), "balanced_accuracy": balanced_accuracy(predictions)}
    return pd.DataFrame([found])


def trace(results: Path, keys: Sequence[str]) -> pd.DataFrame:
    """One row a run: key, dataset, backbone, setting, seed, scores on test, run_folder.

    Scores are balanced accuracy and accuracy (percent) or, of a survival run, the C-index (mean
    over folds): from the run's folder if it is there, else from the archive. What is known of no
    run is no column.
    """
    known, kept = archived.noted(results, keys), dict[str, pd.DataFrame]()
    for path in (results / archived.PREDICTIONS, results / archived.RISKS):
        kept |= archived.by_run(path) if path.exists() else {}
    rows = []
    for key in keys:
        here = _predictions(results, key)
        own = kept.get(key) if here is None else here
        found: dict[Any, Any] = {} if own is None else scores(own).mean().to_dict()
        folder = "not here" if here is None else "here"
        rows.append({"key": key, **known.get(key, {}), **found, "run_folder": folder})
    columns = ["key", *archived.NAMES, *SCORES, "run_folder"]
    return pd.DataFrame(rows, columns=columns).dropna(axis=1, how="all")


def _predictions(results: Path, key: str) -> pd.DataFrame | None:
    """What a run of whatever version says on test, if its folder is there."""
    if survival := survival_run(results, key):
        return survival.predictions()
    path = results / "runs" / key / runs.PREDICTIONS
    if not path.with_name(runs.DONE).exists():
        return None
    with whole(path, runs.AGAIN):
        return pd.read_parquet(path).query("split == 'test'")


# -- `rebuild`: tables and figures from the predictions that came with the repository.

# Notebooks that need no more than test predictions, and the study that each shows. Cells tagged
# `inputs` look at patches, reports or encoders and are passed over.
REBUILT = {
    "03_table1": "table1", "04_table2_multimodal": "table2",
    "06_complementarity": "complementarity", "08_ablations": "ablations",
    "10_reports_or_prompts": "table6", "11_retrieval_and_text_source": "table7",
    "14_controls": "controls", "17_map": "map", "19_power": "known", "18_claims": "table1",
}  # fmt: skip


def rebuild(options: Namespace) -> None:
    """Make tables and figures again from stored predictions; nothing is trained or downloaded."""
    profile = load_profile(options.profile)
    os.environ.setdefault("CLIPIT_PREDICTIONS", str(paths.repository() / "results"))
    os.environ["MPLBACKEND"] = "agg"
    held = paths.archived(profile.name)
    if held is None or not (held / archived.PREDICTIONS).exists():
        what = f"no predictions of the profile {profile.name} came with the repository"
        raise ClipItError(what, held, "Leave out --from-predictions: ./run_all.sh trains it")
    root, output = paths.repository(), paths.output()
    for own in (f"results/{profile.name}", f"figures/{profile.name}"):
        if root != output:  # what needs more than predictions, as it came
            shutil.copytree(root / own, output / own, dirs_exist_ok=True)
    asked = [name for name, study in REBUILT.items() if studies.asked(profile, study)]
    if not studies.claimed(profile):
        asked.remove("18_claims")
    for number, name in enumerate(asked, 1):
        begin = time.monotonic()
        _cells(name, profile.name)
        print(f"{number} of {len(asked)}: {name}, {time.monotonic() - begin:.1f} s", flush=True)
    print(f"tables: {paths.tables(profile.name)}\nfigures: {paths.figures(profile.name)}")


def _cells(name: str, profile: str) -> None:
    """Run a notebook's code in this process, without the cells that need inputs."""
    from IPython.display import display

    book = json.loads((paths.notebooks() / f"{name}.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"display": display}
    with redirect_stdout(io.StringIO()):
        for number, cell in enumerate(book["cells"]):
            tags = cell["metadata"].get("tags", ())
            if cell["cell_type"] == "code" and "inputs" not in tags:
                exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), namespace)
                namespace |= {"profile": profile} if "parameters" in tags else {}
