"""Two folders of results, table by table: identical, within a tolerance, or not."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from clipit_lib.errors import ClipItError
from clipit_lib.files import whole

TIMED = ("inference_latency", "inference_cost")  # tables and figures that hold measured times
# What names a row, where a table has it.
NAMED = ("id", "dataset", "backbone", "setting", "seed", "fold", "variant", "comparison")
KEY = re.compile("[0-9a-f]{16}")  # of a run: it names the CPU's kernels too, which are not results


def tables(results: Path) -> dict[str, Path]:
    """The tables of a folder such as results/demo, by their place in it.

    Raises:
        ClipItError: there is none.
    """
    found = [*results.glob("claims.csv"), *results.glob("tables/*.csv")]
    if not found:
        raise ClipItError("no tables here", results, "Name a folder such as results/demo")
    return {str(path.relative_to(results)): path for path in found if path.stem not in TIMED}


def differences(first: Path, second: Path, tolerance: float) -> Iterator[str]:
    """What differs between two tables, a line each: every text, and of numbers the largest.

    Numbers a and b agree if |a - b| <= tolerance (1 + |b|).

    Raises:
        ClipItError: one is damaged.
    """
    frames = []
    for path in (first, second):
        with whole(path, "Make it again"):
            frames.append(pd.read_csv(path))
    here, there = frames
    if list(here) != list(there) or len(here) != len(there):
        yield f"{len(here)} against {len(there)} rows of {', '.join(map(str, here))}"
        yield f"columns in one only: {', '.join(sorted({*here} ^ {*there})) or 'none'}"
        return
    names = here[[each for each in NAMED if each in here] or list(here)[:1]].astype(str)
    row = names.agg(" ".join, axis=1)
    for column in here:
        ours, theirs = here[column], there[column]
        if all(pd.api.types.is_numeric_dtype(each) for each in (ours, theirs)):
            far = ~np.isclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
            if far.any():
                distance = abs(ours.to_numpy(float) - theirs.to_numpy(float))
                at = int(np.where(far, np.nan_to_num(distance, nan=np.inf), -1.0).argmax())
                most = f"most in {row.iloc[at]}: {ours.iloc[at]} against {theirs.iloc[at]}"
                yield f"{column}: {far.sum()} of {len(far)} numbers, {most}"
            continue
        texts = [each.fillna("").astype(str) for each in (ours, theirs)]
        for name, one, other in zip(row, *texts, strict=True):
            if one != other and not (KEY.fullmatch(one) and KEY.fullmatch(other)):
                yield f"{column} of {name}: {one!r} against {other!r}"


def main(options: Namespace) -> None:
    """Print how each table of two folders compares; exit code 1 if any differs."""
    first, second = tables(options.first), tables(options.second)
    counts = Counter[str]()
    for name in sorted(first | second):
        if name in first and name in second:
            lines = list(differences(first[name], second[name], options.tolerance))
            same = first[name].read_bytes() == second[name].read_bytes()
        else:
            lines, same = [f"only in {options.first if name in first else options.second}"], False
        said = "identical" if same else "different" if lines else f"within {options.tolerance:g}"
        counts[said] += 1
        print(f"{said:14}{name}", *lines, sep="\n    ")
    print("; ".join(f"{count} {said}" for said, count in sorted(counts.items())))
    if counts["different"]:
        sys.exit(1)
