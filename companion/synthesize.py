"""Reports written class by class by a language model: the command `synthesize`."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pandas as pd
from tqdm import tqdm

from clipit_lib.data.reports import ReportCorpus
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, write_text
from clipit_lib.settings import known
from companion import paths
from companion.profile import load_profile
from companion.reading import agree, read_strict

# -- One question to a language model, at any endpoint that speaks OpenAI's chat completions.
#
# The `openai` package asks again what passes by itself (a full queue, a server at fault, a broken
# line), ever later or when the server says. What does not pass (a wrong key) is said at once.

Message = dict[str, str]
LATER = "Run the same command later: what was answered before is kept"
ADVICE = {
    401: "Set CLIPIT_LLM_KEY to a key of this endpoint",
    403: "Use a key that may use this model",
    404: "Fix --endpoint or --model",
} | dict.fromkeys((408, 409, 429), LATER)
WORDS = read_strict(Path(__file__).parent / "manifests" / "requests.yaml", dict[str, Any])


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, whom, and how.

    Attributes:
        url: up to and without `/chat/completions`, for example https://HOST/v1.
        model: as the endpoint calls it.
        key: sent as a bearer token; None for a server that wants none. Never shown.
        temperature: of sampling; 0 would make all answers alike.
        timeout: seconds without a byte from the server.
        retries: how often a question is sent again before its fault counts.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    temperature: float = 1.0
    timeout: float = 120.0
    retries: int = 10

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            named = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            named = False
        if not named:
            raise ClipItError(f"no address {self.url!r}", "--endpoint", "Write https://HOST/v1")
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise ClipItError("the key holds odd characters", "CLIPIT_LLM_KEY", "Copy it anew")

    @property
    def address(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"

    def client(self) -> openai.OpenAI:
        """A client that sends reports nowhere but where the user said; close it."""
        return openai.OpenAI(
            base_url=self.url, api_key=self.key or "none", timeout=self.timeout,
            max_retries=self.retries, http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What came back: `text`, or why there is none to use (`fault`)."""

    text: str
    fault: str | None = None


def ask(client: openai.OpenAI, endpoint: Endpoint, messages: Any, seed: int) -> Answer:
    """Send one question until it is answered.

    Raises:
        ClipItError: the last attempt failed too, or the server refuses the question itself.
    """
    # Headers that the package would fill in from the environment, or with no key.
    unsent = ["OpenAI-Organization", "OpenAI-Project", *([] if endpoint.key else ["Authorization"])]
    try:
        completion = client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=endpoint.temperature, seed=seed,
            extra_headers=dict.fromkeys(unsent, openai.Omit()),
        )  # fmt: skip
        choice = completion.choices[0]  # the package does not check what it is given
        message, ending = choice.message, choice.finish_reason
        text = (message.content or "").strip()
    except openai.APITimeoutError:
        what, fix = f"no answer within {endpoint.timeout:g} s", LATER
    except openai.APIConnectionError as error:
        what, fix = f"no connection ({type(error.__cause__).__name__})", LATER
    except openai.APIStatusError as error:
        what, code = f"answers {error.status_code}", error.status_code
        if isinstance(error.body, dict) and "message" in error.body:
            words = str(error.body["message"])
            if endpoint.key:  # servers repeat what they were given
                words = words.replace(endpoint.key, "[key]")
            what += f" ({' '.join(words.split())[:160]})"
        request = "Fix the request: --endpoint, --model or --temperature"
        fix = ADVICE.get(code, LATER if code >= 500 else request)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Answer("", "no chat completion in JSON")
    else:
        refused = text.lower().replace("\u2019", "'").startswith(tuple(WORDS["refusals"]))
        if refused or message.refusal or ending == "content_filter":
            return Answer(text, "refused")
        if not text:
            return Answer(text, "empty")
        return Answer(text, "cut short" if ending == "length" else None)
    raise ClipItError(what, endpoint.address, fix)


# -- How a language model is asked for reports, and what that takes (appendix F.5).

CHARACTERS_PER_TOKEN = 4
# Taken to be the length of a report, in characters, where no example tells.
USUAL_LENGTH = 1000


@dataclass(frozen=True)
class Order:
    """One report to be written.

    Attributes:
        class_name, class_text: of which class, and how a sentence names it.
        number: from 1, within the class.
        organ: the tissue.
        examples: real reports to show, the same for a whole data set.
        seed: of the first attempt.
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
        """The messages that ask for it (chat completions format).

        Only the end differs between requests, so that a server can keep what they share; the
        number makes each request another one even where a server ignores seeds.
        """
        shown = [f"Example report {k}:\n{text}" for k, text in enumerate(self.examples, start=1)]
        wish = WORDS["wish"].format(number=self.number, organ=self.organ, text=self.class_text)
        return (
            {"role": "system", "content": WORDS["instruction"]},
            {"role": "user", "content": "\n\n".join([*shown, wish])},
        )


def choose_examples(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` different reports, drawn once; a ClipItError if there are not so many."""
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
) -> str:
    """Requests, tokens and cost; a report is taken to be as long as the mean example.

    Args:
        price_in, price_out: per million prompt and completion tokens.
    """
    asked = sum(len(m["content"]) for order in todo for m in order.messages) / CHARACTERS_PER_TOKEN
    length = sum(map(len, examples)) / max(len(examples), 1) or USUAL_LENGTH
    written = len(todo) * length / CHARACTERS_PER_TOKEN
    cost = "not known without --price-in and --price-out"
    if price_in is not None and price_out is not None:
        amount = (asked * price_in + written * price_out) / 1e6
        cost = f"about {amount:.2f}, in the currency of the prices"
    return (
        f"{len(todo)} requests, about {asked:.0f} prompt tokens and {written:.0f} completion "
        f"tokens (counted as {CHARACTERS_PER_TOKEN} characters a token); cost {cost}. "
        "Repetitions are not in it"
    )


def seed_of(seed: int, *parts: int) -> int:
    """A seed of 31 bits, which every endpoint can read."""
    return int(np.random.SeedSequence(seed, spawn_key=parts).generate_state(1)[0] >> 1)


# -- Answers kept one a line as they come, so that nothing paid for is asked again.


def kept(endpoint: Endpoint, wanted: Sequence[Order], journal: Path) -> dict[str, str]:
    """Texts that a journal holds, by id. What follows its last line end was cut off in the middle
    of writing and does not count.

    Raises:
        ClipItError: the journal is damaged, or was begun with another model, temperature, seed or
            other examples.
    """
    entries, texts = {}, {}
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            entries[entry["class_name"], entry["number"]] = entry["request"], entry["text"]
        except (ValueError, TypeError, LookupError):
            what, fix = f"line {number} is not an answer", "Delete this line and run again"
            raise ClipItError(what, journal, fix) from None
    for order in wanted:
        if (asked := (order.class_name, order.number)) not in entries:
            continue
        request, texts[order.id] = entries[asked]
        if request != _request(endpoint, order):
            what = f"report {order.id} was asked for otherwise (model, temperature, seed, examples)"
            raise ClipItError(what, journal, "Repeat the first command, or name another --output")
    return texts


def _request(endpoint: Endpoint, order: Order) -> str:
    """Digest of what an answer depends on, besides chance."""
    asked = [endpoint.model, endpoint.temperature, order.seed, list(order.messages)]
    return digest(canonical_json(asked))


def _append(journal: Path, line: str = "") -> None:
    """Write a line through to the disk, after the last whole one.

    Raises:
        ClipItError: it cannot be written.
    """
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("ab") as stream:
            stream.truncate(journal.read_bytes().rfind(b"\n") + 1)
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        fix = "Free space or name another --output"
        raise ClipItError(f"cannot write ({error.strerror})", journal, fix) from error


# -- Reports written by a language model, class by class, after ten real ones (appendix F.5).

# How often a report is asked for before it is given up, and how many given up in a row end it.
TRIES, ROW = 3, 10


def generate(
    endpoint: Endpoint, wanted: Sequence[Order], journal: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Have every report written that the journal does not hold yet; keep each as it comes.

    A refusal, an empty or cut answer and a copy of another report are asked for anew with another
    seed, three times in all, then passed over and told. What is answered is in the journal whatever
    happens later.

    Returns:
        Texts by report id, in the order of the orders, and why others are missing.

    Raises:
        ClipItError: as `kept` and `ask`; ten reports in a row came to nothing; the journal cannot
            be written.
    """
    texts = kept(endpoint, wanted, journal)
    seen, missing, row = set(texts.values()), dict[str, str](), 0
    _append(journal)
    todo = [order for order in wanted if order.id not in texts]
    with endpoint.client() as client:
        for order in tqdm(todo, desc="synthesize", unit="report", mininterval=5):
            for attempt in range(TRIES):
                seed = seed_of(order.seed, attempt) if attempt else order.seed
                answer = ask(client, endpoint, order.messages, seed)
                copied = "a copy of another report" if answer.text in seen else None
                if (fault := answer.fault or copied) is None:
                    break
            if fault is None:
                about = {"class_name": order.class_name, "number": order.number}
                about |= {"request": _request(endpoint, order), "text": answer.text}
                _append(journal, f"{canonical_json(about)}\n")
                texts[order.id] = answer.text
                seen.add(answer.text)
                row = 0
                continue
            missing[order.id] = fault
            row += 1
            if row == ROW:
                what = f"{ROW} reports in a row came to nothing (the last: {fault})"
                fix = "Try another --model; what was answered before is kept"
                raise ClipItError(what, endpoint.address, fix)
    return {order.id: texts[order.id] for order in wanted if order.id in texts}, missing


def write_csv(wanted: Sequence[Order], texts: Mapping[str, str], output: Path) -> None:
    """Reports as a csv with the columns id, class, text: class by class, by number."""
    names = [order.class_name for order in wanted]
    rows = [(each.id, each.class_name, texts[each.id]) for each in wanted if each.id in texts]
    rows.sort(key=lambda row: names.index(row[1]))
    write_text(output, pd.DataFrame(rows, columns=["id", "class", "text"]).to_csv(index=False))


# -- `synthesize`: have a language model write reports for the classes of a data set (table 7).


def main(given: Namespace) -> None:
    """Write a csv (id, class, text) of reports that a language model makes up, after real ones."""
    output: Path = given.output
    if output.suffix != ".csv":
        raise ClipItError(f"unknown kind of file {output.suffix!r}", "--output", "Name a .csv")
    key = paths.language_model_key()
    endpoint = Endpoint(given.endpoint, given.model, key, given.temperature, given.timeout)
    profile = load_profile(given.profile)
    settings = profile.data_settings(given.dataset)
    known(settings.corpus, profile.corpora, "corpus", f"profile {profile.name}")
    corpus = profile.corpora[settings.corpus].open(settings.corpus)
    data = settings.open(given.dataset)
    examples = choose_examples(corpus.texts, given.examples, given.seed)
    classes = dict(zip(data.classes, data.class_texts, strict=True))
    wanted = orders(classes, corpus.organ, examples, given.per_class, given.seed)
    journal = output.with_suffix(".jsonl")
    there = kept(endpoint, wanted, journal)
    todo = [order for order in wanted if order.id not in there]
    if given.dry_run:
        for message in wanted[0].messages:
            print(f"--- {message['role']}\n{message['content']}\n")
    print(f"{len(there)} of {len(wanted)} reports are kept in {journal}")
    print(f"to do: {estimate(todo, examples, given.price_in, given.price_out)}")
    if given.dry_run:
        return
    if todo and examples:
        _consent(corpus, len(examples), endpoint, given.yes)
    try:
        texts, missing = generate(endpoint, wanted, journal)
    except KeyboardInterrupt:
        raise ClipItError("stopped", journal, "The same command again goes on from here") from None
    write_csv(wanted, texts, output)
    print(f"{len(texts)} reports in {output}")
    if missing:
        first, fault = next(iter(missing.items()))
        what = f"{len(missing)} of {len(wanted)} reports are missing, first {first} ({fault})"
        raise ClipItError(what, output, "Run the same command again to ask for them once more")


def _consent(corpus: ReportCorpus, count: int, endpoint: Endpoint, yes: bool) -> None:
    """Say what leaves this machine; go on only if the user agrees."""
    print(
        f"WARNING: {count} reports of the corpus {corpus.name} (licence: {corpus.licence}) leave "
        f"this machine: every request sends them to {endpoint.address}. You must hold the right "
        "to pass them on, and they must identify nobody."
    )
    if endpoint.key and endpoint.url.startswith("http://"):
        print("WARNING: this address is not encrypted; reports and key can be read on the way.")
    if yes:
        return
    agree(
        "Send them?",
        ClipItError("nobody to ask for consent", "synthesize", "Add --yes if you agree"),
        ClipItError("not sent, as you wish", "synthesize", "Add --examples 0 to send none"),
    )
