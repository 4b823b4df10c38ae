"""Tables, recomputed from the raw predictions of stored runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from clipit_lib import paper, paths
from clipit_lib.doubts import doubtful
from clipit_lib.encoders import backbones
from clipit_lib.errors import ClipItError
from clipit_lib.evaluation import accuracy, balanced_accuracy, correct
from clipit_lib.files import write_text, written_beside
from clipit_lib.runs import StoredRun
from clipit_lib.statistics import Cell, Interval, paired_bootstrap, pooled_bootstrap

CELL = ["dataset", "backbone"]


def run_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """One row a run: dataset, backbone, setting, seed, both accuracies on test (percent), run."""
    rows = [
        {
            "dataset": run.spec.dataset,
            "backbone": run.spec.backbone,
            "setting": run.spec.setting,
            "seed": run.spec.seed,
            "accuracy": accuracy(run.predictions()),
            "balanced_accuracy": balanced_accuracy(run.predictions()),
            "run": run.key,
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def gain(
    runs: Sequence[StoredRun], dataset: str, backbone: str, first: str, second: str, draws: int
) -> Interval:
    """Gain in balanced accuracy of setting `second` over `first` with its 95% interval.

    Raises:
        ClipItError: the two settings were not run with the same seeds.
    """
    _, cell = paired_cell(runs, dataset, backbone, first, second)
    return paired_bootstrap(
        cell.first, cell.second, cell.labels, cell.groups, draws, np.random.default_rng(0)
    )


def paired_cell(
    runs: Sequence[StoredRun], dataset: str, backbone: str, first: str, second: str
) -> tuple[list[int], Cell]:
    """The seeds of two settings in one cell, and what each gets right on test.

    Raises:
        ClipItError: the two settings were not run with the same seeds.
    """
    ours = [r for r in runs if (r.spec.dataset, r.spec.backbone) == (dataset, backbone)]
    frames = {
        name: {r.spec.seed: r.predictions() for r in ours if r.spec.setting == name}
        for name in (first, second)
    }
    seeds = sorted(frames[first])
    if not seeds or seeds != sorted(frames[second]):
        raise ClipItError(
            f"{first} has seeds {seeds}, {second} has {sorted(frames[second])}",
            f"{dataset}, {backbone}",
            "Run both settings with the same seeds",
        )
    hits = {n: np.stack([correct(frames[n][s]) for s in seeds]) for n in (first, second)}
    samples = frames[first][seeds[0]]
    groups = samples["group"].where(samples["group"] != "", samples["sample"])
    labels = samples["label"].to_numpy()
    return seeds, Cell(dataset, hits[first], hits[second], labels, groups.to_numpy())


def pooled_gain(runs: Sequence[StoredRun], first: str, second: str, draws: int) -> Interval | None:
    """Mean over cells of the gain of `second` over `first` with its 95% interval.

    The cells are those that have both settings with the same seeds; None if there is none.

    Raises:
        ClipItError: cells that differ in their seeds.
    """
    seeds: dict[tuple[str, str], dict[str, set[int]]] = {}
    for run in runs:
        cell = seeds.setdefault((run.spec.dataset, run.spec.backbone), {})
        cell.setdefault(run.spec.setting, set()).add(run.spec.seed)
    whole = [c for c, by in seeds.items() if by.get(first) and by[first] == by.get(second)]
    if not whole:
        return None
    if len({frozenset(seeds[cell][first]) for cell in whole}) > 1:
        said = "; ".join(f"{', '.join(cell)}: {sorted(seeds[cell][first])}" for cell in whole)
        raise ClipItError(
            f"cells differ in their seeds ({said})",
            f"{second} over {first}",
            "Run all cells with the same seeds",
        )
    cells = [paired_cell(runs, *cell, first, second)[1] for cell in whole]
    return pooled_bootstrap(cells, draws, np.random.default_rng(0))


def gain_table(
    runs: Sequence[StoredRun], pairs: Sequence[tuple[str, str]], draws: int
) -> pd.DataFrame:
    """One row a cell and pair of settings: dataset, backbone, first, second, gain, low, high."""
    cells = dict.fromkeys((r.spec.dataset, r.spec.backbone) for r in runs)
    rows = []
    for dataset, backbone in cells:
        for first, second in pairs:
            value = gain(runs, dataset, backbone, first, second, draws)
            rows.append([dataset, backbone, first, second, value.estimate, value.low, value.high])
    columns = [*CELL, "first", "second", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def summary_table(runs: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Table 1 to read: mean ± sd and the value of each seed a setting, then gains, then paper's."""
    rows = []
    for (dataset, backbone), cell in runs.groupby(CELL, sort=False):
        row: dict[str, str] = {"data set": str(dataset), "backbone": str(backbone)}
        for setting, values in cell.groupby("setting", sort=False)["balanced_accuracy"]:
            row[str(setting)] = describe(values.to_numpy())
        here = gains.query("dataset == @dataset and backbone == @backbone")
        for _, each in here.iterrows():
            interval = Interval(each["gain"], each["low"], each["high"])
            row[f"{each['second']} over {each['first']}"] = str(interval)
        row["paper's gain"] = _printed_gain(str(dataset), str(backbone))
        rows.append(row)
    return pd.DataFrame(rows)


def _printed_gain(dataset: str, backbone: str) -> str:
    """The paper's gain in the cell that a phantom's cell is named after."""
    mirrored, namesake = paper.MIRRORS.get(dataset), backbones.namesake(backbone)
    if mirrored is None or namesake is None:
        return "no such cell"
    printed = paper.gain(mirrored, namesake)
    return "no such cell" if printed is None else f"{printed:+.1f} ({namesake}, {mirrored})"


def describe(values: np.ndarray) -> str:
    """`mean ± sd (each value)`; the standard deviation is that of the sample."""
    each = ", ".join(f"{value:.1f}" for value in values)
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread} ({each})"


def save(profile: str, name: str, tidy: pd.DataFrame, text: str, runs: Sequence[str]) -> None:
    """Write NAME.csv, NAME.md and the keys of the runs behind them, NAME.runs.json.

    The text ends with the runs whose course is doubtful, which are printed too, unless it has them.
    """
    folder, text = paths.tables(profile), with_doubts(profile, text, runs)
    write_text(folder / f"{name}.csv", tidy.to_csv(index=False, float_format="%.4f"))
    write_text(folder / f"{name}.md", text.rstrip() + "\n")
    write_text(folder / f"{name}.runs.json", json.dumps(sorted(runs), indent=1) + "\n")


def with_doubts(profile: str, text: str, runs: Sequence[str]) -> str:
    """A text that rests on runs, and after it those whose course is doubtful, printed as well."""
    doubt = doubtful(profile, runs)
    if not doubt or doubt in text:
        return text
    print(doubt)
    return f"{text.rstrip()}\n\n{doubt}"


def save_pairs(profile: str, dataset: str, pairs: pd.DataFrame) -> None:
    """Keep the whole pairing table of a data set."""
    with written_beside(paths.results(profile) / "pairing" / f"{dataset}.parquet") as temporary:
        pairs.to_parquet(temporary, index=False)


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table; text from data is escaped."""
    rule = "|" + "---|" * len(frame.columns)
    rows = [_markdown_row(list(row)) for row in frame.to_numpy()]
    return "\n".join([_markdown_row(list(frame.columns)), rule, *rows])


def escaped(value: object) -> str:
    """Text from data for Markdown, in a cell too: one line, no markup of HTML, no formula."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(str(value).splitlines()))
    return text.replace("<", "&lt;").replace("|", "\\|").replace("$", "\\$")


def _markdown_row(values: Sequence[object]) -> str:
    return f"| {' | '.join(map(escaped, values))} |"
