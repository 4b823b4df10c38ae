"""The command `synthesize`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from chat import KEY, UNUSABLE, Server

from companion.__main__ import main


@pytest.fixture
def command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("CLIPIT_LLM_KEY", f" {KEY}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal

    def run(*more: str) -> int:
        return main(
            [
                *("synthesize", "--profile", "smoke", "--dataset", "phantom-pcam"),
                *("--endpoint", server.url, "--model", "small", "--per-class", "2"),
                *("--output", str(tmp_path / "s.csv"), *more),
            ]
        )

    return run


def test_the_command(
    command: Callable[..., int], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--dry-run", "--price-in", "1", "--price-out", "2") == 0
    shown = capsys.readouterr().out
    assert "Example report 10:" in shown and "normal lymph node tissue" in shown
    assert "4 requests, about" in shown and "cost about 0." in shown
    assert server.asked == [] and list(tmp_path.iterdir()) == []

    assert command() == 2  # nobody to consent
    printed = capsys.readouterr()
    assert "WARNING: 10 reports of the corpus phantom-breast" in printed.out
    assert "must hold the right" in printed.out
    assert "Add --yes" in printed.err and server.asked == []

    assert command("--yes") == 0
    assert "4 reports in" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "s.csv")["class"].tolist() == ["no_tumor"] * 2 + ["tumor"] * 2
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert {len(body["messages"]) for body in server.asked} == {2}

    assert command() == 0  # nothing left to send, so nothing to agree to
    assert len(server.asked) == 4


def test_the_command_says_what_is_missing(
    command: Callable[..., int], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [UNUSABLE["empty"]] * 3
    assert command("--examples", "0") == 2  # no example leaves: no consent needed
    printed = capsys.readouterr()
    assert "1 of 4 reports are missing, first no_tumor-0001 (empty)" in printed.err
    assert "WARNING" not in printed.out and len(pd.read_csv(tmp_path / "s.csv")) == 3
    assert KEY not in printed.out + printed.err


def test_the_command_wants_a_csv(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--output", "reports.txt") == 2
    assert "unknown kind of file '.txt'" in capsys.readouterr().err
