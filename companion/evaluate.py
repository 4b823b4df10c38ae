"""The command `evaluate`: predictions, or a classifier's answers, against labels."""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from clipit_lib.data.folder import read_manifest
from clipit_lib.errors import ClipItError
from clipit_lib.files import named_column, read_text_table, tidy
from clipit_lib.predictions import predictions_frame
from companion.exported import load_classifier
from companion.predict import answers, cells, csv_rows
from companion.statistics import accuracy, balanced_accuracy, scores, units

DRAWS = 1000
OF_ANSWERS = {"balanced_accuracy": "balanced accuracy (%)", "accuracy": "accuracy (%)"}
OF_PROBABILITIES = {
    "auroc": "AUROC (%)",
    "log_loss": "negative log-likelihood (nats)",
    "brier": "Brier score (0 to 2)",
    "calibration_error": "calibration error (%)",
}
LEAST = 1e-5  # of a probability, of which `predict` writes four decimals


def measured(predictions: pd.DataFrame) -> pd.DataFrame:
    """Each score with the ends of its 95% interval: value, low, high; see `statistics.scores`.

    A bootstrap draws patients or slides, single patches where none are known. AUROC is NaN where a
    class has no patch; draws without one have no part in its interval.
    """

    def once(drawn: pd.DataFrame) -> dict[str, float]:
        of_answers = {"accuracy": accuracy(drawn), "balanced_accuracy": balanced_accuracy(drawn)}
        return of_answers | scores(drawn)

    members = [*predictions.groupby(units(predictions)).indices.values()]
    draws = np.random.default_rng(0).integers(len(members), size=(DRAWS, len(members)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn's, of a class that is not there
        value = once(predictions)
        found = [
            once(predictions.iloc[np.concatenate([members[i] for i in chosen])])
            for chosen in tqdm(draws, unit="draw", disable=None)
        ]
    low, high = (pd.DataFrame(found).quantile(share) for share in (0.025, 0.975))
    return pd.DataFrame({"value": value, "low": low, "high": high})


def _answered(folder: Path, images: Sequence[Path]) -> pd.DataFrame:
    """What `predict` would write of images."""
    classifier = load_classifier(folder)
    found = answers(classifier, images, Counter())
    rows = [
        [str(path), *cells(row, classifier.classes)]
        for path, row in tqdm(found, total=len(images), unit="image", disable=None)
    ]
    return pd.DataFrame(rows, columns=["image", "prediction", *classifier.classes])


def _place(path: str | Path) -> str:
    return tidy(os.path.abspath(path))


def main(given: Namespace) -> None:
    """Scores as csv, each with its interval.

    Raises:
        ClipItError: several splits or none, an image without an answer, answers that are no
            probabilities of the prediction, a label that is no class.
    """
    listed, origin = read_manifest(given.labels), given.predictions
    splits = ", ".join(sorted(set(listed["split"])))
    listed = listed[listed["split"] == given.split] if given.split else listed
    if listed["split"].nunique() != 1:
        raise ClipItError(f"images of {splits}", given.labels, "Name one of these by --split")
    images = [given.labels.parent / path for path in listed["path"]]
    table = _answered(origin, images) if origin.is_dir() else read_text_table(origin)
    for name in ("image", "prediction"):
        named_column(table, [name], origin, "Name what `predict` wrote of patches")
    table = table.set_index(table.pop("image").map(_place))
    table = table[table["prediction"] != ""]  # what `predict` could not read
    places = pd.Index(map(_place, images))
    if len(lost := places.difference(table.index)):
        what = f"no answer for {len(lost)} of {len(images)} images, such as {lost[0]}"
        fix = "Predict them, name them as seen from this folder, or take them out of the labels"
        raise ClipItError(what, origin, fix)
    if more := len(table.index.difference(places)):
        print(f"{more} answers are of images without a label here", file=sys.stderr)
    table = table.loc[places]
    chosen = table.pop("prediction")
    if not (graded := len(table.columns) > 0):  # sure of each prediction
        every = sorted({*chosen, *listed["label"]})
        table = pd.get_dummies(chosen).reindex(columns=every, fill_value=False)
    classes = table.columns
    if strange := {*chosen, *listed["label"]} - {*classes}:
        what = f"no class {min(strange)!r}"
        raise ClipItError(what, given.labels, f"Classes of {origin}: {', '.join(classes)}")
    said = table.apply(pd.to_numeric, errors="coerce").to_numpy(float, copy=True)
    own = np.arange(len(said)), classes.get_indexer(pd.Index(chosen))
    right = (said[own] == said.max(axis=1)) & (np.abs(said.sum(axis=1) - 1) < 0.01)
    if len(wrong := table.index[~right | table.index.duplicated()]):
        what = "is there twice, or its probabilities are not those of its prediction"
        raise ClipItError(f"{wrong[0]} {what}", origin, "Predict again")
    said[own] *= 1.0001  # two may have the same four decimals
    labels, logits = classes.get_indexer(pd.Index(listed["label"])), np.log(said.clip(LEAST))
    frame = predictions_frame([*listed["path"]], [*listed["group"]], labels, logits, "test")
    found = measured(frame)
    with csv_rows(given.output, ["score", *found]) as write:
        for name, what in (OF_ANSWERS | (OF_PROBABILITIES if graded else {})).items():
            write([what, *(f"{each:.4g}" for each in found.loc[name])])
    groups = frame["group"][frame["group"] != ""].nunique()
    known = f"{groups} patients or slides" if groups else "unknown patients, drawn one by one"
    print(f"{len(frame)} patches of {known}", file=sys.stderr)
