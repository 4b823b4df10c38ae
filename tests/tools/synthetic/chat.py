"""A server on this machine that answers as a language model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from clipit_lib.errors import ClipItError
from companion import synthesize
from companion.synthesize import Answer, Endpoint, Order

KEY = "sk-secret-of-the-user"
CLASSES = {"N": "normal tissue", "T": "tumor"}
Reply = tuple[int, dict[str, str], str]


def chat(content: str | None, **choice: Any) -> Reply:
    message = {"role": "assistant", "content": content} | choice.pop("message", {})
    choices = [{"index": 0, "message": message, "finish_reason": "stop"} | choice]
    return 200, {}, json.dumps({"object": "chat.completion", "choices": choices})


def failing(status: int, message: str = "no", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message}})


@dataclass
class Server:
    """Answers with `script` first, then with a report of its own for each request."""

    url: str = ""
    script: list[Reply | Callable[[], Reply]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def reply(self) -> Reply:
        if self.script:
            first = self.script.pop(0)
            return first() if callable(first) else first
        return chat(f"Report {len(self.asked)}, with a comma\nand a second line.")

    def numbers(self) -> list[str]:
        """What was asked for: the end of each request up to the class."""
        wishes = [body["messages"][-1]["content"].rsplit("\n\n", 1)[-1] for body in self.asked]
        return [wish.split(" The report")[0] for wish in wishes]


def endpoint(server: Server, **changes: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "small", "key": KEY, "retries": 2} | changes)


def answered(asked: Endpoint) -> Answer:
    """What one question is answered with."""
    with asked.client() as client:
        return synthesize.ask(client, asked, some_orders()[0].messages, 5)


def some_orders(per_class: int = 3, seed: int = 0) -> list[Order]:
    examples = ["First real report.", "Second real report."]
    return synthesize.orders(CLASSES, "colon", examples, per_class, seed)


class Clock:
    """Stands for time.sleep of the client and notes what was waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClipItError) as caught:
        call()
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)
    return str(caught.value)


# Answers that are no report.
UNUSABLE = {
    "refused": chat("I\u2019m sorry, but I can't help with that."),
    "refused by the server": chat(None, message={"refusal": "no"}),
    "filtered": chat("Half a rep", finish_reason="content_filter"),
    "empty": chat("  \n"),
    "null": chat(None),
    "cut": chat("Half a rep", finish_reason="length"),
    "copied": chat("first"),
}
