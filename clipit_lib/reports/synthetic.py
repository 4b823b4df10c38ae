"""Reports written by a language model, class by class, after ten real ones (appendix F.5)."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, written_beside
from clipit_lib.reports.synthetic_endpoint import Answer, Endpoint, Sleep, ask
from clipit_lib.reports.synthetic_journal import Entry, Journal
from clipit_lib.reports.synthetic_requests import (
    Estimate,
    Order,
    build_request,
    choose_examples,
    estimate,
    orders,
    seed_of,
)

__all__ = [
    "Estimate",
    "Order",
    "Outcome",
    "build_request",
    "choose_examples",
    "estimate",
    "generate",
    "orders",
    "remaining",
    "write_csv",
]

# How often a report is asked for before it is given up, and how many given up in a row end it.
TRIES, ROW = 3, 10


@dataclass(frozen=True)
class Outcome:
    """Texts by report id, in the order of the orders, and why others are missing."""

    texts: dict[str, str]
    missing: dict[str, str]


def remaining(endpoint: Endpoint, wanted: Sequence[Order], journal: Path) -> list[Order]:
    """The orders that the journal holds no report of.

    Raises:
        ClipItError: the journal is damaged, or was begun with another model, temperature, seed or
            other examples.
    """
    kept = _kept(endpoint, wanted, journal)
    return [order for order in wanted if order.id not in kept]


def generate(
    endpoint: Endpoint, wanted: Sequence[Order], journal: Path, sleep: Sleep = time.sleep
) -> Outcome:
    """Have every report written that the journal does not hold yet; keep each as it comes.

    A refusal, an empty or cut answer and a copy of another report are asked for anew with another
    seed, three times in all, then passed over and told in the outcome. What is answered is in the
    journal whatever happens later.

    Raises:
        ClipItError: as `remaining` and `ask`; ten reports in a row came to nothing; the journal
            cannot be written.
    """
    texts = _kept(endpoint, wanted, journal)
    book, seen, missing, row = Journal(journal), set(texts.values()), dict[str, str](), 0
    book.open_to_append()
    todo = [order for order in wanted if order.id not in texts]
    for order in tqdm(todo, desc="synthesize", unit="report", mininterval=5):
        answer = _asked(endpoint, order, seen, sleep)
        if answer.fault is None:
            book.append(
                Entry(order.class_name, order.number, _request(endpoint, order), answer.text)
            )
            texts[order.id] = answer.text
            seen.add(answer.text)
            row = 0
            continue
        missing[order.id] = answer.fault
        row += 1
        if row == ROW:
            raise ClipItError(
                f"{ROW} reports in a row came to nothing (the last: {answer.fault})",
                endpoint.address,
                "Try another --model; what was answered before is kept",
            )
    return Outcome({order.id: texts[order.id] for order in wanted if order.id in texts}, missing)


def write_csv(wanted: Sequence[Order], texts: Mapping[str, str], output: Path) -> None:
    """Reports as a csv with the columns id, class, text: class by class, by number."""
    rank = {name: k for k, name in enumerate(dict.fromkeys(o.class_name for o in wanted))}
    order_of_rows = sorted(wanted, key=lambda o: (rank[o.class_name], o.number))
    with (
        written_beside(output) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("id", "class", "text"))
        rows.writerows((o.id, o.class_name, texts[o.id]) for o in order_of_rows if o.id in texts)


def _asked(endpoint: Endpoint, order: Order, seen: set[str], sleep: Sleep) -> Answer:
    for attempt in range(TRIES):
        seed = order.seed if attempt == 0 else seed_of(order.seed, attempt)
        answer = ask(endpoint, order.messages, seed, sleep)
        if answer.fault is None and answer.text in seen:
            answer = Answer(answer.text, "a copy of another report")
        if answer.fault is None:
            break
    return answer


def _kept(endpoint: Endpoint, wanted: Sequence[Order], journal: Path) -> dict[str, str]:
    """Texts that the journal holds, by id."""
    entries, texts = Journal(journal).entries(), {}
    for order in wanted:
        entry = entries.get((order.class_name, order.number))
        if entry is None:
            continue
        if entry.request != _request(endpoint, order):
            raise ClipItError(
                f"report {order.id} was asked for otherwise (model, temperature, seed, examples)",
                journal,
                "Repeat the first command, or name another --output",
            )
        texts[order.id] = entry.text
    return texts


def _request(endpoint: Endpoint, order: Order) -> str:
    """Digest of what an answer depends on, besides chance."""
    asked = [endpoint.model, endpoint.temperature, order.seed, list(order.messages)]
    return digest(canonical_json(asked))
