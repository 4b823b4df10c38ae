"""The ledger of claims, as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from clipit_lib.encoders import registry
from companion import paths, tables
from companion.claims.rules import (
    Claim,
    Claims,
    Finding,
    Shelf,
    Verdict,
    finding_of,
    load_claims,
)
from companion.phantom import Phantom
from companion.profile import Profile, Workbench
from companion.specs import Setting
from companion.tables import markdown

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
            parts.append(f"## {heading} ({len(here)})\n\n{markdown(reading_table(here))}")
    parts.append(f"## What would change our mind\n\n{turning_sentences(judged)}")
    return "\n\n".join(parts)


def reading_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """To read: claim, where, paper, ours, verdict, on what it rests."""
    return pd.DataFrame(
        [
            {
                "claim": one.claim.claim,
                "where": one.claim.where,
                "paper": one.claim.paper,
                "ours": ours(one),
                "verdict": str(one.finding.verdict),
                "resting on": "; ".join(filter(None, (one.finding.reason, one.claim.note))),
            }
            for one in judged
        ]
    )


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
