"""The paper's claims, the rules that stored results judge them by, and the ledger of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec, Strict
from companion import archive, paper, paths, studies, tables
from companion import survival as study
from companion.cost import MERGED, UNIMODAL
from companion.measures import case_cells, matched
from companion.paper import HERE
from companion.phantom import Phantom
from companion.phantom.known import KnownData
from companion.profile import Profile, Workbench
from companion.reading import read_strict
from companion.specs import Setting, label
from companion.statistics import MARGIN, Gain, Interval, Word, pooled_bootstrap

Kind = Literal["gain", "equal", "not_worse", "share_higher", "no_loss", "gains", "falling", "own"]


class Rule(Strict):
    """A kind of rule, as rules.yaml explains."""

    needs: tuple[str, ...]
    words: str = ""


RULES: dict[Kind, Rule] = read_strict(HERE / "rules.yaml", dict[Kind, Rule])
COMMON = {"id", "claim", "where", "paper", "paper_gain", "note", "kind"}


class Claim(Strict):
    """What the paper claims, and the rule that judges it.

    Attributes:
        where: table, figure or section of the paper.
        paper: what the paper finds, in words.
        paper_gain: the same as one difference in points, where the paper has it.
        note: what a reader of the verdict must know.
        kind: of the rule, one of RULES; what follows is what such a rule needs.
        study: whose settings are compared; `datasets` limits it to those that the profile has.
        second, first, firsts: the gain is that of `second` over `first`, or over each of `firsts`.
        order: settings along which accuracy falls.
    """

    id: str
    claim: str
    where: str
    paper: str
    paper_gain: float | None = None
    note: str | None = None
    kind: Kind
    study: str = ""
    datasets: tuple[str, ...] = ()
    second: str = ""
    first: str = ""
    firsts: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    margin: float = 0.0
    share: float = 0.0
    own_rule: str = Field("", alias="rule")

    @model_validator(mode="after")
    def _has_what_its_rule_needs(self) -> Claim:
        needed = set(RULES[self.kind].needs)
        given = self.model_fields_set - COMMON
        if given - {"datasets"} != needed or ("datasets" in given and "study" not in needed):
            names = ", ".join(RULES[self.kind].needs).replace("own_rule", "rule")
            raise ValueError(f"a claim of kind {self.kind} has {names}, and may have datasets")
        return self

    @property
    def rule(self) -> str:
        words = RULES[self.kind].words
        return self.own_rule or words.format(m=self.margin, least=-self.margin, share=self.share)

    @property
    def settings(self) -> tuple[str, ...]:
        """All that are compared."""
        return tuple(filter(None, (*self.firsts, self.first, self.second, *self.order)))

    @property
    def in_points(self) -> bool:
        """Whether ours is a difference in points."""
        return self.kind in ("gain", "equal", "not_worse", "gains", "falling")


class Claims(Strict):
    """All claims, which runs of a profile had been made when the rules were written, and what was
    changed of the rules since.
    """

    revised: str
    seen: dict[str, str]
    claims: tuple[Claim, ...]


def load_claims(path: Path = HERE / "claims.yaml") -> Claims:
    """Read the claims.

    Raises:
        ClipItError: an unknown key or kind, a value of the wrong type, a claim without what its
            rule needs.
    """
    return read_strict(path, Claims)


# -- The stored runs and tables of a profile that a claim can be judged by; nothing is trained.


class Untestable(Exception):
    """A claim that a profile cannot test; the message says why in a word."""


class Shelf:
    """What one profile has stored; what it has not, or does not ask for, is `Untestable`."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.profile = bench.profile.name
        self.draws = bench.profile.bootstrap_draws
        self._resolved = cache(lambda study: studies.runs_of(bench, study))

    def specs(self, study: str) -> list[RunSpec]:
        """The runs that a study asks for; a world whose answer is known tests no claim."""
        if not studies.asked(self.bench.profile, study):
            raise Untestable(f"{study} not in the profile")
        data = self.bench.profile.data
        return [s for s in self._resolved(study) if not isinstance(data[s.dataset], KnownData)]

    def runs(
        self, study: str, settings: Sequence[str], datasets: Sequence[str] = ()
    ) -> list[StoredRun]:
        """The runs of some settings, in the cells of a study that have all of them.

        Args:
            datasets: those that count; all if empty.
        """
        specs = [s for s in self.specs(study) if not datasets or s.dataset in datasets]
        if datasets and not specs:
            raise Untestable("no such data set in the profile")
        held: dict[tuple[str, str], set[str]] = {}
        for spec in specs:
            held.setdefault((spec.dataset, spec.backbone), set()).add(spec.setting)
        for setting in settings:
            if not any(setting in cell for cell in held.values()):
                raise Untestable(f"{setting} not in the profile's {study}")
        complete = [cell for cell, names in held.items() if names >= set(settings)]
        if not complete:
            raise Untestable(f"no cell of {study} has all of {', '.join(settings)}")
        found = [
            studies.find(self.bench, spec)
            for spec in specs
            if spec.setting in settings and (spec.dataset, spec.backbone) in complete
        ]
        there = [run for run in found if run is not None]
        if len(there) < len(found):
            raise Untestable(f"runs missing ({len(found) - len(there)} of {len(found)})")
        return there

    def table(self, name: str) -> pd.DataFrame:
        """A table of the profile."""
        path = paths.tables(self.profile) / f"{name}.csv"
        if not path.exists():
            raise Untestable(f"no table {name}")
        with whole(path, "Run the notebook that writes it again"):
            return pd.read_csv(path)

    def keys_behind(self, table: str) -> tuple[str, ...]:
        """Keys of the runs behind a table."""
        path = paths.tables(self.profile) / f"{table}.runs.json"
        return tuple(archive.keys(path)) if path.exists() else ()


# -- From numbers to a verdict: pure functions.


class Verdict(StrEnum):
    """Verdicts, the strongest first."""

    REPRODUCED = "reproduced"
    UNDECIDED = "undecided"
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

    @property
    def interval(self) -> Interval | None:
        if self.ours is None or self.low is None or self.high is None:
            return None
        return Interval(self.ours, self.low, self.high)


def of(holds: bool, fails: bool) -> Verdict:
    """Reproduced or not where it can be known, undecided where neither is."""
    if holds:
        return Verdict.REPRODUCED
    return Verdict.NOT if fails else Verdict.UNDECIDED


def above(gain: Gain, least: float = 0.0, printed: float | None = None) -> Verdict:
    """A gain of less than the margin refutes a printed one of more."""
    if gain.one_seed:
        return Verdict.UNDECIDED
    value, large = gain.interval(), printed is None or printed >= MARGIN
    none = least == 0 and large and gain.word() is Word.EQUIVALENT
    return of(value.low > least, none or value.high < least)


def equal(gain: Gain, margin: float) -> Verdict:
    sure, within = gain.interval(), gain.word(margin) is Word.EQUIVALENT
    return of(within, not gain.one_seed and (sure.low > margin or sure.high < -margin))


def share_higher(words: Sequence[str], share: float) -> Verdict:
    """By the words of all cells: what is undecided or equivalent may be higher or lower."""
    sure, lower = (list(words).count(word) / len(words) for word in (Word.HELPS, Word.HURTS))
    return of(sure >= share, 1 - lower < share)


def no_loss(cells: pd.DataFrame) -> Verdict:
    """By the intervals of all cells: none may lose a point, and so few may seem to by chance."""
    lost = int((cells["word"] == Word.HURTS).sum())
    return of(lost == 0 and bool((cells["low_90"] > -MARGIN).all()), 10 * lost > len(cells))


def weakest_of(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=list(Verdict).index)


def falling(correlation: float, first_over_last: Gain) -> Verdict:
    """By Spearman's correlation of rank and mean accuracy; its rounding errors do not count."""
    end = above(first_over_last)
    return of(round(correlation, 9) < -0.5 and end is Verdict.REPRODUCED, end is Verdict.NOT)


def size(printed: float, value: Interval) -> str:
    """Whether ours agrees with the paper's number in size."""
    where = "above" if printed > value.high else "below" if printed < value.low else "inside"
    return f"the paper's {printed:+.2f} lies {where} our interval"


# -- The rules of claims that no general kind fits: one function per claim, named as it.


MOST_MACS = 0.001  # 10^9 multiply-adds, which the paper calls GFLOPs


def pareto(shelf: Shelf) -> Finding:
    """Figure 3: the share of CLIP-IT among the models on the frontiers of parameters."""
    table = shelf.table("pareto")
    models = table.drop_duplicates(["dataset", "backbone", "setting"])
    front = models.loc[models["on_front_parameters"], "setting"]
    ours = int((front == "clip_it").sum())
    share = ours / len(front)
    said = f"{ours} of {len(front)} models on the frontiers"
    return Finding(of(share >= 0.75, share < 0.5), share, reason=said, runs=_keys(table["run"]))


def omega_largest_on_pcam(shelf: Shelf) -> Finding:
    """Figure 4: omega (percent), averaged over backbones, on each data set."""
    text = shelf.runs("complementarity", ["text"])
    here = {(run.spec.dataset, run.spec.seed) for run in text}
    probes = shelf.runs("table1", ["unimodal"], sorted({dataset for dataset, _ in here}))
    vision = [run for run in probes if (run.spec.dataset, run.spec.seed) in here]
    cells = case_cells(matched(vision, text))
    omegas = {
        dataset: pooled_bootstrap(
            [cell for key, cell in cells.items() if key[0] == dataset and key[2] == "omega"],
            shelf.draws,
            np.random.default_rng(0),
        )
        for dataset in dict.fromkeys(run.spec.dataset for run in vision)
    }
    # The data set that is the paper's PCAM, or is made after it.
    ours = next((d for d in omegas if paper.MIRRORS.get(d, d.upper()) == "PCAM"), None)
    if ours is None or len(omegas) < 2:
        raise Untestable("no PCAM beside another data set")
    value = omegas.pop(ours)
    most = max(omega.estimate for omega in omegas.values())
    said = ", ".join(f"{name} {omega.estimate:.1f}" for name, omega in omegas.items())
    verdict = of(value.low > most, value.high < most)
    return _found(verdict, value, f"others: {said}", [*text, *vision])


def distillation_near_one(shelf: Shelf) -> Finding:
    """Figure 9: the explained share, averaged over runs, with Student's interval over runs."""
    from scipy import stats  # slow to import

    table = shelf.table("text_statistics").dropna(subset=["explained"])
    if table.empty:
        raise Untestable("true text features do not vary")
    cosine, values = float(table["cosines_mean"].mean()), table["explained"].to_numpy()
    mean, half = float(values.mean()), float("nan")
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    said = f"explained share; mean cosine {cosine:.2f}"
    verdict = of(cosine >= 0.9 and mean >= 0.5, cosine < 0.9 or mean + half < 0.5)
    return Finding(verdict, mean, mean - half, mean + half, said, _keys(table["run"]))


def no_added_cost(shelf: Shelf) -> Finding:
    """Section 4.6: 10^9 multiply-adds that CLIP-IT with merged adapters adds for one image."""
    flops = shelf.table("inference_cost").query("batch == 1").set_index("variant")["flops"]
    added, whole = float(flops[MERGED] - flops[UNIMODAL]) / 2e9, float(flops[UNIMODAL]) / 2e9
    said = f"{added / whole:.1%} of the unimodal model's {whole:.4g} billion multiply-adds"
    verdict = of(added <= MOST_MACS, added > 0.01 * whole)
    return Finding(verdict, added, reason=said, runs=shelf.keys_behind("inference_cost"))


def survival(shelf: Shelf) -> Finding:
    """Table 8: the gain in C-index over the unimodal model, and that in iAUC beside it."""
    if shelf.bench.profile.survival is None:
        raise Untestable("survival not in the profile")
    table = shelf.table("survival")
    results, keys = paths.results(shelf.profile), _keys(table["run"])
    found = [archive.survival_run(results, key, shelf.bench.archive) for key in keys]
    stored = [run for run in found if run is not None]
    if len(stored) < len(keys):
        raise Untestable("runs missing")
    limits = study.intervals(stored, table, shelf.draws).query("over == 'unimodal'")
    gains = limits.set_index("metric")[["value", "low", "high"]]
    verdict = of(bool((gains["low"] > 0).all()), bool((gains["high"] < study.MARGIN).any()))
    (value, low, high), (other, lower, higher) = gains.loc[["c_index", "iauc"]].to_numpy()
    said = f"gain in C-index; in iAUC {other:+.3f} [{lower:+.3f}, {higher:+.3f}]"
    return Finding(verdict, float(value), float(low), float(high), said, keys)


FUNCTIONS: dict[str, Callable[[Shelf], Finding]] = {
    function.__name__: function
    for function in (pareto, omega_largest_on_pcam, distillation_near_one, no_added_cost, survival)
}


def finding_of(claim: Claim, shelf: Shelf) -> Finding:
    """The verdict on one claim."""
    try:
        return JUDGES[claim.kind](claim, shelf)
    except Untestable as why:
        return Finding(Verdict.UNTESTABLE, reason=str(why))


def _pooled(claim: Claim, shelf: Shelf) -> Finding:
    """By the mean difference over cells."""
    runs = shelf.runs(claim.study, claim.settings, claim.datasets)
    value = _pooled_gain(runs, claim.first, claim.second)
    verdict = above(value, -claim.margin, claim.paper_gain)
    if claim.kind == "equal":
        verdict = equal(value, claim.margin)
    cells, seeds = len(tables.by_cell(runs)), len({run.spec.seed for run in runs})
    one = "cell" if cells == 1 else "cells"
    said = f"{cells} {one}, {seeds} seed{'' if seeds == 1 else 's'}"
    if claim.paper_gain is not None:
        said += f"; {size(claim.paper_gain, value.interval())}"
    return _found(verdict, value, said, runs)


def _share_of_cells(claim: Claim, shelf: Shelf) -> Finding:
    """By the share of cells that are higher, or surely lower."""
    runs = shelf.runs(claim.study, claim.settings, claim.datasets)
    cells = tables.gain_table(runs, [(claim.first, claim.second)])
    words, lost = cells["word"].tolist(), cells[cells["word"] == Word.HURTS]
    counted = lost if claim.kind == "no_loss" else cells[cells["gain"] > 0]
    verdict = no_loss(cells) if claim.kind == "no_loss" else share_higher(words, claim.share)
    said = ", ".join(f"{word} in {words.count(word)}" for word in Word)
    said += "".join(tables.filled(lost, "; {dataset}, {backbone} hurts"))
    share, keys = len(counted) / len(cells), _keys(run.key for run in runs)
    return Finding(verdict, share, reason=said, runs=keys)


def _gains(claim: Claim, shelf: Shelf) -> Finding:
    """A gain over each of several; ours is the smallest of the weakest verdict."""
    stored, values = [], {}
    for first in claim.firsts:
        runs = shelf.runs(claim.study, [first, claim.second], claim.datasets)
        values[first] = _pooled_gain(runs, first, claim.second)
        stored += runs
    verdict = weakest_of([above(value) for value in values.values()])
    weakest = [value for value in values.values() if above(value) == verdict]
    least = min(weakest, key=lambda value: value.estimate)
    said = "; ".join(
        f"over {label(first)} {value.interval()} {value.word()}" for first, value in values.items()
    )
    return _found(verdict, least, said, stored)


def _falling(claim: Claim, shelf: Shelf) -> Finding:
    """By an order of settings; ours is the gain of the first over the last."""
    from scipy import stats  # slow to import

    held = {spec.setting for spec in shelf.specs(claim.study)}
    order = [name for name in claim.order if name in held]
    if len(order) < 3:
        raise Untestable(f"{len(order)} ranks in the profile's {claim.study}, of at least 3")
    runs = shelf.runs(claim.study, order, claim.datasets)
    means = tables.run_table(runs).groupby("setting")["balanced_accuracy"].mean()[order]
    flat = means.nunique() == 1  # no correlation is defined then
    correlation = 0.0 if flat else float(stats.spearmanr(range(len(order)), means).statistic)
    value = _pooled_gain(runs, order[-1], order[0])
    said = f"first over last; Spearman {correlation:+.2f} over {len(order)} ranks"
    return _found(falling(correlation, value), value, said, runs)


def _pooled_gain(runs: Sequence[StoredRun], first: str, second: str) -> Gain:
    try:
        return tables.pooled_gain(runs, first, second)
    except ClipItError as error:
        raise Untestable(error.what) from error


def _found(
    verdict: Verdict, value: Gain | Interval, said: str, runs: Sequence[StoredRun]
) -> Finding:
    found = value.interval() if isinstance(value, Gain) else value
    keys = _keys(run.key for run in runs)
    return Finding(verdict, found.estimate, found.low, found.high, said, keys)


def _keys(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, found)))


JUDGES: dict[Kind, Callable[[Claim, Shelf], Finding]] = {
    "gain": _pooled, "equal": _pooled, "not_worse": _pooled, "share_higher": _share_of_cells,
    "no_loss": _share_of_cells, "gains": _gains, "falling": _falling,
    "own": lambda claim, shelf: FUNCTIONS[claim.id](shelf),
}  # fmt: skip


# -- All claims of the paper judged by what a profile has stored, as results/PROFILE/claims.csv.


COLUMNS = [
    "id", "claim", "where", "paper", "rule", "ours", "low", "high", "verdict", "reason", "runs",
]  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A claim and what was found of it."""

    claim: Claim
    finding: Finding


def evaluate(bench: Workbench, claims: Sequence[Claim] | None = None) -> list[Judged]:
    """Judge claims (by default all of the paper's) by stored runs and tables; train nothing.

    Raises:
        ClipItError: the data or the encoders of the profile are not there, so that it cannot be
            said which runs belong to it.
    """
    shelf = Shelf(bench)
    chosen = load_claims().claims if claims is None else claims
    own = {registry.entry(name, clip=True).namesake: name for name in bench.profile.retrievers}
    return [Judged(claim, finding_of(_with_own_retrievers(claim, own), shelf)) for claim in chosen]


def _with_own_retrievers(claim: Claim, own: Mapping[str | None, str]) -> Claim:
    """The claim on a profile's retrievers, in place of those of the paper that they stand for."""

    def named(name: str) -> str:
        setting = Setting.of(name)
        retriever = setting.changes.get("retriever")
        if retriever is None:
            return name
        changes = setting.changes | {"retriever": own.get(retriever, retriever)}
        return str(Setting(setting.base, changes))

    return claim.model_copy(update={"first": named(claim.first), "second": named(claim.second)})


def ledger_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """One row per claim, with `COLUMNS`; `runs` counts the runs behind the verdict."""
    rows = [
        (
            *(getattr(one.claim, name) for name in COLUMNS[:5]),
            *(getattr(one.finding, name) for name in COLUMNS[5:10]),
            len(one.finding.runs),
        )
        for one in judged
    ]
    kinds = dict.fromkeys(("ours", "low", "high"), float) | {"verdict": str}
    return pd.DataFrame(rows, columns=COLUMNS).astype(kinds)


def run_keys(judged: Sequence[Judged]) -> list[str]:
    """Keys of all runs behind the verdicts, each once."""
    return sorted({key for one in judged for key in one.finding.runs})


def save_ledger(profile: str, judged: Sequence[Judged], text: str) -> None:
    """Write claims.csv, claims.md and the keys of the runs behind them, claims.runs.json."""
    folder = paths.results(profile)
    tables.save_table(profile, "claims", ledger_table(judged), text, run_keys(judged), folder)


# -- The ledger of claims to read: counts, tables by verdict, and what could turn a verdict.


def is_phantom(profile: Profile) -> bool:
    """Whether all data of a profile are drawn by a program."""
    return all(isinstance(each, Phantom) for each in profile.data.values())


def headline(profile: Profile) -> str:
    """The title of the figure."""
    if is_phantom(profile):
        return f"The paper's claims; ours is a phantom, not tissue ({profile.name})"
    return f"The paper's claims beside ours ({profile.name})"


def counts(judged: Sequence[Judged]) -> dict[Verdict, int]:
    """How many claims got each verdict, the strongest first."""
    found = [one.finding.verdict for one in judged]
    return {verdict: found.count(verdict) for verdict in Verdict}


def count_sentences(profile: Profile, judged: Sequence[Judged]) -> str:
    """The counts in words, why claims are not testable, and what had been seen before."""
    each = ", ".join(f"{number} {verdict}" for verdict, number in counts(judged).items())
    said = [f"Of {len(judged)} claims: {each}."]
    reasons = [one.finding.reason for one in judged if one.finding.verdict is Verdict.UNTESTABLE]
    if reasons:
        listed = ", ".join(f"{why} ({reasons.count(why)})" for why in dict.fromkeys(reasons))
        said.append(f"Not testable for: {listed}.")
    if is_phantom(profile):
        said.append("Ours is a phantom: these verdicts are on the claims there, not on tissue.")
    return " ".join(said)


def seen_sentence(profile: str, stated: Claims) -> str:
    """What had been run of a profile when the rules were written, and what was changed since."""
    said = "No run of this profile is recorded as made before the rules were written."
    if profile in stated.seen:
        said = f"Made of this profile before the rules were written: {stated.seen[profile]}."
    return f"{said} Revised {stated.revised}"


def claims_text(profile: Profile, judged: Sequence[Judged], stated: Claims) -> str:
    """claims.md: counts on top, then one table per verdict, then what could turn one."""
    parts = [
        f"# Claims of the paper, judged at profile {profile.name}",
        count_sentences(profile, judged),
        seen_sentence(profile.name, stated),
    ]
    for verdict in Verdict:
        here = [one for one in judged if one.finding.verdict is verdict]
        if here:
            heading = str(verdict).capitalize()
            parts.append(f"## {heading} ({len(here)})\n\n{tables.markdown(reading_table(here))}")
    parts.append(f"## What would change our mind\n\n{turning_sentences(judged)}")
    return "\n\n".join(parts)


def reading_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """To read: claim, where, paper, ours, verdict, on what it rests."""
    said = ["; ".join(filter(None, (one.finding.reason, one.claim.note))) for one in judged]
    own = {"ours": [*map(ours, judged)], "resting on": said}
    return ledger_table(judged).assign(**own)[[*COLUMNS[1:4], "ours", "verdict", "resting on"]]


def ours(one: Judged) -> str:
    """The number that was judged, with its interval where it has one."""
    found = one.finding
    if found.ours is None:
        return ""
    if found.interval is not None and one.claim.in_points:
        return f"{found.interval} points"
    if one.claim.kind in ("share_higher", "no_loss"):
        return f"{found.ours:.0%} of cells"
    limits = "" if found.interval is None else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{found.ours:.3g}{limits}"


def turning_sentences(judged: Sequence[Judged]) -> str:
    """One Markdown item per claim that is undecided or not reproduced, and what could turn it."""
    could = {
        Verdict.UNDECIDED: "more seeds and patients could decide it",
        Verdict.NOT: "only another setting could turn it",
    }
    items = [
        f"- {one.claim.claim} ({one.claim.where}): {ours(one)}; {could[one.finding.verdict]}."
        for one in judged
        if one.finding.verdict in could
    ]
    return "\n".join(items) or "No claim is undecided or not reproduced here."
