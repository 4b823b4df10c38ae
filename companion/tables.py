"""Tables, each written with the runs behind it, and what they say in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text, written_beside
from clipit_lib.runs import StoredRun
from companion import paper, paths, rehearsal
from companion.archived import NAMES, SLIDES, by_others, noted
from companion.profile import Workbench
from companion.specs import label
from companion.statistics import (
    JUDGED,
    MARGIN,
    Cell,
    Gain,
    Word,
    accuracy,
    balanced_accuracy,
    brier,
    correct,
    crossed_difference,
    crossed_gain,
    each_interval,
    judgement,
    scores,
    units,
)

# -- What a table, a figure or a summary says where runs behind it have a doubtful course.

NAMED = 5  # so many runs are named; the others are counted


def doubtful(profile: str, keys: Sequence[str], listed: bool = True) -> str:
    """One line that counts the runs among `keys` whose course is doubtful; "" if there is none.

    Args:
        listed: whether to say why and name the first of them, as Markdown.
    """
    found = []
    for key, run in noted(paths.results(profile), keys).items():
        if run.get("doubtful") is True:  # not where that is not known
            about = [run[name] for name in NAMES[:3] if run.get(name) not in (None, "", SLIDES)]
            found.append(f"{', '.join(about)}, seed {run['seed']} ({key})")
    if not found:
        return ""
    rests, each = ("run rests", "its") if len(set(keys)) == 1 else ("runs rest", "each one's")
    said = f"{len(found)} of {len(set(keys))} {rests} on a doubtful course"
    if not listed:
        return f"{said}: see the table"
    rest = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"**{said}** (no look at validation was better than the start, or the training loss rose; "
        f"{each} `done.json` says which): {'; '.join(found[:NAMED])}{rest}."
    )


# -- Tables, recomputed from the raw predictions of stored runs.

GAIN_CELL = ["dataset", "backbone"]
PAIR = ["first", "second"]
TO_READ = {"dataset": "data set", "balanced_accuracy": "balanced accuracy (%)"}


def by_cell(runs: Iterable[StoredRun]) -> dict[tuple[str, str], list[StoredRun]]:
    """Runs by data set and backbone."""
    cells: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        cells.setdefault((run.spec.dataset, run.spec.backbone), []).append(run)
    return cells


def run_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """One row per run: dataset, backbone, setting, seed, both accuracies on test (percent), run."""
    rows = [
        (own.dataset, own.backbone, own.setting, own.seed, accuracy(said), balanced_accuracy(said),
         run.key)
        for run in runs
        for own, said in [(run.spec, run.predictions())]
    ]  # fmt: skip
    columns = [*GAIN_CELL, "setting", "seed", "accuracy", "balanced_accuracy", "run"]
    return pd.DataFrame(rows, columns=columns)


def paired_cell(
    runs: Sequence[StoredRun], dataset: str, backbone: str, first: str, second: str
) -> tuple[list[int], Cell]:
    """The seeds of two settings in one cell, and what each gets right on test.

    Raises:
        ClipItError: the two settings were not run with the same seeds.
    """
    ours = by_cell(runs)[dataset, backbone]
    frames = {
        name: {r.spec.seed: r.predictions() for r in ours if r.spec.setting == name}
        for name in (first, second)
    }
    seeds = sorted(frames[first])
    if not seeds or seeds != sorted(frames[second]):
        what = f"{first} has seeds {seeds}, {second} has {sorted(frames[second])}"
        raise ClipItError(what, f"{dataset}, {backbone}", "Run both settings with the same seeds")
    hits = {n: np.stack([correct(frames[n][s]) for s in seeds]) for n in (first, second)}
    samples = frames[first][seeds[0]]
    labels = samples["label"].to_numpy()
    return seeds, Cell(dataset, hits[first], hits[second], labels, units(samples))


def pooled_gain(runs: Sequence[StoredRun], first: str, second: str) -> Gain:
    """Mean over cells of the gain of `second` over `first`.

    The cells are those that have both settings with the same seeds.

    Raises:
        ClipItError: there is no such cell, or cells differ in their seeds.
    """
    held = {
        cell: [{r.spec.seed for r in own if r.spec.setting == name} for name in (first, second)]
        for cell, own in by_cell(runs).items()
    }
    whole = {cell: sorted(one) for cell, (one, other) in held.items() if one and one == other}
    where = f"{second} over {first}"
    if not whole:
        raise ClipItError("they share no seeds", where, "Give both the same seeds")
    if len({tuple(seeds) for seeds in whole.values()}) > 1:
        said = "; ".join(f"{', '.join(cell)}: {seeds}" for cell, seeds in whole.items())
        what = f"cells differ in their seeds ({said})"
        raise ClipItError(what, where, "Run all cells with the same seeds")
    return crossed_gain([paired_cell(runs, *cell, first, second)[1] for cell in whole])


def gain_table(runs: Sequence[StoredRun], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The gain in balanced accuracy of `second` over `first` in each cell, as it is judged.

    One row per cell and pair of settings (see `paired_cell`): dataset, backbone, first, second and
    `statistics.JUDGED`.
    """
    rows = [
        (*cell, *pair, *judgement(crossed_gain([paired_cell(runs, *cell, *pair)[1]])))
        for cell, pair in product(by_cell(runs), pairs)
    ]
    return pd.DataFrame(rows, columns=[*GAIN_CELL, *PAIR, *JUDGED])


def judged(gains: pd.DataFrame) -> pd.Series:
    """Each gain with its 95% interval and its word."""
    return each_interval(gains).map(str) + " " + gains["word"]


def summary_table(runs: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Table 1 to read: mean ± sd and the value of each seed a setting, then gains, then paper's."""
    over = gains["second"] + " over " + gains["first"]
    found = gains.assign(over=over, said=judged(gains))
    table = runs.pivot_table("balanced_accuracy", GAIN_CELL, "setting", describe, sort=False)
    table = table.join(found.pivot_table("said", GAIN_CELL, "over", "first", sort=False))
    table["paper's gain"] = [_printed_gain(*cell) for cell in table.index]
    return table.reset_index().rename(columns=TO_READ)


def namesake(name: str) -> str | None:
    """The paper's vision backbone that one stands for: none for a CLIP."""
    row = registry.ENCODERS.get(name)
    return row.namesake if row and not row.text_targets else None


def _printed_gain(dataset: str, backbone: str) -> str:
    """The paper's gain in the cell that a phantom's cell is named after."""
    mirrored, named = paper.MIRRORS.get(dataset), namesake(backbone)
    printed = paper.gains().get((mirrored, named))
    return "no such cell" if printed is None else f"{printed:+.1f} ({named}, {mirrored})"


def describe(of_runs: pd.Series) -> str:
    """`mean ± sd (each value)`; the standard deviation is that of the sample."""
    values = of_runs.to_numpy()
    each = ", ".join(f"{value:.1f}" for value in values)
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread} ({each})"


def save_table(
    profile: str, name: str, tidy: pd.DataFrame, text: str, runs: Sequence[str],
    folder: Path | None = None,
) -> None:  # fmt: skip
    """Write NAME.csv, NAME.md and the keys of the runs behind them, NAME.runs.json.

    The text ends with what runs are doubtful or others', which is printed too, unless it has that.

    Args:
        folder: by default that of the profile's tables.
    """
    folder = folder or paths.tables(profile)
    if rehearsal.named(profile) and rehearsal.MARK not in text:
        text = f"{rehearsal.MARK}\n\n{text}"
    for said in (doubtful(profile, runs), by_others(paths.results(profile), runs)):
        if said not in text:
            print(said)
            text = f"{text.rstrip()}\n\n{said}"
    write_text(folder / f"{name}.csv", tidy.to_csv(index=False, float_format="%.4f"))
    write_text(folder / f"{name}.md", text.rstrip() + "\n")
    write_runs(folder, name, runs)


def write_runs(folder: Path, name: str, runs: Sequence[str]) -> None:
    """Write NAME.runs.json: the keys of the runs behind what is beside it."""
    write_text(folder / f"{name}.runs.json", json.dumps(sorted(runs), indent=1) + "\n")


def save_pairs(profile: str, dataset: str, pairs: pd.DataFrame) -> None:
    """Keep the whole pairing table of a data set."""
    with written_beside(paths.results(profile) / "pairing" / f"{dataset}.parquet") as temporary:
        pairs.to_parquet(temporary, index=False)


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table; text from data is escaped."""
    head, *rows = (
        f"| {' | '.join(map(escaped, row))} |" for row in (frame.columns, *frame.to_numpy())
    )
    return "\n".join([head, "|" + "---|" * len(frame.columns), *rows])


def escaped(value: object) -> str:
    """Text from data for Markdown, in a cell too: one line, no markup of HTML, no formula."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(str(value).splitlines()))
    return text.replace("<", "&lt;").replace("|", "\\|").replace("$", "\\$")


# -- Results in words, written from the numbers.


def filled(rows: pd.DataFrame, words: str) -> list[str]:
    """The words once per row, with its values in the places of their columns."""
    return [words.format_map(row) for _, row in rows.iterrows()]


def items(rows: pd.DataFrame, words: str) -> str:
    """One Markdown item per row, of `filled`."""
    return "\n".join(filled(rows, f"- {words}"))


def items_by(rows: pd.DataFrame, columns: list[str], said: Callable[[pd.DataFrame], str]) -> str:
    """One Markdown item per group of rows: what it has in these columns, and what is said of it."""
    groups = rows.groupby(columns, sort=False)
    return "\n".join(f"- {', '.join(map(str, names))}{said(own)}" for names, own in groups)


def gain_sentences(gains: pd.DataFrame) -> str:
    """One Markdown item per row of `gain_table`."""
    rows = gains.assign(against=_against(gains), said=judged_words(gains))
    return items(rows, "{dataset}, {backbone}: {against} {said}.")


def judged_words(gains: pd.DataFrame) -> pd.Series:
    """Each gain with its interval, its word, and what the design could have seen."""
    seen = gains["smallest"].map(
        "a gain of {:.1f} would have been found with a power of 80%".format
    )
    more = np.ceil((gains["smallest"] / MARGIN) ** 2)
    more = more.map(f", one of {MARGIN:g} with {{:.0f}} times the seeds and patients".format)
    more = more.where((gains["word"] == Word.UNDECIDED) & np.isfinite(gains["smallest"]), "")
    return each_interval(gains).map(str) + " points, **" + gains["word"] + "**; " + seen + more


def by_word(rows: pd.DataFrame, names: pd.Series) -> str:
    """The names of rows by their words, the decided first."""
    found = {word: ", ".join(names[rows["word"] == word]) for word in Word}
    return "; ".join(f"**{word}**: {named}" for word, named in found.items() if named)


def pattern_sentence(stored: Sequence[StoredRun], gains: pd.DataFrame) -> str:
    """What CLIP-IT's gains over each baseline are called, cell by cell and over all cells."""
    parts = []
    for first, rows in gains.groupby("first", sort=False):
        pooled = pooled_gain(stored, str(first), str(rows["second"].iloc[0]))
        counts = ", ".join(f"{word} in {(rows['word'] == word).sum()}" for word in Word)
        table = pd.DataFrame([judgement(pooled)], columns=JUDGED)
        parts.append(
            f"Over {label(str(first))}, of {len(rows)} cells CLIP-IT {counts}; over all of them "
            f"{judged_words(table)[0]}."
        )
    return "\n\n".join(parts)


def paper_sentence(dataset: str) -> str:
    """What the paper's numbers can and cannot say about this data set."""
    mirrored = paper.MIRRORS.get(dataset)
    if mirrored is None:
        return f"The paper has no results on {dataset}: there is no number to put beside ours."
    gain = f"is {paper.gains()[mirrored].mean():+.1f} points."
    if dataset == mirrored.lower():
        return f"The paper's mean gain on {mirrored} {gain}"
    return (
        f"The paper's mean gain on {mirrored}, which {dataset} mirrors, {gain} Its accuracies are "
        "of tissue, ours of a phantom."
    )


def caveats(bench: Workbench, datasets: Iterable[str], retrievers: Iterable[str] = ()) -> str:
    """What a reader must know of the retrievers (by default the profile's) and the data sets."""
    names = tuple(retrievers) or (bench.profile.retriever,)
    said = [registry.entry(name, clip=True).caveat for name in names]
    said += sorted({bench.limits(name) for name in datasets})
    return "\n\n".join(dict.fromkeys(text for text in said if text))


def map_words(gains: pd.DataFrame) -> str:
    """One Markdown item per axis and control: at which points the gain has which word."""
    over = "over " + gains["control"].map(label)
    return items_by(
        gains.assign(over=over), ["axis", "over"], lambda rows: f": {by_word(rows, rows['point'])}."
    )


# -- The gain of CLIP-IT over the probe, split into what each step adds.

# From the probe to CLIP-IT, one change at a time; each step is named after what it adds.
STEPS = (
    ("LoRA", "unimodal", "lora_only"),
    ("the branch, no text", "lora_only", "clip_it/architecture_only"),
    ("any report as target", "clip_it/architecture_only", "clip_it/random_reports"),
    ("the matched report", "clip_it/random_reports", "clip_it"),
)
WHOLE = ("all together", "unimodal", "clip_it")


def decomposition(stored: Sequence[StoredRun]) -> pd.DataFrame:
    """One row per cell and step: the columns of `gain_table`, and step.

    The steps of a cell sum to its whole.
    """
    frames = []
    for step, first, second in (*STEPS, WHOLE):
        pair = [run for run in stored if run.spec.setting in (first, second)]
        frames.append(gain_table(pair, [(first, second)]).assign(step=step))
    return pd.concat(frames, ignore_index=True)


def decomposition_words(found: pd.DataFrame) -> str:
    """One Markdown item per cell: every step with its interval and its word."""

    def said(rows: pd.DataFrame) -> str:
        return f": {'; '.join(rows['step'] + ' ' + judged(rows))}."

    return items_by(found, GAIN_CELL, said)


# -- Settings compared within each cell: accuracies, differences to a reference, words.

MANY = (
    "Each word stands for itself: of twenty comparisons without any effect, one is expected to be "
    "called helps or hurts."
)
LABELS = ("labels_", "passes_", "label_noise_", "pair_noise_")  # changes what is learned from


@dataclass(frozen=True)
class Comparison:
    """What one study found.

    Attributes:
        reference: the setting that all others are compared with.
        runs: one row per run, as `tables.run_table`.
        gains: one row per cell and setting, as `tables.gain_table`, over the reference.
    """

    reference: str
    runs: pd.DataFrame
    gains: pd.DataFrame

    @property
    def keys(self) -> list[str]:
        """The runs behind it."""
        return [str(key) for key in self.runs["run"]]

    def only(self, settings: Sequence[str]) -> Comparison:
        """The part of it that concerns some settings and the reference."""
        runs = self.runs[self.runs["setting"].isin([*settings, self.reference])]
        return Comparison(self.reference, runs, self.gains[self.gains["second"].isin(settings)])


def beside(reference: str, stored: Sequence[StoredRun]) -> list[tuple[str, str]]:
    """Each other setting, after the reference with the same labels; none where that was not run."""
    names, pairs = dict.fromkeys([reference, *(run.spec.setting for run in stored)]), []
    for name in names:
        first = "/".join([reference, *(p for p in name.split("/") if p.startswith(LABELS))])
        pairs.append((first, name))
    return [(first, name) for first, name in pairs if first in names and first != name]


def compare(stored: Sequence[StoredRun], reference: str) -> Comparison:
    """Compare every setting of a cell with `reference`, cell by cell: see `beside`."""
    gains = [gain_table(cell, beside(reference, cell)) for cell in by_cell(stored).values()]
    return Comparison(reference, run_table(stored), pd.concat(gains, ignore_index=True))


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """To read: one row per cell and setting, mean ± sd and each seed, difference and interval."""
    columns, over = [*GAIN_CELL, "setting"], f"over {label(comparison.reference)}"
    gains = comparison.gains.rename(columns={"second": "setting"}).set_index(columns)
    accuracies = comparison.runs.groupby(columns, sort=False)["balanced_accuracy"]
    table = accuracies.agg(describe).to_frame()
    table[over] = judged(gains).reindex(table.index, fill_value="")
    shown = table.reset_index().assign(setting=lambda rows: rows["setting"].map(label))
    return shown.rename(columns=TO_READ)


def comparison_words(comparison: Comparison) -> str:
    """One item per cell: which settings help, hurt, are equivalent to the reference, or undecided.

    Ends with what many comparisons beside each other mean.
    """

    def said(rows: pd.DataFrame) -> str:
        names = rows["second"].map(label) + " " + each_interval(rows).map(str)
        alike = "" if (rows["first"] == comparison.reference).all() else ", with the same labels"
        return f", against {label(comparison.reference)}{alike}: {by_word(rows, names)}."

    return items_by(comparison.gains, GAIN_CELL, said) + "\n\n" + MANY


# -- Tests shown for transparency; conclusions rest on the intervals of `statistics`.

LEVEL = 0.05


def mcnemar(
    first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]
) -> tuple[int, int, float]:
    """Exact McNemar test that both classifiers are right equally often (in plain accuracy).

    Under that null each sample on which they differ is a fair coin. It takes samples as
    independent: where many patches come from one patient, p is too small.

    Returns:
        How many samples only the first has right and only the second; the two-sided p-value.
    """
    from scipy.stats import binomtest  # slow to import

    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    differ = lost + gained
    return lost, gained, float(binomtest(gained, differ).pvalue) if differ else 1.0


def holm(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """p-values of a family adjusted by Holm's step-down, in the order given.

    The i-th smallest of k is multiplied by k - i + 1, made no smaller than the one before it and
    at most 1. Rejecting those below a level keeps the chance of any false rejection below that
    level, whatever the dependence between the tests.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def fisher_as_in_the_paper(p: Float[np.ndarray, " k"]) -> float:
    """Fisher's combined probability test: -2 sum(log p) against chi-square with 2k degrees.

    The paper reports one; it does not say which tests it combines. Nothing should rest on it
    here. It supposes independent p-values, but all seeds and backbones of a data set are tested
    on the same samples: one piece of luck in them is counted once a run, and the result tends to
    be too small. A p-value with two sides does not know a gain from a loss either: both lower it.
    """
    from scipy.stats import combine_pvalues  # slow to import

    # An exact p-value can be too small for a float; the logarithm must stay finite.
    return float(combine_pvalues(np.clip(p, np.finfo(float).tiny, 1.0), method="fisher").pvalue)


def seed_tests(runs: Sequence[StoredRun], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """McNemar's test of each cell, pair of settings (`paired_cell`) and seed, adjusted over all.

    Returns one row per test: dataset, backbone, first, second, seed, lost, gained, p, p_holm.
    """
    rows = []
    for cell, pair in product(by_cell(runs), pairs):
        seeds, hits = paired_cell(runs, *cell, *pair)
        for seed, before, after in zip(seeds, hits.first, hits.second, strict=True):
            rows.append((*cell, *pair, seed, *mcnemar(before, after)))
    tests = pd.DataFrame(rows, columns=[*GAIN_CELL, *PAIR, "seed", "lost", "gained", "p"])
    return tests.assign(p_holm=holm(tests["p"].to_numpy(dtype=float)))


def in_text(tests: pd.DataFrame) -> pd.DataFrame:
    """The same with p-values written to four digits, however small, for a csv file."""
    return tests.assign(**{name: tests[name].map("{:.4g}".format) for name in ("p", "p_holm")})


def seed_table(tests: pd.DataFrame) -> pd.DataFrame:
    """To read: one row per cell and comparison, a column per seed: `-lost +gained: p (p_holm)`."""
    shown = tests.assign(
        comparison=_against(tests),
        seed="seed " + tests["seed"].astype(str),
        said=filled(tests, "-{lost} +{gained}: {p:.2g} ({p_holm:.2g})"),
    )
    cells = [*GAIN_CELL, "comparison"]
    table = shown.pivot_table("said", cells, "seed", aggfunc="first", sort=False)
    return table.reset_index().rename(columns=TO_READ)


def fisher_table(tests: pd.DataFrame) -> pd.DataFrame:
    """To read: the combination "as in the paper" of all backbones and seeds on a data set."""
    groups = tests.assign(comparison=_against(tests)).groupby(["dataset", "comparison"], sort=False)
    table = groups.agg(tests=("p", "size"), lost=("lost", "sum"), gained=("gained", "sum"))
    combined = groups["p"].agg(lambda p: f"{fisher_as_in_the_paper(p.to_numpy()):.2g}")
    table["Fisher's p, as in the paper"] = combined
    return table.reset_index().rename(columns=TO_READ)


def family_words(tests: pd.DataFrame) -> str:
    """What the family of Holm's adjustment is, and what is left after it."""
    kept = tests[tests["p_holm"] < LEVEL]
    gains, losses = (kept["gained"] > kept["lost"]).sum(), (kept["gained"] < kept["lost"]).sum()
    cells, seeds = len(tests[GAIN_CELL].drop_duplicates()), tests["seed"].nunique()
    compared = len(tests[PAIR].drop_duplicates())
    return (
        f"The family is every test in this table: {len(tests)}, from {cells} cells (data set x "
        f"backbone), {seeds} seeds and {compared} comparisons. Tests with p below {LEVEL}, each "
        f"taken alone: {(tests['p'] < LEVEL).sum()}; adjusted over the family: {len(kept)} "
        f"(gains: {gains}, losses: {losses})."
    )


def _against(rows: pd.DataFrame) -> pd.Series:
    return rows["second"].map(label) + " over " + rows["first"].map(label)


# -- Beside accuracy: proper scores, which see more than hits do.


def score_table(runs: Sequence[StoredRun], reference: str) -> pd.DataFrame:
    """One row per cell and setting: `statistics.scores`, averaged over seeds, and how far its Brier
    score (times 100) lies from the reference's, with the 95% interval of the crossed model.

    Columns: dataset, backbone, setting, those of the scores, brier_gain, low, high.
    """
    rows = []
    for cell, own in by_cell(runs).items():
        found: dict[str, dict[int, pd.DataFrame]] = {}
        for run in own:
            found.setdefault(run.spec.setting, {})[run.spec.seed] = run.predictions()
        each = {name: 100 * np.stack([brier(said[seed]) for seed in sorted(said)])
                for name, said in found.items()}  # fmt: skip
        references = {second: first for first, second in beside(reference, own)}
        for name, said in found.items():
            means = pd.DataFrame(map(scores, said.values())).mean().to_dict()
            ends, first = (float("nan"),) * 3, references.get(name, name)
            if name != first and len(said) > 1 and sorted(said) == sorted(found[first]):
                gain = crossed_difference(each[first], each[name], units(next(iter(said.values()))))
                ends = astuple(gain.interval())
            rows.append(dict(zip([*GAIN_CELL, "setting"], [*cell, name], strict=True)) | means
                        | dict(zip(["brier_gain", "low", "high"], ends, strict=True)))  # fmt: skip
    return pd.DataFrame(rows)


def recall_table(runs: Sequence[StoredRun], reference: str) -> pd.DataFrame:
    """What `reference` gains over each other setting in the recall of each class, in points.

    Columns: dataset, backbone, second, first, class (its number), gain with its 95% interval by the
    crossed model (low, high), p, and p_holm, adjusted over the whole table.
    """
    rows: list[tuple[Any, ...]] = []
    for (dataset, backbone), own in by_cell(runs).items():
        for second, first in beside(reference, own):
            _, cell = paired_cell(runs, dataset, backbone, first, second)
            for number in np.unique(cell.labels):
                of = cell.labels == number
                gain = crossed_difference(
                    100.0 * cell.first[:, of], 100.0 * cell.second[:, of], cell.groups[of]
                )
                ends = astuple(gain.interval())
                rows.append((dataset, backbone, second, first, number, *ends, gain.p))
    columns = [*GAIN_CELL, "second", "first", "class", "gain", "low", "high", "p"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p_holm=holm(found["p"].to_numpy(dtype=float)))
