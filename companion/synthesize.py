"""Reports written class by class by a language model: the command `synthesize`."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from tqdm import tqdm

from clipit_lib import paths
from clipit_lib.data.patches import PatchDataset
from clipit_lib.data.reports import ReportCorpus
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, written_beside
from clipit_lib.settings import known
from companion.profile import Profile, load_profile

# -- One question to a language model, at any endpoint that speaks OpenAI's chat completions.
#
# What passes by itself (a full queue, a server at fault, a broken line) is tried again, ever later.
# What does not (a wrong key, an unknown model) is said at once.


Message = dict[str, str]
Sleep = Callable[[float], None]
# Seconds before the first repetition; doubled each time, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# A server that asks for more patience than this many seconds is not waited for.
PATIENCE = 900.0
# Openings of an answer that is no report; where a server marks a refusal itself, that counts.
REFUSALS = (
    "i'm sorry",
    "i am sorry",
    "sorry, ",
    "i can't",
    "i cannot",
    "i am unable",
    "i'm unable",
    "as an ai",
)


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, whom, and how.

    Attributes:
        url: up to and without `/chat/completions`, for example https://HOST/v1.
        model: as the endpoint calls it.
        key: sent as a bearer token; None for a server that wants none. Never shown.
        temperature: of sampling; 0 would make all answers alike.
        timeout: seconds without a byte from the server.
        attempts: how often a question is sent before its fault counts.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    temperature: float = 1.0
    timeout: float = 120.0
    attempts: int = 6

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


@dataclass(frozen=True)
class Answer:
    """What came back: `text`, or why there is none to use (`fault`)."""

    text: str
    fault: str | None = None


class _Passing(Exception):
    """A fault that may be gone the next time, and after how many seconds the server says so."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _Bearer(requests.auth.AuthBase):
    """The key alone; an empty one also keeps `requests` from sending what ~/.netrc holds."""

    def __init__(self, key: str | None) -> None:
        self.key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def ask(
    endpoint: Endpoint, messages: Sequence[Message], seed: int, sleep: Sleep = time.sleep
) -> Answer:
    """Send one question until it is answered.

    Too many requests (429), faults of the server (5xx), timeouts, broken connections and answers
    that are not those of a chat completion are tried again, `endpoint.attempts` times in all,
    after 1, 2, 4, ... seconds or as long as the server asks for (Retry-After).

    Raises:
        ClipItError: the last attempt failed too, or the server refuses the question itself.
    """
    body = {
        "model": endpoint.model,
        "messages": list(messages),
        "temperature": endpoint.temperature,
        "seed": seed,
    }
    last = "was not asked"
    for attempt in range(endpoint.attempts):
        try:
            return _read(_post(endpoint, body))
        except _Passing as fault:
            last = str(fault)
            wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) if fault.wait is None else fault.wait
        if wait > PATIENCE:
            last += f", asks to wait {wait:.0f} s"
            break
        if attempt + 1 < endpoint.attempts:
            sleep(wait)
    raise ClipItError(
        last, endpoint.address, "Run the same command later: what was answered before is kept"
    )


def _post(endpoint: Endpoint, body: dict[str, Any]) -> requests.Response:
    try:
        response = requests.post(
            endpoint.address,
            json=body,
            auth=_Bearer(endpoint.key),
            timeout=endpoint.timeout,
            allow_redirects=False,  # reports go nowhere but where the user said
        )
    except requests.Timeout:
        raise _Passing(f"no answer within {endpoint.timeout:g} s") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise _Passing(f"no connection ({type(error).__name__})") from None
    except requests.RequestException as error:
        raise ClipItError(
            _one_line(str(error), endpoint.key), endpoint.address, "Mend --endpoint or the key"
        ) from None
    if response.status_code == 429 or response.status_code >= 500:
        said = _said(response, endpoint.key)
        raise _Passing(f"answers {response.status_code}{said}", _retry_after(response))
    if response.status_code != 200:
        advice = {
            401: "Set CLIPIT_LLM_KEY to a key of this endpoint",
            403: "Use a key that may use this model",
            404: "Mend --endpoint or --model",
        }.get(response.status_code, "Mend the request: --endpoint, --model or --temperature")
        said = _said(response, endpoint.key)
        raise ClipItError(f"answers {response.status_code}{said}", endpoint.address, advice)
    return response


def _read(response: requests.Response) -> Answer:
    """The first choice of a chat completion."""
    try:
        choice = response.json()["choices"][0]
        message = choice["message"]
        text = (message.get("content") or "").strip()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _Passing("the answer is not a chat completion in JSON") from None
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Answer(text, "refused")
    if text.lower().replace("\u2019", "'").startswith(REFUSALS):
        return Answer(text, "refused")
    if not text:
        return Answer(text, "empty")
    return Answer(text, "cut short" if choice.get("finish_reason") == "length" else None)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, given as such or as a date."""
    value = response.headers.get("Retry-After", "")
    if value.strip().isdigit():
        return float(value)
    try:
        seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0)


def _said(response: requests.Response, key: str | None) -> str:
    """The server's own words in brackets, on one line and without the key."""
    try:
        error = response.json()["error"]
        words = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        return ""
    return f" ({_one_line(str(words), key)})"


def _one_line(words: str, key: str | None) -> str:
    words = words.replace(key, "[key]") if key else words
    return " ".join(words.split())[:160]


# -- How a language model is asked for reports, and what that takes (appendix F.5).


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


# -- Answers kept one a line as they come, so that nothing paid for is asked again.


Key = tuple[str, int]


@dataclass(frozen=True)
class Entry:
    """A report: its class, its number, a digest of all that asked for it, and its text."""

    class_name: str
    number: int
    request: str
    text: str


@dataclass(frozen=True)
class Journal:
    """A file of entries, one JSON object a line. What follows the last line end was cut off in
    the middle of writing and does not count."""

    path: Path

    def entries(self) -> dict[Key, Entry]:
        """All whole entries by class and number; none if there is no file.

        Raises:
            ClipItError: a whole line is not an entry.
        """
        found = {}
        whole = self.path.read_bytes()[: self._whole()] if self.path.exists() else b""
        for line, data in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                entry = Entry(**json.loads(data))
            except (ValueError, TypeError):
                raise ClipItError(
                    f"line {line} is not an answer", self.path, "Delete this line and run again"
                ) from None
            found[entry.class_name, entry.number] = entry
        return found

    def open_to_append(self) -> None:
        """Make the file and cut off what follows the last line end.

        Raises:
            ClipItError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.truncate(self._whole())
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, entry: Entry) -> None:
        """Write an entry through to the disk.

        Raises:
            ClipItError: it cannot be written.
        """
        line = canonical_json(vars(entry)) + "\n"
        try:
            with self.path.open("ab") as stream:
                stream.write(line.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _whole(self) -> int:
        """Bytes up to and with the last line end."""
        return self.path.read_bytes().rfind(b"\n") + 1

    def _unwritable(self, error: OSError) -> ClipItError:
        return ClipItError(
            f"cannot write ({error.strerror})", self.path, "Free space or name another --output"
        )


# -- Reports written by a language model, class by class, after ten real ones (appendix F.5).


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


# -- `synthesize`: have a language model write reports for the classes of a data set (table 7).


def main(arguments: list[str]) -> None:
    """Write a csv (id, class, text) of reports that a language model makes up, after real ones.

    Any endpoint that speaks OpenAI's chat completions will do, one on this machine too. Its key
    is read from the environment variable CLIPIT_LLM_KEY. Answers are kept as they come in a
    .jsonl beside the csv: the same command again asks only for what is missing.
    """
    given = _parser().parse_args(arguments)
    output: Path = given.output
    if output.suffix != ".csv":
        raise ClipItError(f"unknown kind of file {output.suffix!r}", "--output", "Name a .csv")
    endpoint = Endpoint(
        given.endpoint,
        given.model,
        key=paths.language_model_key(),
        temperature=given.temperature,
        timeout=given.timeout,
    )
    data, corpus = _opened(load_profile(given.profile), given.dataset)
    examples = choose_examples(corpus.texts, given.examples, given.seed)
    classes = dict(zip(data.classes, data.class_texts, strict=True))
    wanted = orders(classes, corpus.organ, examples, given.per_class, given.seed)
    journal = output.with_suffix(".jsonl")
    todo = remaining(endpoint, wanted, journal)
    if given.dry_run:
        for message in wanted[0].messages:
            print(f"--- {message['role']}\n{message['content']}\n")
    print(f"{len(wanted) - len(todo)} of {len(wanted)} reports are kept in {journal}")
    print(f"to do: {estimate(todo, examples, given.price_in, given.price_out)}")
    if given.dry_run:
        return
    if todo and examples:
        _consent(corpus, len(examples), endpoint, given.yes)
    try:
        outcome = generate(endpoint, wanted, journal)
    except KeyboardInterrupt:
        raise ClipItError("stopped", journal, "The same command again goes on from here") from None
    write_csv(wanted, outcome.texts, output)
    print(f"{len(outcome.texts)} reports in {output}")
    if outcome.missing:
        first, fault = next(iter(outcome.missing.items()))
        raise ClipItError(
            f"{len(outcome.missing)} of {len(wanted)} reports are missing, first {first} ({fault})",
            output,
            "Run the same command again to ask for them once more",
        )


def _opened(profile: Profile, dataset: str) -> tuple[PatchDataset, ReportCorpus]:
    """A data set and its reports, without the encoders that a workbench brings."""
    settings = profile.data_settings(dataset)
    known(settings.corpus, profile.corpora, "corpus", f"profile {profile.name}")
    corpus = profile.corpora[settings.corpus].open(settings.corpus)
    return settings.open(dataset), corpus


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
    if not sys.stdin.isatty():
        raise ClipItError("nobody to ask for consent", "synthesize", "Add --yes if you agree")
    if input("Send them? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ClipItError("not sent, as you wish", "synthesize", "Add --examples 0 to send none")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m companion synthesize", description=main.__doc__
    )
    add = parser.add_argument
    add("--profile", default="demo")
    add("--dataset", required=True, help="a data set of the profile: its classes, its reports")
    add("--endpoint", required=True, help="address without /chat/completions: https://HOST/v1")
    add("--model", required=True, help="as the endpoint calls it")
    add("--output", required=True, type=Path, help="the csv to write")
    add(
        "--per-class",
        type=_whole(1),
        default=PER_CLASS,
        help="reports of each class",
    )
    add("--examples", type=_whole(0), default=EXAMPLES, help="real reports shown")
    add("--temperature", type=float, default=1.0)
    add("--seed", type=_whole(0), default=0, help="of the choice of examples and of each request")
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer")
    add("--price-in", type=float, help="of a million prompt tokens")
    add("--price-out", type=float, help="of a million completion tokens")
    add("--dry-run", action="store_true", help="print the first request and an estimate, only")
    add("--yes", action="store_true", help="agree that the examples leave this machine")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return read
