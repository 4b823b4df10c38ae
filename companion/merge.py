"""The command `merge`: runs that others have made join ours, checked, under their name."""

from __future__ import annotations

import json
import re
import shutil
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from clipit_lib import kernels, runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, kept, whole
from clipit_lib.predictions import LOGIT, predicted
from clipit_lib.runs import CARD, DONE, HISTORY, MODEL, PREDICTIONS, SPEC, StoredRun
from clipit_lib.settings import RunSpec
from companion import specs
from companion.archived import BY
from companion.profile import Workbench, load_profile
from companion.statistics import balanced_accuracy

FILES = (SPEC, DONE, CARD, HISTORY, MODEL, PREDICTIONS)  # all that a run consists of
NAME = re.compile(r"[^\W_][\w .&-]{0,59}")  # stands in tables: no markup, no formula
SAID = ("classes", "class_texts", "licence", "limits")  # of a data set, in a card
REFUSED = "Nothing was taken. Ask for the folder as it was written, or leave this run out"


def checked(folder: Path, bench: Workbench) -> StoredRun:
    """The run in a folder, if it is what its names say.

    Its specification must be what the profile runs under these names, kernels apart, and hash to
    its key; card, patches and labels must be those here, in our order, and its predictions finite.
    Whether they are what its weights predict is not checked.

    Raises:
        ClipItError: it is not; data or encoders that tell are not here.
    """
    for name in FILES:
        if not (folder / name).is_file() or (folder / name).is_symlink():
            raise ClipItError(f"{name} is no file", folder, REFUSED)
    with whole(folder, REFUSED):
        spec, done, card = (json.loads((folder / name).read_bytes()) for name in (SPEC, DONE, CARD))
        run = StoredRun(folder, RunSpec.model_validate_json(json.dumps(spec)))
        frame = pd.read_parquet(folder / PREDICTIONS)
        datetime.fromisoformat(done["finished"])
        named = (run.spec.key, done["key"], NAME.fullmatch(done.get(BY, "us")) and folder.name)
        said = [card[name] for name in SAID]
        float(done["seconds"])
    called = [getattr(run.spec, name) for name in specs.CALLED]
    ours, data = specs.resolve(bench, *called), bench.dataset(run.spec.dataset)
    as_theirs = {"kernels": run.spec.kernels}
    text = ours.text and ours.text.model_copy(update=as_theirs)
    ours = ours.model_copy(update=as_theirs | {"text": text})
    other = [name for name, value in ours if value != getattr(run.spec, name)]
    blank = predicted(data, lambda split: np.zeros((len(data.indices(split)), len(data.classes))))
    logits = blank.filter(like=LOGIT).columns
    found = frame.reindex(columns=blank.columns)
    wrong = {
        f"profile {bench.profile.name} has another {' and '.join(other)}": other,
        f"its names and its specification, {run.spec.key}, differ": {*named} != {folder.name},
        f"its card is not that of {data.name}":
            canonical_json(said) != canonical_json([getattr(data, name) for name in SAID]),
        "its predictions have other columns": list(frame) != list(blank),
        f"its patches, groups or labels are not those of {data.name}, in their order":
            not found.drop(columns=logits).equals(blank.drop(columns=logits)),
        "its logits are not finite numbers of 32 bits":
            set(found[logits].dtypes) != {np.dtype(np.float32)}
            or not np.isfinite(found[logits]).all(axis=None),
    }  # fmt: skip
    if what := next((each for each, so in wrong.items() if so), None):
        raise ClipItError(what, folder, REFUSED)
    return run


def merged(run: StoredRun, store: Path, by: str) -> str:
    """Put a checked run into a store, unless one of its key is there; say which.

    What is there is never written over: two runs of one key from two machines may differ.
    """
    about = f"{run.spec.dataset} {run.spec.backbone} {run.spec.setting} seed {run.spec.seed}"
    target = store / run.key
    if (target / DONE).exists():
        ours, theirs = (each.predictions() for each in (runs.read(target), run))
        if ours.equals(theirs):
            return f"{about}: was here, with the same predictions"
        found = f"{balanced_accuracy(ours):.2f}% here, {balanced_accuracy(theirs):.2f}% theirs"
        return f"{about}: was here, ours is kept (balanced accuracy {found})"

    def copy(temporary: Path) -> None:
        temporary.mkdir()
        for name in FILES:
            shutil.copyfile(run.folder / name, temporary / name)
        made = {BY: by} | run.done()  # by whom, whoever passes it on
        (temporary / DONE).write_text(json.dumps(made, indent=1), encoding="utf-8")

    kept(target, copy, store / f".{run.key}.lock")
    return f"{about}: taken"


def main(options: Namespace) -> None:
    """Take the runs of another lab into a profile's, after all of them are checked."""
    if not NAME.fullmatch(options.by):
        fix = "Give up to 60 letters, digits, blanks, points, hyphens or &, a letter first"
        raise ClipItError(f"{options.by!r} cannot stand in a table", "--from", fix)
    bench = Workbench(load_profile(options.profile), download=False)
    inner = options.folder / "runs"
    folders = sorted((inner if inner.is_dir() else options.folder).glob("[0-9a-f]*/"))
    if not folders:
        raise ClipItError("no runs here", options.folder, "Name their results/PROFILE, unpacked")
    found = [checked(folder, bench) for folder in folders]
    print("\n".join(merged(run, bench.runs, options.by) for run in found))
    if others := {run.spec.kernels for run in found} - {kernels.level()}:
        print(f"Tables made with CLIPIT_KERNELS={others.pop()} rest on them, those here do not")
