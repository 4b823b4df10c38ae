"""Reports of a language model: asked for, kept, asked for again."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from chat import (
    CLASSES,
    KEY,
    UNUSABLE,
    Clock,
    Reply,
    Server,
    answered,
    chat,
    endpoint,
    error_of,
    failing,
    some_orders,
)

from clipit_lib.data.reports import FileCorpus
from clipit_lib.errors import ClipItError
from companion import synthesize
from companion.synthesize import Endpoint
from companion.synthetic import SyntheticCorpus


def test_reports_are_asked_for_kept_and_opened(server: Server, tmp_path: Path) -> None:
    wanted, output = some_orders(), tmp_path / "folder" / "synthetic.csv"
    texts, missing = synthesize.generate(endpoint(server), wanted, output.with_suffix(".jsonl"))
    assert list(texts) == [order.id for order in wanted] and not missing
    assert set(server.paths) == {"/v1/chat/completions"}
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert [body["seed"] for body in server.asked] == [order.seed for order in wanted]
    assert {(body["model"], body["temperature"]) for body in server.asked} == {("small", 1.0)}
    assert server.asked[0]["messages"] == list(wanted[0].messages)

    synthesize.write_csv(wanted, texts, output)
    table = pd.read_csv(output)
    assert table.columns.tolist() == ["id", "class", "text"]
    assert table["class"].tolist() == ["N", "N", "N", "T", "T", "T"]
    assert dict(zip(table["id"], table["text"], strict=True)) == texts
    assert "\nand" in table["text"][0]
    opened = SyntheticCorpus(
        source="synthetic", path=str(output), organ="colon", licence="mine"
    ).open("s")
    assert opened.ids == tuple(table["id"]) and (opened.organ, opened.licence) == ("colon", "mine")
    assert opened.texts[0] == "Report 1, with a comma and a second line."
    assert FileCorpus(source="file", path=str(output)).open("s").texts == opened.texts
    assert KEY not in output.with_suffix(".jsonl").read_text() + output.read_text()


def test_a_server_that_wants_no_key_is_sent_none(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of-another-service")
    answered(endpoint(server, key=None))
    answered(endpoint(server))
    assert "Authorization" not in server.headers[0]
    assert "of-another-service" not in str(server.headers)


def test_a_full_queue_is_waited_for(server: Server, clock: Clock) -> None:
    server.script = [failing(429, Retry_After="7"), failing(503), chat("fine")]
    answer = answered(endpoint(server))
    assert answer.text == "fine" and answer.fault is None
    assert clock.waits[0] == 7.0 and 0.75 <= clock.waits[1] <= 1.0
    assert server.asked[0] == server.asked[1] == server.asked[2]


def test_a_server_may_name_a_date_but_not_an_hour(server: Server, clock: Clock) -> None:
    server.script = [
        failing(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        failing(429, Retry_After="3600"),
    ]
    said = error_of(lambda: answered(endpoint(server)))
    assert len(clock.waits) == 1 and clock.waits[0] <= 0.5
    assert "answers 429 (no). Run the same command later" in said


def test_three_faults_of_the_server_end_in_one_line_and_keep_the_rest(
    server: Server, tmp_path: Path, clock: Clock
) -> None:
    server.script = [chat("first"), chat("second"), *[failing(500, "out of\norder")] * 3]
    journal = tmp_path / "s.jsonl"
    said = error_of(lambda: synthesize.generate(endpoint(server), some_orders(), journal))
    assert "answers 500 (out of order). Run the same command later" in said
    assert len(clock.waits) == 2
    assert [json.loads(line)["text"] for line in journal.read_text().splitlines()] == [
        "first",
        "second",
    ]
    kept = synthesize.kept(endpoint(server), some_orders(), journal)
    assert kept == {"N-0001": "first", "T-0001": "second"}


def test_an_interrupted_run_goes_on_without_asking_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, wanted = tmp_path / "s.jsonl", some_orders()

    def stop(*_: float) -> None:
        raise KeyboardInterrupt

    server.script = [chat("first"), chat("second"), chat("third"), failing(500)]
    with monkeypatch.context() as patch:
        patch.setattr(Clock, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            synthesize.generate(endpoint(server), wanted, journal)
    # Killed in the middle of a line, in the middle of a letter of two bytes.
    journal.write_bytes(journal.read_bytes() + '{"class_name": "T", "text": "é'.encode()[:-1])
    before = len(server.asked)
    # More reports may be asked for later: those that are there still count.
    texts, _ = outcome = synthesize.generate(endpoint(server), some_orders(4), journal)
    assert len(texts) == 8
    assert list(texts.values())[:3] == ["first", "second", "third"]
    assert server.numbers()[before:] == [
        f"Write synthetic report {number}. Organ: colon. The slide shows: {CLASSES[name]}."
        for number, name in [(2, "T"), (3, "N"), (3, "T"), (4, "N"), (4, "T")]
    ]
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 8
    again = synthesize.generate(endpoint(server), some_orders(4), journal)
    assert again == outcome and len(server.asked) == before + 5


def test_a_journal_of_other_requests_is_not_mixed_in(server: Server, tmp_path: Path) -> None:
    journal = tmp_path / "s.jsonl"
    synthesize.generate(endpoint(server), some_orders(), journal)
    for other, wanted in [
        (endpoint(server, model="large"), some_orders()),
        (endpoint(server, temperature=0.5), some_orders()),
        (endpoint(server), some_orders(seed=1)),
    ]:
        said = error_of(lambda o=other, w=wanted: synthesize.kept(o, w, journal))
        assert "report N-0001 was asked for otherwise" in said
    moved = endpoint(server, url="https://elsewhere.example/v1", key=None)
    assert len(synthesize.kept(moved, some_orders(), journal)) == 6


def test_a_damaged_journal_is_named(server: Server, tmp_path: Path) -> None:
    journal = tmp_path / "s.jsonl"
    synthesize.generate(endpoint(server), some_orders(1), journal)
    journal.write_text(journal.read_text() + "nonsense\n")
    said = error_of(lambda: synthesize.generate(endpoint(server), some_orders(), journal))
    assert f"{journal}: line 3 is not an answer" in said


@pytest.mark.parametrize("body", ["<html>", "[]", '{"choices": []}', '{"choices": [{}]}', "5"])
def test_an_answer_that_is_no_completion_is_no_report(server: Server, body: str) -> None:
    server.script = [(200, {"Content-Type": kind}, body) for kind in ("text/html", "text/json")]
    for _ in range(2):
        assert answered(endpoint(server)).fault == "no chat completion in JSON"


def test_a_wrong_key_is_said_at_once_and_not_shown(
    server: Server, tmp_path: Path, clock: Clock
) -> None:
    server.script = [failing(401, f"Incorrect API key provided: {KEY}.")]
    journal = tmp_path / "s.jsonl"
    said = error_of(lambda: synthesize.generate(endpoint(server), some_orders(), journal))
    assert "answers 401 (Incorrect API key provided: [key].). Set CLIPIT_LLM_KEY" in said
    assert len(server.asked) == 1 and clock.waits == []
    assert KEY not in repr(endpoint(server))


@pytest.mark.parametrize("status", [301, 302, 307, 400, 403, 404, 422])
def test_other_refusals_are_not_tried_again(server: Server, status: int) -> None:
    server.script = [failing(status, Location=f"{server.url}elsewhere")]
    assert f"answers {status} (no)" in error_of(lambda: answered(endpoint(server)))
    assert len(server.asked) == 1


def test_a_server_without_a_key_is_quoted_on_one_line(server: Server) -> None:
    server.script = [failing(400, "too\nlong"), (400, {}, "<html>\nBad request")]
    assert "answers 400 (too long). Fix the request" in error_of(
        lambda: answered(endpoint(server, key=None))
    )
    assert "answers 400. Fix the request" in error_of(lambda: answered(endpoint(server, key=None)))


@pytest.mark.parametrize("key", ["two\nlines", "sk-ключ"])
def test_a_key_that_no_header_can_hold_is_not_shown(server: Server, key: str) -> None:
    with pytest.raises(ClipItError, match="the key holds odd characters") as caught:
        endpoint(server, key=key)
    assert key not in str(caught.value)


def test_nobody_at_the_address(clock: Clock) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        port = http.server_address[1]
    nobody = Endpoint(f"http://127.0.0.1:{port}", "small", retries=3)
    assert "no connection" in error_of(lambda: answered(nobody))
    assert len(clock.waits) == 3
    for url in ("ftp://somewhere", "https://", "localhost:8000/v1", "http://[::1/v1"):
        assert f"no address {url!r}" in error_of(lambda u=url: Endpoint(u, "small"))


def test_a_server_that_takes_too_long_is_asked_again(server: Server, clock: Clock) -> None:
    def late() -> Reply:
        time.sleep(0.3)
        return chat("late")

    server.script = [late, chat("in time"), late]
    assert answered(endpoint(server, timeout=0.1)).text == "in time"
    assert len(clock.waits) == 1
    said = error_of(lambda: answered(endpoint(server, timeout=0.1, retries=0)))
    assert "no answer within 0.1 s" in said


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_report_is_asked_for_anew_then_passed_over(
    server: Server, tmp_path: Path, kind: str
) -> None:
    wanted, journal = some_orders(2), tmp_path / "s.jsonl"
    server.script = [chat("first"), *[UNUSABLE[kind]] * 3, UNUSABLE[kind], chat("third")]
    texts, missing = synthesize.generate(endpoint(server), wanted, journal)
    assert list(texts) == ["N-0001", "N-0002", "T-0002"]
    assert texts["N-0002"] == "third"
    assert list(missing) == ["T-0001"]
    assert len({body["seed"] for body in server.asked}) == len(server.asked) == 7
    # The same again asks for the missing one only.
    assert not synthesize.generate(endpoint(server), wanted, journal)[1]
    assert len(server.asked) == 8


def test_a_model_that_refuses_everything_is_given_up(server: Server, tmp_path: Path) -> None:
    server.script = [UNUSABLE["refused"]] * 1000
    said = error_of(
        lambda: synthesize.generate(endpoint(server), some_orders(100), tmp_path / "s.jsonl")
    )
    assert "10 reports in a row came to nothing (the last: refused)" in said
    assert len(server.asked) == 30


def test_what_cannot_be_written_is_said_before_anything_is_sent(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    journal = tmp_path / "file" / "s.jsonl"
    said = error_of(lambda: synthesize.generate(endpoint(server), some_orders(), journal))
    assert "cannot write" in said and server.asked == []
