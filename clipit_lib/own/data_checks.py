"""What in patches, labels, groups and splits will hurt; each check is [] where all is well."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import t

from clipit_lib.data.contract import PatchDataset
from clipit_lib.own.findings import Finding, Severity
from clipit_lib.settings import ValidationSplit

SPLITS = ("train", "validation", "test")
FEW_GROUPS = 20
VALIDATION_ERROR = 5.0  # points
IMBALANCE = 10.0
# Patches a group and their likeness, where nothing is known: an example, and said to be one.
EXAMPLE_PATCHES, EXAMPLE_CORRELATION = 10, 0.3


def shared_groups(samples: pd.DataFrame) -> list[Finding]:
    """The same patient or slide in several splits.

    Args:
        samples: one row a patch with the columns split and group ("" if unknown).
    """
    known = samples[samples["group"] != ""]
    spread = known.groupby("group")["split"].nunique()
    shared = spread.index[spread > 1]
    if shared.empty:
        return []
    test = known[known["split"] == "test"]
    leaked, whole = int(test["group"].isin(shared).sum()), len(samples.query("split == 'test'"))
    return [
        Finding(
            "shared_groups",
            Severity.STOP,
            f"{len(shared)} groups are in several splits: {_some(shared.tolist())}",
            f"{leaked} of {whole} test patches ({leaked / max(whole, 1):.0%}) come from a patient "
            "or slide that is also trained on or chosen by: their accuracy is recognition",
            "Put every group into one split only",
        )
    ]


def split_through_groups(samples: pd.DataFrame, split: ValidationSplit) -> list[Finding]:
    """Validation that would be drawn patch by patch out of groups that are known.

    Args:
        samples: as listed by the user, before any validation samples are drawn.
    """
    if (samples["split"] == "validation").any() or split.by in ("group", "official"):
        return []
    train = samples[(samples["split"] == "train") & (samples["group"] != "")]
    sizes = train.groupby("group").size()
    several = int((sizes > 1).sum())
    if several == 0:
        return []
    return [
        Finding(
            "split_through_groups",
            Severity.STOP,
            f"validation would be drawn by {split.by}, but groups are known",
            f"{several} of {len(sizes)} training groups have several patches and can end up on "
            "both sides: validation would choose what has been memorised",
            "Write `validation_split: {by: group, fraction: 0.2}` in the data set",
        )
    ]


def unknown_groups(samples: pd.DataFrame) -> list[Finding]:
    """Test patches whose patient or slide is not known, so that intervals are too narrow."""
    test = samples[samples["split"] == "test"]
    unknown = int((test["group"] == "").sum())
    if unknown == 0:
        return []
    effect = np.sqrt(1 + (EXAMPLE_PATCHES - 1) * EXAMPLE_CORRELATION)
    return [
        Finding(
            "unknown_groups",
            Severity.WARNING,
            f"{unknown} of {len(test)} test patches have no group (patient or slide)",
            f"they count as {unknown} patients, so intervals are too narrow: {effect:.1f} times, "
            f"for example, with {EXAMPLE_PATCHES} patches a patient of intraclass correlation "
            f"{EXAMPLE_CORRELATION} (Kish's design effect); nor can a shared patient be noticed",
            "Add a column `group` to the manifest, with the patient's or slide's id",
        )
    ]


def few_groups(samples: pd.DataFrame) -> list[Finding]:
    """So few test groups that a percentile bootstrap over them is too narrow."""
    test = samples[(samples["split"] == "test") & (samples["group"] != "")]
    groups = int(test["group"].nunique())
    if not 0 < groups < FEW_GROUPS:
        return []
    # A bootstrap knows neither n - 1 nor Student's tails.
    wider = "no interval exists"
    if groups > 1:
        factor = t.ppf(0.975, groups - 1) / 1.96 * np.sqrt(groups / (groups - 1))
        wider = f"intervals should be about {factor:.1f} times as wide as the bootstrap says"
    return [
        Finding(
            "few_groups",
            Severity.WARNING,
            f"the test split has {groups} groups (patients or slides)",
            f"{wider} (Student's t on {groups} groups)",
            f"Test on more patients; from {FEW_GROUPS} on this is below a tenth",
        )
    ]


def duplicates(dataset: PatchDataset) -> list[Finding]:
    """Patches with exactly the same pixels in two splits."""
    digests = [blake2b(patch.tobytes(), digest_size=16).digest() for patch in dataset.pixels]
    frame = dataset.samples[["id", "split"]].assign(digest=digests)
    found = []
    for first, second in combinations(SPLITS, 2):
        here, there = (frame[frame["split"] == split] for split in (first, second))
        twice = there[there["digest"].isin(here["digest"])]
        if twice.empty:
            continue
        share = len(twice) / len(there)
        found.append(
            Finding(
                "duplicates",
                Severity.WARNING,
                f"{len(twice)} of {len(there)} {second} patches are also in {first}, pixel by "
                f"pixel: {_some(twice['id'].tolist())}",
                f"up to {100 * share:.1f} points of {second} accuracy are memory; copies that "
                "were saved anew or shifted are not even counted",
                "Keep each image once, and look for what copied it",
            )
        )
    return found


def small_validation(labels: np.ndarray, names: Sequence[str]) -> list[Finding]:
    """Too few validation patches to choose by.

    Args:
        labels: of the validation patches, [m].
    """
    counts = np.bincount(labels, minlength=len(names))
    if (counts == 0).any():
        return []  # said by PatchDataset.validate
    # Of the mean of the classes' recalls, each at its most uncertain, one half.
    error = 100 * float(np.sqrt((0.25 / counts).sum())) / len(names)
    if error <= VALIDATION_ERROR:
        return []
    least = int(counts.argmin())
    return [
        Finding(
            "small_validation",
            Severity.WARNING,
            f"{len(labels)} validation patches, {counts[least]} of {names[least]}",
            f"validation accuracy has a standard error of up to {error:.1f} points, so the epoch "
            "and the run to deploy are chosen partly by chance",
            "Hold out more (`validation_split: {fraction: 0.2}`) or bring more patches",
        )
    ]


def imbalance(labels: np.ndarray, names: Sequence[str], batch: int) -> list[Finding]:
    """Training classes of very different size; nothing here weights them.

    Args:
        labels: of the training patches, [n].
        batch: patches in a training step.
    """
    counts = np.bincount(labels, minlength=len(names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == 0 or counts[most] <= IMBALANCE * counts[least]:
        return []
    share = counts[least] / len(labels)
    return [
        Finding(
            "imbalance",
            Severity.WARNING,
            f"{names[most]} has {counts[most]} training patches, {names[least]} has "
            f"{counts[least]}",
            f"a step of {batch} patches sees {batch * share:.1f} of {names[least]} on average, and "
            f"leaving that class out costs only {100 * share:.1f} points of plain accuracy but "
            f"{100 / len(names):.0f} of balanced accuracy",
            "Train on fewer patches of the largest classes, or bring more of the smallest",
        )
    ]


def resized_twice(side: int, sizes: dict[str, int]) -> list[Finding]:
    """Patches kept at another size than a backbone reads.

    Args:
        sizes: pixels that each backbone reads.
    """
    others = {name: size for name, size in sizes.items() if size != side}
    if not others:
        return []
    said = ", ".join(f"{name} reads {size}" for name, size in others.items())
    return [
        Finding(
            "resized_twice",
            Severity.NOTE,
            f"patches are kept at {side} pixels, but {said}",
            "training resizes twice where `predict` resizes once, so answers can differ a little",
            f"Write `side: {next(iter(others.values()))}` in the data set",
        )
    ]


def _some(values: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
