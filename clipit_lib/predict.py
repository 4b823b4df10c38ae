"""`predict`: class probabilities of images, or of the tiles of large ones, without any text."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from tqdm import tqdm

from clipit_lib import predict_tiles
from clipit_lib.classifier import load_classifier
from clipit_lib.deployment import listing


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m clipit_lib predict", description=main.__doc__)
    parser.add_argument("model", type=Path, help="a run's folder, or an exported classifier")
    parser.add_argument("images", type=Path, nargs="+", help="files, or folders at any depth")
    parser.add_argument("--output", type=Path, help="write the csv here (default: print it)")
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave the probabilities of unreadable images empty, instead of stopping at the first",
    )
    predict_tiles.add_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """`predict MODEL IMAGE [IMAGE ...]`: class probabilities of images or their tiles, as csv."""
    given = _arguments(arguments)
    predict_tiles.check_arguments(given)
    classifier = load_classifier(given.model)
    if given.tiles is not None:
        predict_tiles.main(
            given, classifier.probabilities, classifier.transform.size, classifier.classes
        )
        return
    images = listing.images(given.images)
    answers = classifier.answers(images, given.skip_unreadable)
    unread = []
    with listing.csv_stream(given.output) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["image", "prediction", *classifier.classes])
        for path, row in tqdm(answers, total=len(images), unit="image", disable=None):
            table.writerow([str(path), *listing.cells(row, classifier.classes)])
            if row is None:
                unread.append(str(path))
    if unread:
        said = f"{len(unread)} of {len(images)} images could not be read: {', '.join(unread)}"
        print(said, file=sys.stderr)
