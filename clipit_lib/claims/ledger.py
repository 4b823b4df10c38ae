"""All claims of the paper judged by what a profile has stored, as results/PROFILE/claims.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from clipit_lib import paths, tables
from clipit_lib.claims.judging import finding_of
from clipit_lib.claims.model import Claim, Pair, load_claims
from clipit_lib.claims.shelf import Shelf
from clipit_lib.claims.verdicts import Finding
from clipit_lib.encoders import clip
from clipit_lib.files import write_text
from clipit_lib.workbench import Workbench

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
    own = {clip.entry(name).namesake: name for name in bench.profile.retrievers}
    return [Judged(claim, finding_of(_with_own_retrievers(claim, own), shelf)) for claim in chosen]


def _with_own_retrievers(claim: Claim, own: Mapping[str | None, str]) -> Claim:
    """The claim on a profile's retrievers, in place of those of the paper that they stand for."""
    if not isinstance(claim, Pair):
        return claim

    def named(setting: str) -> str:
        base, found, retriever = setting.partition("/retriever_")
        return f"{base}{found}{own.get(retriever, retriever)}"

    return claim.model_copy(update={"first": named(claim.first), "second": named(claim.second)})


def ledger_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """One row a claim, with `COLUMNS`; `runs` counts the runs behind the verdict."""
    rows = [
        [one.claim.id, one.claim.claim, one.claim.where, one.claim.paper, one.claim.rule,
         one.finding.ours, one.finding.low, one.finding.high, str(one.finding.verdict),
         one.finding.reason, len(one.finding.runs)]
        for one in judged
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(("ours", "low", "high"), float))


def run_keys(judged: Sequence[Judged]) -> list[str]:
    """Keys of all runs behind the verdicts, each once."""
    return sorted({key for one in judged for key in one.finding.runs})


def save(profile: str, judged: Sequence[Judged], text: str) -> None:
    """Write claims.csv, claims.md and the keys of the runs behind them, claims.runs.json."""
    folder = paths.results(profile)
    table, text = ledger_table(judged), tables.with_doubts(profile, text, run_keys(judged))
    write_text(folder / "claims.csv", table.to_csv(index=False, float_format="%.4f"))
    write_text(folder / "claims.md", text.rstrip() + "\n")
    write_text(folder / "claims.runs.json", json.dumps(run_keys(judged), indent=1) + "\n")
