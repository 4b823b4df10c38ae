"""What the text contributed: the gain of CLIP-IT over each control, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import pandas as pd

from clipit_lib import tables
from clipit_lib.comparison import MANY
from clipit_lib.errors import ClipItError
from clipit_lib.names import label
from clipit_lib.runs import StoredRun
from clipit_lib.settings import PhantomData, Profile
from clipit_lib.statistics import Interval

WHOLE = "clip_it"
POOLED = "all"  # stands for data set and backbone in the rows over all cells
# What CLIP-IT has and each reference lacks; all but the first are controls of the text.
ADDED = {
    "unimodal": "adaptation, branch and text together",
    "lora_only": "the branch and its text",
    "clip_it/architecture_only": "distilling the matched text",
    "clip_it/random_reports": "matched text",
    "clip_it/shuffled_pairs": "giving each patch its own report",
}
CONTROLS = tuple(name for name in ADDED if name != "unimodal")


class Verdict(StrEnum):
    """By where the 95% interval lies."""

    HELPS = "helps"
    NOT_SHOWN = "not shown"
    HURTS = "hurts"


def verdict(value: Interval) -> Verdict:
    """HELPS above zero, HURTS below, NOT_SHOWN where the interval covers it."""
    if value.low > 0:
        return Verdict.HELPS
    return Verdict.HURTS if value.high < 0 else Verdict.NOT_SHOWN


def summary(stored: Sequence[StoredRun], draws: int) -> pd.DataFrame:
    """Gains of CLIP-IT over each reference that was run, pooled over cells and cell by cell.

    Columns: dataset, backbone, first, second, gain, low, high (points of balanced accuracy, 95%
    paired bootstrap over seeds and groups), verdict. The pooled rows come first, under `all`.

    Raises:
        ClipItError: nothing to compare, or settings that were run with other seeds.
    """
    run = {each.spec.setting for each in stored}
    firsts = [name for name in ADDED if name in run]
    if WHOLE not in run or not firsts:
        raise ClipItError(
            f"no runs of {WHOLE} beside a control", "study own", "Leave out its `settings`"
        )
    pooled = []
    for first in firsts:
        value = tables.pooled_gain(stored, first, WHOLE, draws)
        if value is None:
            raise ClipItError(
                f"{first} and {WHOLE} share no seeds", "study own", "Give both the same seeds"
            )
        pooled.append([POOLED, POOLED, first, WHOLE, value.estimate, value.low, value.high])
    cells = tables.gain_table(stored, [(first, WHOLE) for first in firsts], draws)
    found = pd.concat([pd.DataFrame(pooled, columns=cells.columns), cells], ignore_index=True)
    return found.assign(verdict=[str(verdict(_interval(row))) for _, row in found.iterrows()])


def headline(profile: Profile, datasets: Sequence[str]) -> str:
    """The title of the figure; it says so where all is drawn by a program."""
    phantom = all(isinstance(profile.data_settings(each), PhantomData) for each in datasets)
    about = f"{profile.name}: {', '.join(datasets)}"
    return f"What CLIP-IT adds ({about}{'; a phantom, not tissue' if phantom else ''})"


def summary_words(found: pd.DataFrame, doubt: str = "") -> str:
    """The conclusion, then one Markdown item a reference, over all cells.

    Args:
        doubt: which runs have a doubtful course, if any: nothing is credited to text beside them.
    """
    pooled = found[found["dataset"] == POOLED]
    items = [f"- {_sentence(row, bool(doubt))}" for _, row in pooled.iterrows()]
    words = "\n".join([conclusion(pooled, bool(doubt)), "", *items, "", _scope(found), "", MANY])
    return f"{doubt}\n\n{words}" if doubt else words


def _sentence(row: pd.Series, doubtful: bool) -> str:
    added, value = ADDED[row["first"]], _interval(row)
    said = {
        Verdict.HELPS: "the interval lies above 0, "
        + ("but a doubtful course shows no help" if doubtful else "so it helps here"),
        Verdict.NOT_SHOWN: "the interval covers 0, so an effect is not shown",
        Verdict.HURTS: "the interval lies below 0, so it hurts here",
    }
    subject = added[0].upper() + added[1:] + (" add" if " and " in added else " adds")
    return f"{subject} {value} points over {label(row['first'])}: {said[verdict(value)]}."


def conclusion(pooled: pd.DataFrame, doubtful: bool = False) -> str:
    """What the controls of the text say together: text helps only if it beats all that were run.

    Where a run has a doubtful course, a control may have failed in training: no help is claimed.
    """
    controls = pooled[pooled["first"].isin(CONTROLS)]
    by = {
        each: [label(row["first"]) for _, row in controls.iterrows() if row["verdict"] == each]
        for each in Verdict
    }
    helps, open_, hurts = (by[each] for each in Verdict)
    if controls.empty:
        return "**No control of the text was run: what it contributed cannot be said.**"
    if doubtful and helps:
        return (
            "**The text is not shown to help here: some runs rest on a doubtful course.** As they "
            f"are, CLIP-IT lies above {', '.join(helps)}."
        )
    if len(helps) == len(controls):
        which = "every control" if set(controls["first"]) == set(CONTROLS) else "the controls run"
        return f"**The text helps here**: CLIP-IT lies above {which} ({', '.join(helps)})."
    parts = [
        f"{what} {', '.join(names)}"
        for what, names in (
            ("above", helps), ("not clearly off", open_), ("below", hurts)
        ) if names
    ]  # fmt: skip
    head = "The text is not shown to help here" if not helps else "Only a part is shown"
    return f"**{head}**: CLIP-IT is {'; '.join(parts)}."


def _scope(found: pd.DataFrame) -> str:
    cells = found[found["dataset"] != POOLED][tables.CELL].drop_duplicates()
    listed = "; ".join(f"{dataset}, {backbone}" for dataset, backbone in cells.to_numpy())
    return f"Balanced accuracy on test, 95% intervals, mean over cells: {listed}."


def summary_table(found: pd.DataFrame) -> pd.DataFrame:
    """To read: one row a reference and cell; the pooled rows only where there are several cells."""
    cells = found[found["dataset"] != POOLED]
    one = len(cells[tables.CELL].drop_duplicates()) == 1
    shown = found[found["dataset"] == POOLED] if one else found
    names = cells.iloc[0] if one else None
    return pd.DataFrame(
        [
            {
                "data set": row["dataset"] if names is None else names["dataset"],
                "backbone": row["backbone"] if names is None else names["backbone"],
                "what is added": ADDED[row["first"]],
                "CLIP-IT over": label(row["first"]),
                "points": str(_interval(row)),
                "verdict": row["verdict"],
            }
            for _, row in shown.iterrows()
        ]
    )


def _interval(row: pd.Series) -> Interval:
    return Interval(float(row["gain"]), float(row["low"]), float(row["high"]))
