"""One question to a language model, at any endpoint that speaks OpenAI's chat completions.

What passes by itself (a full queue, a server at fault, a broken line) is tried again, ever later.
What does not (a wrong key, an unknown model) is said at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from clipit_lib.errors import ClipItError

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
