"""What a study of own data found: whether text helps, and what to deploy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from clipit_lib.errors import ClipItError
from clipit_lib.runs import StoredRun
from companion import paths, tables
from companion.measures import cross_entropy
from companion.phantom import Phantom
from companion.profile import Profile
from companion.specs import label
from companion.statistics import MARGIN, Interval, Word, balanced_accuracy, judgement
from companion.tables import MANY

# -- Which run to deploy: chosen by validation, never by test; it needs an image and nothing else.

DEPLOYABLE = ("unimodal", "lora_only", "clip_it")  # no control that was given wrong text
GROUP = ["backbone", "setting"]


@dataclass(frozen=True)
class Choice:
    """The run to deploy for a data set.

    Attributes:
        run: the best seed of the best backbone and setting.
        candidates: one row a run: backbone, setting, seed, validation (balanced accuracy,
            percent), nats (validation cross-entropy), run.
    """

    run: StoredRun
    candidates: pd.DataFrame


def choose(stored: Sequence[StoredRun], dataset: str) -> Choice:
    """The backbone and setting with the best mean over seeds, then its best seed.

    Both by balanced accuracy on validation; of equals the lower cross-entropy, then the first.

    Raises:
        ClipItError: no unimodal, lora_only or clip_it run of this data set.
    """
    runs = [run for run in stored if run.spec.dataset == dataset and run.spec.setting in DEPLOYABLE]
    if not runs:
        what = f"no run of {dataset} to deploy"
        raise ClipItError(what, "study own", f"Run one of {', '.join(DEPLOYABLE)}")
    columns = [*GROUP, "seed", "validation", "nats", "run"]
    held = [(run, run.predictions("validation")) for run in runs]
    candidates = pd.DataFrame([
        (run.spec.backbone, run.spec.setting, run.spec.seed, balanced_accuracy(said),
         cross_entropy(said), run.key)
        for run, said in held
    ], columns=columns)  # fmt: skip
    means = candidates.groupby(GROUP, sort=False)[["validation", "nats"]].mean().reset_index()
    seeds = candidates[(candidates[GROUP] == _best(means)[GROUP]).all(axis=1)]
    key = _best(seeds)["run"]
    return Choice(next(run for run in runs if run.key == key), candidates)


def _best(rows: pd.DataFrame) -> pd.Series:
    # Stable, so that of equal rows the first is taken; rounded, so that equal means are equal.
    order = rows.round({"validation": 9, "nats": 9})
    order = order.sort_values(["validation", "nats"], ascending=[False, True], kind="stable")
    return rows.loc[order.index[0]]


def candidate_table(choice: Choice) -> pd.DataFrame:
    """To read: one row a backbone and setting, mean over seeds on validation."""
    grouped = choice.candidates.groupby(GROUP, sort=False)
    means = grouped[["validation", "nats"]].mean().reset_index()
    return means.assign(seeds=grouped.size().to_numpy()).rename(
        columns={"validation": "validation balanced accuracy (%)", "nats": "validation nats"}
    )


def command(run: StoredRun) -> str:
    """The command that classifies images by a run, to be called in the repository."""
    folder, here = run.folder, paths.repository()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return f"python -m companion predict {shlex.quote(str(shown))} image.png"


def choice_words(choice: Choice) -> str:
    """The choice, what it rests on, and how to call it, as Markdown."""
    spec, test = choice.run.spec, balanced_accuracy(choice.run.predictions())
    ways = len(choice.candidates.drop_duplicates(GROUP))
    validation = choice.candidates.set_index("run")["validation"][choice.run.key]
    doubt = "".join(f"\n\n**Doubtful**: {note}." for note in choice.run.notes)
    return (
        f"For {spec.dataset}, deploy **{label(spec.setting)} on {spec.backbone}, seed "
        f"{spec.seed}**: of {ways} ways it has the best mean over seeds on validation, and of its "
        f"seeds this one ({validation:.1f}%; as the best of {len(choice.candidates)} runs "
        f"that is too good by some luck). On test, looked at after the choice, it has {test:.1f}% "
        f"balanced accuracy. It reads an image and no text:\n\n```sh\n"
        f"{command(choice.run)}\n```{doubt}"
    )


# -- What the text contributed: the gain of CLIP-IT over each control, and a verdict.

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


def summary(stored: Sequence[StoredRun]) -> pd.DataFrame:
    """Gains of CLIP-IT over each reference that was run, pooled over cells and cell by cell.

    Columns: those of `tables.gain_table`. The pooled rows come first, under `all`.

    Raises:
        ClipItError: nothing to compare, or settings that were run with other seeds.
    """
    run = {each.spec.setting for each in stored}
    firsts = [name for name in ADDED if name in run]
    if WHOLE not in run or not firsts:
        what = f"no runs of {WHOLE} beside a control"
        raise ClipItError(what, "study own", "Leave out its `settings`")
    pairs = [(first, WHOLE) for first in firsts]
    pooled = [
        (POOLED, POOLED, *pair, *judgement(tables.pooled_gain(stored, *pair))) for pair in pairs
    ]
    cells = tables.gain_table(stored, pairs)
    return pd.concat([pd.DataFrame(pooled, columns=cells.columns), cells], ignore_index=True)


def headline(profile: Profile, datasets: Sequence[str]) -> str:
    """The title of the figure; it says so where all is drawn by a program."""
    phantom = all(isinstance(profile.data_settings(each), Phantom) for each in datasets)
    about = f"{profile.name}: {', '.join(datasets)}"
    return f"What CLIP-IT adds ({about}{'; a phantom, not tissue' if phantom else ''})"


def summary_words(found: pd.DataFrame, doubt: str = "") -> str:
    """The conclusion, then one Markdown item a reference, over all cells.

    Args:
        doubt: which runs have a doubtful course, if any: nothing is credited to text beside them.
    """
    pooled = found[found["dataset"] == POOLED].assign(said=tables.judged_words)
    items = [f"- {_sentence(row, bool(doubt))}" for _, row in pooled.iterrows()]
    cells = found[found["dataset"] != POOLED][tables.GAIN_CELL].drop_duplicates()
    listed = "; ".join(f"{dataset}, {backbone}" for dataset, backbone in cells.to_numpy())
    scope = f"Balanced accuracy on test, 95% intervals, mean over cells: {listed}."
    parts = [doubt, conclusion(pooled, bool(doubt)), "\n".join(items), scope, MANY]
    return "\n\n".join(filter(None, parts))


def _sentence(row: pd.Series, doubtful: bool) -> str:
    added = ADDED[row["first"]]
    doubt = ", but a doubtful course shows no help" if doubtful and row["word"] == "helps" else ""
    subject = added[0].upper() + added[1:] + (" add" if " and " in added else " adds")
    return f"{subject}, over {label(row['first'])}: {row['said']}{doubt}."


def conclusion(pooled: pd.DataFrame, doubtful: bool = False) -> str:
    """What the controls of the text say together: text helps only if it beats all that were run.

    Where a run has a doubtful course, a control may have failed in training: no help is claimed.
    """
    controls = pooled[pooled["first"].isin(CONTROLS)]
    names = controls["first"].map(label)
    helps = list(names[controls["word"] == Word.HELPS])
    if controls.empty:
        return "**No control of the text was run: what it contributed cannot be said.**"
    if doubtful and helps:
        return (
            "**The text is not shown to help here: some runs rest on a doubtful course.** As they "
            f"are, CLIP-IT helps over {', '.join(helps)}."
        )
    if len(helps) == len(controls):
        which = "every control" if set(controls["first"]) == set(CONTROLS) else "the controls run"
        return f"**The text helps here**: over {which} ({', '.join(helps)})."
    head = "The text is not shown to help here" if not helps else "Only a part is shown"
    if controls["word"].isin([Word.EQUIVALENT, Word.HURTS]).all():
        head = f"The text is worth less than {MARGIN:g} point here"
    return f"**{head}**. Over each control: {tables.by_word(controls, names)}."


def summary_table(found: pd.DataFrame) -> pd.DataFrame:
    """To read: one row a reference and cell; the pooled rows only where there are several cells."""
    cells = found[found["dataset"] != POOLED]
    shown = found
    if len(cells[tables.GAIN_CELL].drop_duplicates()) == 1:
        shown = found[found["dataset"] == POOLED].assign(**cells.iloc[0][tables.GAIN_CELL])
    return pd.DataFrame(
        {
            "data set": shown["dataset"],
            "backbone": shown["backbone"],
            "what is added": shown["first"].map(ADDED),
            "CLIP-IT over": shown["first"].map(label),
            "points": [str(Interval.of(row)) for _, row in shown.iterrows()],
            "word": shown["word"],
            "smallest found with 80%": shown["smallest"].map("{:.1f}".format),
        }
    )
