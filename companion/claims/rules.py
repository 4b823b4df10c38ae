"""The paper's claims as rules, and how stored results are judged by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy import stats

from clipit_lib import paths, runs
from clipit_lib.files import whole
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec, Strict
from companion import archive, paper, studies, tables
from companion.cost.measure import MERGED, UNIMODAL
from companion.measures import Hits, aligned_hits, matched
from companion.paper import HERE
from companion.profile import Workbench
from companion.reading import read_strict
from companion.specs import label
from companion.statistics import Cell, Interval, pooled_bootstrap
from companion.survival import study
from companion.survival.study import SurvivalRun

# -- The claims of `paper/claims.yaml`: one class a kind of rule.


class Stated(Strict):
    """What every claim says of itself.

    Attributes:
        where: table, figure or section of the paper.
        paper: what the paper finds, in words.
        paper_gain: the same as one difference in points, where the paper has it.
        note: what a reader of the verdict must know.
    """

    id: str
    claim: str
    where: str
    paper: str
    paper_gain: float | None = None
    note: str | None = None


class Compared(Stated):
    """A claim on settings of one study; `datasets` limits it to those that the profile has."""

    study: str
    datasets: tuple[str, ...] = ()


class Pair(Compared):
    """A claim on the gain of `second` over `first`."""

    second: str
    first: str

    @property
    def settings(self) -> tuple[str, ...]:
        return (self.first, self.second)


class Gain(Pair):
    kind: Literal["gain"]

    @property
    def rule(self) -> str:
        return "reproduced: interval above zero; direction only: estimate above zero"


class Equal(Pair):
    kind: Literal["equal"]
    margin: float

    @property
    def rule(self) -> str:
        within = f"within {-self.margin:g} to {self.margin:+g}"
        return f"reproduced: interval {within}; direction only: estimate {within}"


class NotWorse(Pair):
    kind: Literal["not_worse"]
    margin: float

    @property
    def rule(self) -> str:
        least = f"above {-self.margin:g}"
        return f"reproduced: interval {least}; direction only: estimate {least}"


class ShareHigher(Pair):
    kind: Literal["share_higher"]
    share: float

    @property
    def rule(self) -> str:
        return (
            f"reproduced: at least {self.share:.0%} of the cells are higher; direction only: more "
            "than half"
        )


class NoLoss(Pair):
    kind: Literal["no_loss"]

    @property
    def rule(self) -> str:
        return "reproduced: no cell's interval is below zero; direction only: at most a tenth are"


class Gains(Compared):
    """A gain of `second` over each of several settings."""

    kind: Literal["gains"]
    second: str
    firsts: tuple[str, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        return (*self.firsts, self.second)

    @property
    def rule(self) -> str:
        return (
            "over each setting, reproduced: interval above zero; direction only: estimate above "
            "zero; the weakest verdict counts"
        )


class Falling(Compared):
    """An accuracy that falls along `order`."""

    kind: Literal["falling"]
    order: tuple[str, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        return self.order

    @property
    def rule(self) -> str:
        return (
            "reproduced: mean accuracy falls with rank (Spearman below -0.5) and the first is over "
            "the last with its interval above zero; direction only: either"
        )


class Own(Stated):
    """A claim with a rule of its own: a function of this name in `own`."""

    kind: Literal["own"]
    rule: str


InPoints = Gain | Equal | NotWorse | Gains | Falling  # ours is a difference in points
Claim = Gain | Equal | NotWorse | ShareHigher | NoLoss | Gains | Falling | Own


class Claims(Strict):
    """All claims, and which runs of a profile had been made when the rules were written."""

    seen: dict[str, str]
    claims: tuple[Annotated[Claim, Field(discriminator="kind")], ...]

    @model_validator(mode="after")
    def _each_once(self) -> Claims:
        names = [claim.id for claim in self.claims]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"claims named twice: {', '.join(twice)}")
        return self


def load_claims(path: Path = HERE / "claims.yaml") -> Claims:
    """Read the claims.

    Raises:
        ClipItError: an unknown key or kind, a value of the wrong type, a claim named twice.
    """
    claims: Claims = read_strict(path, Claims)
    return claims


# -- The stored runs and tables of a profile that a claim can be judged by; nothing is trained.


class Untestable(Exception):
    """A claim that a profile cannot test; the message says why in a word."""


class Shelf:
    """What one profile has stored."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._specs: dict[str, list[RunSpec]] = {}
        self._found: dict[str, StoredRun | None] = {}

    @property
    def profile(self) -> str:
        return self.bench.profile.name

    @property
    def draws(self) -> int:
        """Draws of each bootstrap."""
        return self.bench.profile.bootstrap_draws

    def runs(
        self, study: str, settings: Sequence[str], datasets: Sequence[str] = ()
    ) -> list[StoredRun]:
        """The runs of some settings, in the cells of a study that have all of them.

        Args:
            datasets: those that count; all if empty.

        Raises:
            Untestable: the profile has no such study, data set, setting or run.
        """
        specs = self._specs_of(study)
        if datasets:
            specs = [spec for spec in specs if spec.dataset in datasets]
            if not specs:
                raise Untestable("no such data set in the profile")
        held = _settings_by_cell(specs)
        for setting in settings:
            if not any(setting in cell for cell in held.values()):
                raise Untestable(f"{setting} not in the profile's {study}")
        complete = [cell for cell, names in held.items() if names >= set(settings)]
        if not complete:
            raise Untestable(f"no cell of {study} has all of {', '.join(settings)}")
        return self._stored(
            spec
            for spec in specs
            if spec.setting in settings and (spec.dataset, spec.backbone) in complete
        )

    def settings(self, study: str) -> set[str]:
        """All settings of a study.

        Raises:
            Untestable: the profile does not have it.
        """
        return {spec.setting for spec in self._specs_of(study)}

    def table(self, name: str) -> pd.DataFrame:
        """A table of the profile.

        Raises:
            Untestable: it has not been made.
        """
        path = paths.tables(self.profile) / f"{name}.csv"
        if not path.exists():
            raise Untestable(f"no table {name}")
        with whole(path, "Run the notebook that writes it again"):
            return pd.read_csv(path)

    def keys_behind(self, table: str) -> tuple[str, ...]:
        """Keys of the runs behind a table."""
        path = paths.tables(self.profile) / f"{table}.runs.json"
        return tuple(archive.keys(path)) if path.exists() else ()

    def _specs_of(self, study: str) -> list[RunSpec]:
        if not studies.asked(self.bench.profile, study):
            raise Untestable(f"{study} not in the profile")
        if study not in self._specs:
            self._specs[study] = studies.runs_of(self.bench, study)
        return self._specs[study]

    def _stored(self, specs: Iterable[RunSpec]) -> list[StoredRun]:
        found = {spec.key: self._find(spec.key) for spec in specs}
        missing = sum(run is None for run in found.values())
        if missing:
            raise Untestable(f"runs missing ({missing} of {len(found)})")
        return [run for run in found.values() if run is not None]

    def _find(self, key: str) -> StoredRun | None:
        if key not in self._found:
            self._found[key] = runs.find(self.profile, key)
        return self._found[key]


def _settings_by_cell(specs: Sequence[RunSpec]) -> dict[tuple[str, str], set[str]]:
    held: dict[tuple[str, str], set[str]] = {}
    for spec in specs:
        held.setdefault((spec.dataset, spec.backbone), set()).add(spec.setting)
    return held


# -- From numbers to a verdict: one pure function a kind of rule.


class Verdict(StrEnum):
    """Verdicts, the strongest first."""

    REPRODUCED = "reproduced"
    DIRECTION = "direction only"
    NOT = "not reproduced"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class Finding:
    """A verdict and what it rests on.

    Attributes:
        ours: the number that was judged, with its interval where it has one.
        reason: what a reader needs beside the number; why, if the claim is not testable.
        runs: keys of the runs behind it.
    """

    verdict: Verdict
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    runs: tuple[str, ...] = ()


def of(sure: bool, direction: bool) -> Verdict:
    """Reproduced if sure, else by the direction."""
    if sure:
        return Verdict.REPRODUCED
    return Verdict.DIRECTION if direction else Verdict.NOT


def gain(value: Interval) -> Verdict:
    return of(value.low > 0, value.estimate > 0)


def equal(value: Interval, margin: float) -> Verdict:
    return of(-margin <= value.low and value.high <= margin, abs(value.estimate) <= margin)


def not_worse(value: Interval, margin: float) -> Verdict:
    return of(value.low > -margin, value.estimate > -margin)


def share_higher(gains: Sequence[float], share: float) -> Verdict:
    """By the gains of all cells."""
    higher = sum(gain > 0 for gain in gains) / len(gains)
    return of(higher >= share, higher > 0.5)


def no_loss(highs: Sequence[float]) -> Verdict:
    """By the upper ends of the intervals of all cells."""
    losses = sum(high < 0 for high in highs)
    return of(losses == 0, 10 * losses <= len(highs))


def weakest_of(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=list(Verdict).index)


def falling(correlation: float, first_over_last: Interval) -> Verdict:
    """By Spearman's correlation of rank and mean accuracy; its rounding errors do not count."""
    falls, above = round(correlation, 9) < -0.5, first_over_last.low > 0
    return of(falls and above, falls or above)


# -- The rules of claims that no general kind fits: one function a claim, named as it.


MOST_MACS = 0.001  # 10^9 multiply-adds, which the paper calls GFLOPs


def pareto(shelf: Shelf) -> Finding:
    """Figure 3: the share of CLIP-IT among the models on the frontiers of parameters."""
    table = shelf.table("pareto")
    models = table.drop_duplicates(["dataset", "backbone", "setting"])
    front = models.loc[models["on_front_parameters"], "setting"]
    ours = int((front == "clip_it").sum())
    share = ours / len(front)
    said = f"{ours} of {len(front)} models on the frontiers"
    return Finding(of(share >= 0.75, share >= 0.5), share, reason=said, runs=_runs(table))


def omega_largest_on_pcam(shelf: Shelf) -> Finding:
    """Figure 4: omega (percent), averaged over backbones, on each data set."""
    text = shelf.runs("complementarity", ["text"])
    here = {(run.spec.dataset, run.spec.seed) for run in text}
    probes = shelf.runs("table1", ["unimodal"], sorted({dataset for dataset, _ in here}))
    vision = [run for run in probes if (run.spec.dataset, run.spec.seed) in here]
    omegas = {
        dataset: _omega([p for p in matched(vision, text) if p[0].spec.dataset == dataset], shelf)
        for dataset in dict.fromkeys(run.spec.dataset for run in vision)
    }
    ours = next((name for name in omegas if _mirrors(name) == "PCAM"), None)
    if ours is None or len(omegas) < 2:
        raise Untestable("no PCAM beside another data set")
    value = omegas[ours]
    others = {name: omega.estimate for name, omega in omegas.items() if name != ours}
    most = max(others.values())
    said = "others: " + ", ".join(f"{name} {omega:.1f}" for name, omega in others.items())
    keys = tuple(run.key for run in (*text, *vision))
    verdict = of(value.estimate > most and value.low > most, value.estimate > most)
    return Finding(verdict, value.estimate, value.low, value.high, said, keys)


def _mirrors(dataset: str) -> str:
    """The paper's data set that one of ours is, or is made after."""
    return paper.MIRRORS.get(dataset, dataset.upper())


def _omega(pairs: list[tuple[StoredRun, StoredRun]], shelf: Shelf) -> Interval:
    """Equation 5 in percent, averaged over backbones, as a gain over never in one class."""
    cells = []
    for backbone in dict.fromkeys(vision.spec.backbone for vision, _ in pairs):
        frames = [
            (v.predictions(), t.predictions()) for v, t in pairs if v.spec.backbone == backbone
        ]
        hits: list[tuple[Hits, Hits]] = [aligned_hits(*frame) for frame in frames]
        cases = np.stack([text & ~vision for vision, text in hits])
        samples = frames[0][0]
        groups = samples["group"].where(samples["group"] != "", samples["sample"]).to_numpy()
        one_class = np.zeros(len(samples), np.int64)
        cells.append(Cell("one", np.zeros_like(cases), cases, one_class, groups))
    return pooled_bootstrap(cells, shelf.draws, np.random.default_rng(0))


def distillation_near_one(shelf: Shelf) -> Finding:
    """Figure 9: the explained share, averaged over runs, with Student's interval over runs."""
    table = shelf.table("text_statistics").dropna(subset=["explained"])
    if table.empty:
        raise Untestable("true text features do not vary")
    cosine, values = float(table["cosines_mean"].mean()), table["explained"].to_numpy()
    mean, low, high = float(values.mean()), float("nan"), float("nan")
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        low, high = mean - half, mean + half
    said = f"explained share; mean cosine {cosine:.2f}"
    verdict = of(cosine >= 0.9 and mean >= 0.5, low > 0)
    return Finding(verdict, mean, low, high, said, _runs(table))


def no_added_cost(shelf: Shelf) -> Finding:
    """Section 4.6: 10^9 multiply-adds that CLIP-IT with merged adapters adds for one image."""
    flops = shelf.table("inference_cost").query("batch == 1").set_index("variant")["flops"]
    added, whole = float(flops[MERGED] - flops[UNIMODAL]) / 2e9, float(flops[UNIMODAL]) / 2e9
    said = f"{added / whole:.1%} of the unimodal model's {whole:.4g} billion multiply-adds"
    verdict = of(added <= MOST_MACS, added <= 0.01 * whole)
    return Finding(verdict, added, reason=said, runs=shelf.keys_behind("inference_cost"))


def survival(shelf: Shelf) -> Finding:
    """Table 8: the gain in C-index over the unimodal model, and that in iAUC beside it."""
    if shelf.bench.profile.survival is None:
        raise Untestable("survival not in the profile")
    table = shelf.table("survival")
    stored = [_survival_run(shelf, key) for key in dict.fromkeys(table["run"])]
    limits = study.intervals(stored, table, shelf.draws).query("over == 'unimodal'")
    gains = limits.set_index("metric")[["value", "low", "high"]]
    verdict = of(bool((gains["low"] > 0).all()), bool((gains["value"] > 0).all()))
    (value, low, high), (other, lower, higher) = gains.loc[["c_index", "iauc"]].to_numpy()
    said = f"gain in C-index; in iAUC {other:+.3f} [{lower:+.3f}, {higher:+.3f}]"
    return Finding(verdict, float(value), float(low), float(high), said, _runs(table))


def _survival_run(shelf: Shelf, key: str) -> SurvivalRun:
    run = archive.survival_run(paths.results(shelf.profile), key)
    if run is None:
        raise Untestable("runs missing")
    return run


def _runs(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(key) for key in table["run"]))


FUNCTIONS: dict[str, Callable[[Shelf], Finding]] = {
    function.__name__: function
    for function in (pareto, omega_largest_on_pcam, distillation_near_one, no_added_cost, survival)
}


# -- One claim judged by stored runs, according to the kind of its rule.


def finding_of(claim: Claim, shelf: Shelf) -> Finding:
    """The verdict on one claim."""
    try:
        return _judge(claim, shelf)
    except Untestable as why:
        return Finding(Verdict.UNTESTABLE, reason=str(why))


def _judge(claim: Claim, shelf: Shelf) -> Finding:
    match claim:
        case Own():
            return FUNCTIONS[claim.id](shelf)
        case Gains():
            return _gains(claim, shelf)
        case Falling():
            return _falling(claim, shelf)
        case ShareHigher() | NoLoss():
            return _by_cell(claim, shelf)
        case Gain() | Equal() | NotWorse():
            return _pooled(claim, shelf)


def _pooled(claim: Gain | Equal | NotWorse, shelf: Shelf) -> Finding:
    """A rule on the mean difference over cells."""
    runs = _runs_of(claim, shelf)
    value = _pooled_gain(runs, claim.first, claim.second, shelf)
    if isinstance(claim, Gain):
        verdict = gain(value)
    elif isinstance(claim, Equal):
        verdict = equal(value, claim.margin)
    else:
        verdict = not_worse(value, claim.margin)
    return _found(verdict, value, _cells_in_words(runs), runs)


def _by_cell(claim: ShareHigher | NoLoss, shelf: Shelf) -> Finding:
    """A rule that counts cells; ours is their share."""
    runs = _runs_of(claim, shelf)
    cells = tables.gain_table(runs, [(claim.first, claim.second)], shelf.draws)
    keys = _keys(runs)
    if isinstance(claim, ShareHigher):
        higher = int((cells["gain"] > 0).sum())
        verdict = share_higher(cells["gain"].tolist(), claim.share)
        said = f"{higher} of {len(cells)} cells higher"
        return Finding(verdict, higher / len(cells), reason=said, runs=keys)
    lost = cells[cells["high"] < 0]
    names = "".join(f"; {row['dataset']}, {row['backbone']}" for _, row in lost.iterrows())
    said = f"{len(lost)} of {len(cells)} cells with an interval below zero{names}"
    verdict = no_loss(cells["high"].tolist())
    return Finding(verdict, len(lost) / len(cells), reason=said, runs=keys)


def _gains(claim: Gains, shelf: Shelf) -> Finding:
    """A gain over each of several; ours is the smallest of the weakest verdict."""
    stored, values = [], {}
    for first in claim.firsts:
        runs = shelf.runs(claim.study, [first, claim.second], claim.datasets)
        values[first] = _pooled_gain(runs, first, claim.second, shelf)
        stored += runs
    verdict = weakest_of([gain(value) for value in values.values()])
    weakest = [value for value in values.values() if gain(value) == verdict]
    least = min(weakest, key=lambda value: value.estimate)
    said = "; ".join(f"over {label(first)} {value}" for first, value in values.items())
    return _found(verdict, least, said, stored)


def _falling(claim: Falling, shelf: Shelf) -> Finding:
    """A rule on an order of settings; ours is the gain of the first over the last."""
    held = shelf.settings(claim.study)
    order = [name for name in claim.order if name in held]
    if len(order) < 3:
        raise Untestable(f"{len(order)} ranks in the profile's {claim.study}, of at least 3")
    runs = shelf.runs(claim.study, order, claim.datasets)
    means = tables.run_table(runs).groupby("setting")["balanced_accuracy"].mean()[order]
    flat = means.nunique() == 1  # no correlation is defined then
    correlation = 0.0 if flat else float(stats.spearmanr(range(len(order)), means).statistic)
    value = _pooled_gain(runs, order[-1], order[0], shelf)
    said = f"first over last; Spearman {correlation:+.2f} over {len(order)} ranks"
    return _found(falling(correlation, value), value, said, runs)


def _runs_of(claim: Pair, shelf: Shelf) -> list[StoredRun]:
    return shelf.runs(claim.study, claim.settings, claim.datasets)


def _pooled_gain(runs: Sequence[StoredRun], first: str, second: str, shelf: Shelf) -> Interval:
    value = tables.pooled_gain(runs, first, second, shelf.draws)
    if value is None:
        raise Untestable(f"{first} and {second} have no seeds in common")
    return value


def _found(verdict: Verdict, value: Interval, said: str, runs: Sequence[StoredRun]) -> Finding:
    return Finding(verdict, value.estimate, value.low, value.high, said, _keys(runs))


def _keys(runs: Sequence[StoredRun]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.key for run in runs))


def _cells_in_words(runs: Sequence[StoredRun]) -> str:
    cells = {(run.spec.dataset, run.spec.backbone) for run in runs}
    seeds = {run.spec.seed for run in runs}
    one = "cell" if len(cells) == 1 else "cells"
    return f"{len(cells)} {one}, {len(seeds)} seed{'' if len(seeds) == 1 else 's'}"
