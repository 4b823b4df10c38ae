"""How a language model is asked for reports, and what that takes (appendix F.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipit_lib.errors import ClipItError
from clipit_lib.reports.synthetic_endpoint import Message

PER_CLASS, EXAMPLES = 500, 10
CHARACTERS_PER_TOKEN = 4
# Taken to be the length of a report, in characters, where no example tells.
USUAL_LENGTH = 1000
INSTRUCTION = (
    "You write synthetic surgical pathology reports for research on image classification. Write "
    "one complete report in the style of TCGA pathology reports, as those you are shown: the same "
    "kind of sections, wording, abbreviations and length, about a patient who does not exist. "
    "Copy no sentence. Name no person, place, date or number that identifies anyone. Answer with "
    "the plain text of the report and nothing else."
)


@dataclass(frozen=True)
class Order:
    """One report to be written.

    Attributes:
        class_name, class_text: of which class, and how a sentence names it.
        number: from 1, within the class.
        organ: the tissue.
        examples: real reports to show.
        seed: for the endpoint.
    """

    class_name: str
    class_text: str
    number: int
    organ: str
    examples: tuple[str, ...]
    seed: int

    @property
    def id(self) -> str:
        return f"{self.class_name}-{self.number:04d}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """Made when needed: thousands of orders share the same examples."""
        return build_request(self.examples, self.class_text, self.organ, self.number)


@dataclass(frozen=True)
class Estimate:
    """What the orders will take, at about four characters a token; `cost` needs prices."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        cost = "not known without --price-in and --price-out"
        if self.cost is not None:
            cost = f"about {self.cost:.2f}, in the currency of the prices"
        return (
            f"{self.requests} requests, about {self.prompt_tokens} prompt tokens and "
            f"{self.completion_tokens} completion tokens (counted as {CHARACTERS_PER_TOKEN} "
            f"characters a token); cost {cost}. Repetitions are not in it"
        )


def build_request(
    examples: Sequence[str], class_text: str, organ: str, number: int = 1
) -> tuple[Message, ...]:
    """The messages that ask for one report (chat completions format).

    Only the end differs between requests, so that a server can keep what they share; the number
    makes each request another one even where a server ignores seeds.
    """
    shown = "\n\n".join(f"Example report {k}:\n{text}" for k, text in enumerate(examples, start=1))
    wish = (
        f"Write synthetic report {number}. Organ: {organ}. The slide shows: {class_text}. The "
        f"report describes the microscopic appearance of {class_text} and its diagnosis agrees "
        "with it. Differ from other such reports in specimen, findings and wording."
    )
    return (
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": f"{shown}\n\n{wish}".strip()},
    )


def choose_examples(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` different reports, drawn once for a data set.

    Raises:
        ClipItError: there are not so many.
    """
    if count > len(texts):
        raise ClipItError(f"{count} examples of {len(texts)} reports", "--examples", "Ask for less")
    rows = np.random.default_rng(seed).permutation(len(texts))[:count]
    return [texts[row] for row in rows]


def orders(
    class_texts: Mapping[str, str], organ: str, examples: Sequence[str], per_class: int, seed: int
) -> list[Order]:
    """Orders for `per_class` reports of each class, number by number, so that a run cut short has
    about as many of each class; the first do not depend on how many follow.

    Args:
        class_texts: how a sentence names each class, by class name, in the data set's order.
    """
    shown = tuple(examples)
    return [
        Order(name, text, number, organ, shown, seed_of(seed, k, number))
        for number in range(1, per_class + 1)
        for k, (name, text) in enumerate(class_texts.items())
    ]


def estimate(
    todo: Sequence[Order],
    examples: Sequence[str],
    price_in: float | None = None,
    price_out: float | None = None,
) -> Estimate:
    """Requests, tokens and cost; a report is taken to be as long as the mean example.

    Args:
        price_in, price_out: per million prompt and completion tokens.
    """
    asked = sum(len(m["content"]) for order in todo for m in order.messages) / CHARACTERS_PER_TOKEN
    length = sum(map(len, examples)) / max(len(examples), 1) or USUAL_LENGTH
    written = len(todo) * length / CHARACTERS_PER_TOKEN
    known = price_in is not None and price_out is not None
    cost = (asked * (price_in or 0) + written * (price_out or 0)) / 1e6 if known else None
    return Estimate(len(todo), round(asked), round(written), cost)


def seed_of(seed: int, *parts: int) -> int:
    """A seed of 31 bits, which every endpoint can read."""
    return int(np.random.SeedSequence(seed, spawn_key=parts).generate_state(1)[0] >> 1)
