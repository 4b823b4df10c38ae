"""The page: whole, offline, readable by everyone, and silent about what may not be shown."""

from __future__ import annotations

import base64
import io
import itertools
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.figures import gallery
from clipit_lib.report.page import page, write
from clipit_lib.settings import load_profile

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
EVIL = "<script>alert('class')</script>"


def png(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format="PNG")
    return stream.getvalue()


def shown(picture: bytes) -> Any:
    data = {"image/png": base64.b64encode(picture).decode()}
    return new_code_cell("show()", outputs=[new_output("display_data", data)])


def said(**data: str) -> Any:
    kinds = {kind.replace("_", "/"): text for kind, text in data.items()}
    return new_code_cell("say()", outputs=[new_output("display_data", kinds)])


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Executed notebooks of a pilot and a smoke profile, made here."""
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    for profile in ("smoke", "pilot"):
        figures = paths.figures(profile)
        figures.mkdir(parents=True)
        (figures / "table1.png").write_bytes(png(1))
        (figures / "table1.runs.json").write_text('["a", "b"]')
        raw = f"<table><tr><th>class</th></tr><tr><td>raw {EVIL}</td></tr></table>"
        table = pd.DataFrame({"class": [EVIL]}).to_html()  # escapes, as notebooks do
        notebooks = {
            "01_pairing__crc5": [
                new_markdown_cell("# 01 · Pairing\n\nSome patches."), shown(png(7)),
            ],
            "03_table1": [
                new_markdown_cell(
                    "# 03 · Table 1\n\n**Question.** Is $\\lambda$ large? See "
                    "[the paper](https://arxiv.org/abs/2504.16181)."
                ),
                new_code_cell("secret_of_the_code = 1"),
                said(text_html=table, text_plain="class"),
                said(text_html=raw, text_plain="class"),
                said(text_plain=EVIL),
                new_markdown_cell("## Result\n\n### Detail"),
                shown(png(1)), shown(png(1)), shown(png(8)),
            ],
        }  # fmt: skip
        folder = paths.executed_notebooks(profile)
        folder.mkdir(parents=True)
        for name, cells in notebooks.items():
            nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
        (folder / "04_table2.failed.ipynb").write_text("{}")
    claims = "| id | verdict |\n|---|---|\n| x | y |\n"
    (paths.results("smoke") / "claims.md").write_text(claims)
    return tmp_path


def parsed(profile: str) -> BeautifulSoup:
    return BeautifulSoup(page(load_profile(profile)), "html.parser")


def test_the_page_is_one_file_that_needs_no_network(results: Path) -> None:
    soup = parsed("smoke")
    for tag in soup.find_all(["img", "script", "link", "iframe", "source"]):
        source = tag.get("src") or tag.get("href") or "data:"
        assert source.startswith("data:"), tag
    links = [a["href"] for a in soup.find_all("a", href=True)]
    assert "https://arxiv.org/abs/2504.16181" in links  # a link to follow, nothing to load
    assert page(load_profile("smoke")) == page(load_profile("smoke"))


def test_headings_images_and_tables_can_be_read_aloud(results: Path) -> None:
    soup = parsed("smoke")
    assert soup.html["lang"] == "en" and soup.title.text.strip()
    levels = [int(tag.name[1]) for tag in soup.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(image.get("alt") for image in soup.find_all("img"))
    assert any(image["alt"] == gallery.MEANING["table1"] for image in soup.find_all("img"))
    assert all(head.get("scope") for head in soup.find_all("th"))
    ids = Counter(tag["id"] for tag in soup.find_all(id=True))
    assert max(ids.values()) == 1
    anchors = [a["href"][1:] for a in soup.find_all("a", href=True) if a["href"].startswith("#")]
    assert anchors and set(anchors) <= set(ids)


def test_order_code_and_figures(results: Path) -> None:
    text = page(load_profile("smoke"))
    soup = BeautifulSoup(text, "html.parser")
    heads = [tag.text for tag in soup.find_all("h2")]
    places = [
        next(k for k, head in enumerate(heads) if word in head)
        for word in ("Claims", "03 · Table 1", "Appendix", "made")
    ]
    assert places == sorted(places) and not any("04" in head for head in heads)
    code = next(tag for tag in soup.find_all("code") if "secret_of_the_code" in tag.text)
    folded = code.find_parent("details")
    assert folded is not None and not folded.has_attr("open")
    # The same figure twice is embedded once; a further one and the patches beside it.
    assert len(soup.find_all("img")) == 3


def test_what_came_from_data_is_no_markup(results: Path) -> None:
    soup = parsed("smoke")
    assert not any("alert(" in script.text for script in soup.find_all("script"))
    assert soup.text.count("alert('class')") >= 2  # as words, in the table and in the text


def test_the_phantom_and_the_stand_in_are_named_at_once(results: Path) -> None:
    for profile, words in (("smoke", "never tissue"), ("pilot", "stand in for it")):
        soup = parsed(profile)
        begin = soup.text[: soup.text.index("Contents")]
        assert words in begin


def test_patches_and_reports_that_are_not_ours_are_left_out(results: Path) -> None:
    soup = parsed("pilot")
    images = soup.find_all("img")
    assert [image["alt"] for image in images] == [gallery.MEANING["table1"]]
    assert soup.text.count("left out here") >= 2


def test_without_an_executed_notebook_it_says_what_to_run(results: Path) -> None:
    with pytest.raises(ClipItError, match=r"no executed notebook here.*run_all.sh --profile demo"):
        page(load_profile("demo"))
    assert not (paths.results("demo") / "report.html").exists()


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")
def test_a_browser_shows_it_without_error_or_request(results: Path, tmp_path: Path) -> None:
    path = write(load_profile("smoke"))
    log = tmp_path / "net.json"
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'browser'}", f"--log-net-log={log}", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "03 · Table 1" in ran.stdout
    assert "CONSOLE" not in ran.stderr  # how the browser logs errors of a page
    asked = log.read_text(encoding="utf-8", errors="replace")
    assert "arxiv.org" not in asked  # a link is not followed
