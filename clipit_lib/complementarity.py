"""What text gets right where vision is wrong (section 4.4, equation 5, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool

from clipit_lib.errors import ClipItError
from clipit_lib.evaluation import correct
from clipit_lib.runs import StoredRun
from clipit_lib.statistics import Interval, paired_bootstrap
from clipit_lib.tables import CELL, run_table

Hits = Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Shares:
    """The four cases of two classifiers on the same samples, in percent of samples.

    Attributes:
        omega: text right, vision wrong: equation 5, as Figure 4 prints it.
        counterpart: vision right, text wrong.
    """

    omega: float
    counterpart: float
    both_right: float
    both_wrong: float

    @property
    def oracle(self) -> float:
        """Accuracy of one who always knew which of the two to trust."""
        return self.omega + self.counterpart + self.both_right

    @property
    def omega_independent(self) -> float:
        """The omega of two classifiers of these accuracies whose errors were independent."""
        text = self.omega + self.both_right
        vision = self.counterpart + self.both_right
        return text * (100 - vision) / 100


def shares(vision: Hits, text: Hits) -> Shares:
    """Count the four cases.

    Args:
        vision, text: [n], whether each sample is right, in the same order.
    """

    def percent(cases: Hits) -> float:
        return 100 * float(cases.mean())

    return Shares(
        omega=percent(text & ~vision),
        counterpart=percent(vision & ~text),
        both_right=percent(text & vision),
        both_wrong=percent(~text & ~vision),
    )


def aligned_hits(vision: pd.DataFrame, text: pd.DataFrame) -> tuple[Hits, Hits]:
    """Whether each sample is right, for two prediction frames of the same samples.

    Raises:
        ClipItError: the frames hold other samples, another order or other labels.
    """
    for column in ("sample", "label"):
        if vision[column].tolist() != text[column].tolist():
            raise ClipItError(
                f"vision has {len(vision)} predictions, text {len(text)}, and their {column}s "
                "differ or are in another order",
                "complementarity",
                "Compare runs of the same data and split",
            )
    return correct(vision), correct(text)


def matched(
    vision: Sequence[StoredRun], text: Sequence[StoredRun]
) -> list[tuple[StoredRun, StoredRun]]:
    """Each run of a vision model beside the text classifier of its data set and seed.

    Raises:
        ClipItError: there is no such text classifier.
    """
    found = {(run.spec.dataset, run.spec.seed): run for run in text}
    for run in vision:
        if (run.spec.dataset, run.spec.seed) not in found:
            raise ClipItError(
                f"no text classifier for seed {run.spec.seed}",
                f"{run.spec.dataset}, {run.spec.backbone}",
                "Run the setting text with the same seeds",
            )
    return [(run, found[run.spec.dataset, run.spec.seed]) for run in vision]


def complementarity_table(pairs: Sequence[tuple[StoredRun, StoredRun]]) -> pd.DataFrame:
    """One row a pair of `matched`: the text classifier's accuracies beside one vision model.

    Columns: those of `tables.run_table` of the text classifier, but with the vision model's
    backbone; then vision_accuracy, the shares (all in percent) and vision_run.
    """
    table = run_table([text for _, text in pairs])
    table["backbone"] = [vision.spec.backbone for vision, _ in pairs]
    cases = [
        shares(*aligned_hits(vision.predictions(), text.predictions())) for vision, text in pairs
    ]
    table["vision_accuracy"] = [case.counterpart + case.both_right for case in cases]
    for name in ("omega", "counterpart", "both_right", "both_wrong", "oracle", "omega_independent"):
        table[name] = [getattr(case, name) for case in cases]
    table["vision_run"] = [vision.key for vision, _ in pairs]
    return table


def interval_table(pairs: Sequence[tuple[StoredRun, StoredRun]], draws: int) -> pd.DataFrame:
    """One row a cell and measure: dataset, backbone, measure, share, low, high (percent).

    Intervals are those of `statistics.paired_bootstrap`, over seeds and groups.
    """
    rows = []
    for dataset, backbone in dict.fromkeys((v.spec.dataset, v.spec.backbone) for v, _ in pairs):
        cell = [p for p in pairs if (p[0].spec.dataset, p[0].spec.backbone) == (dataset, backbone)]
        frames = [(vision.predictions(), text.predictions()) for vision, text in cell]
        hits = [aligned_hits(*frame) for frame in frames]
        samples = frames[0][0]
        groups = samples["group"].where(samples["group"] != "", samples["sample"]).to_numpy()
        cases = {
            "omega": np.stack([text & ~vision for vision, text in hits]),
            "counterpart": np.stack([vision & ~text for vision, text in hits]),
        }
        for measure, case in cases.items():
            value = share_interval(case, groups, draws)
            rows.append([dataset, backbone, measure, value.estimate, value.low, value.high])
    return pd.DataFrame(rows, columns=[*CELL, "measure", "share", "low", "high"])


def share_interval(cases: Bool[np.ndarray, "seeds n"], groups: np.ndarray, draws: int) -> Interval:
    """The share of samples that are a case, in percent, with its interval over seeds and groups.

    A share of samples is a gain over never, with all samples in one class.
    """
    one_class = np.zeros(cases.shape[1], np.int64)
    rng = np.random.default_rng(0)
    return paired_bootstrap(np.zeros_like(cases), cases, one_class, groups, draws, rng)


def result_sentences(table: pd.DataFrame, intervals: pd.DataFrame) -> str:
    """One Markdown item a cell, and where omega came out largest."""
    means = table.groupby(CELL, sort=False, as_index=False).mean(numeric_only=True)
    omega = intervals.query("measure == 'omega'")[[*CELL, "low", "high"]]
    cells = means.merge(omega, on=CELL)
    items = [
        f"- {cell['dataset']}, {cell['backbone']}: text is right where vision is wrong on "
        f"{cell['omega']:.1f}% [{cell['low']:.1f}, {cell['high']:.1f}] of patches, vision where "
        f"text is wrong on {cell['counterpart']:.1f}%. Classifiers of these accuracies (text "
        f"{cell['accuracy']:.1f}%, vision {cell['vision_accuracy']:.1f}%) with independent errors "
        f"would give an omega of {cell['omega_independent']:.1f}%."
        for _, cell in cells.iterrows()
    ]
    return "\n".join(items) + "\n\n" + _where_largest(cells) + _beside_independence(cells)


def _where_largest(cells: pd.DataFrame) -> str:
    means = cells.groupby("dataset", sort=False)["omega"].mean()
    if len(means) < 2:
        return ""
    listed = ", ".join(f"{name} {value:.1f}%" for name, value in means.items())
    first, second = sorted(means, reverse=True)[:2]
    return (
        f"Omega is largest on {means.idxmax()} ({listed}), by {first - second:.1f} points over the "
        "next; in the paper it is largest on PCAM. "
    )


def _beside_independence(cells: pd.DataFrame) -> str:
    below = int((cells["omega"] < cells["omega_independent"]).sum())
    return (
        f"It lies below what independent errors would give in {below} of {len(cells)} cells: "
        "where it does, text tends to be right on patches that vision has right already."
    )
