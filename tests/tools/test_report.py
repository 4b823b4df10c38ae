"""The report: one page, accessible, self-contained, and safe against what data say."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsers import BROWSER, QUIET
from bs4 import BeautifulSoup, Tag
from PIL import Image
from report_material import (
    EVIL,
    SENTENCE,
    png,
    profile_with_results,
)

from companion import paths
from companion.__main__ import main
from companion.claims import load_claims
from companion.figures import MEANING
from companion.profile import load_profile
from companion.report import HERE, PLACES, page


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("report")
    for profile in ("smoke", "pilot"):
        profile_with_results(folder, profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPIT_OUTPUT", str(folder))
        yield folder


@pytest.fixture(scope="module")
def report(output: Path) -> Path:
    assert main(["report", "--profile", "smoke"]) == 0
    return output / "results" / "smoke" / "report.html"


@pytest.fixture(scope="module")
def soup(report: Path) -> BeautifulSoup:
    return read(report.read_text(encoding="utf-8"))


def read(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def pixels(image: Tag) -> np.ndarray:
    data = base64.b64decode(str(image["src"]).partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_page_is_accessible(soup: BeautifulSoup) -> None:
    assert soup.html is not None and soup.html["lang"] == "en"
    assert soup.title is not None and "smoke" in soup.title.text
    levels = [int(heading.name[1]) for heading in soup.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert soup.find_all("img") and all(str(i.get("alt", "")).strip() for i in soup.find_all("img"))
    assert soup.find_all("th") and all(cell.get("scope") for cell in soup.find_all("th"))
    assert all(cell.text.strip() for cell in soup.find_all("th"))


def test_anchors_are_unique_and_resolve(soup: BeautifulSoup) -> None:
    ids = [str(element["id"]) for element in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    targets = [str(link["href"])[1:] for link in soup.find_all("a", href=re.compile("^#"))]
    targets += [str(e["aria-labelledby"]) for e in soup.find_all(attrs={"aria-labelledby": True})]
    assert len(targets) > 5 and set(targets) <= set(ids)


def test_nothing_is_loaded_from_elsewhere(soup: BeautifulSoup) -> None:
    for element in soup.find_all(src=True):
        assert str(element["src"]).startswith("data:")
    assert not soup.find_all(["link", "iframe", "object", "embed", "base"])
    assert all(str(a["href"]).startswith(("#", "https://arxiv.org")) for a in soup.find_all("a"))
    assert "url(" not in soup.style.text and "@import" not in soup.style.text
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_text_from_data_stays_text(soup: BeautifulSoup) -> None:
    (script,) = soup.find_all("script")
    assert script.text == (HERE / "script.js").read_text(encoding="utf-8")
    # In prose, in code, in a table of pandas and in a Markdown table.
    assert sum(EVIL in str(e.find(string=True)) for e in soup.find_all(["td", "code", "p"])) >= 3
    assert soup.text.count(EVIL) == 5
    assert not soup.find_all(href=re.compile("javascript"))


def test_warnings_and_paths_of_the_machine_are_left_out(soup: BeautifulSoup) -> None:
    assert "site-packages" not in soup.text and "Figure size" not in soup.text
    printed, *_ = soup.find_all("pre", class_="printed")
    assert printed.text == f"100%\n{SENTENCE}"


def test_order_and_what_is_said_at_once(soup: BeautifulSoup) -> None:
    titles = [heading.text for heading in soup.find_all("h2")]
    assert titles == [
        "Claims of the paper", "03 · Table & one", "12 · Cost",
        "Appendix: encoders, pairing, training", "How it was made",
    ]  # fmt: skip
    assert "have not been judged" in soup.find("section").text
    assert "they were before: 05_pareto." in soup.header.text
    assert "never tissue" in soup.header.text and "Phantom" in soup.header.find("strong").text
    appendix = next(e for e in soup.find_all("details") if "01 · Pairing (one)" in e.summary.text)
    assert not appendix.has_attr("open") and appendix.find("img")


def test_code_is_folded(soup: BeautifulSoup) -> None:
    folded = soup.find_all("details", class_="code")
    assert folded and not any(e.has_attr("open") for e in folded)
    assert [e.find("code").text for e in folded][:2] == ["import clipit_lib", f"x = '{EVIL}'"]


def test_a_figure_is_there_once_and_says_what_it_means(soup: BeautifulSoup) -> None:
    images = soup.find_all("img")
    assert len(images) == 4  # of seven in the notebooks
    assert images[0]["alt"] == MEANING["table1"]
    assert images[1]["alt"] == "Figure in: 12 · Cost"
    assert images[3]["alt"] == "Figure in: The patches"
    original = np.asarray(Image.open(io.BytesIO(png(1))))
    assert (pixels(images[0]) == original).all()
    figure = images[0].find_parent("figure")
    assert figure.figcaption.text == "figures/smoke/table1.svg, from 2 runs"
    link = soup.find("a", string="The figure shown above")
    assert link["href"] == f"#{figure['id']}"


def test_how_it_was_made(soup: BeautifulSoup) -> None:
    terms = [e.text for e in soup.find_all("dt")]
    facts = dict(zip(terms, (e.text for e in soup.find_all("dd")), strict=True))
    assert facts["Runs"].startswith("2 runs") and facts["Time"].startswith("1 h 1 min")
    assert facts["Peak memory"].startswith("2.0 GiB") and facts["Seeds"] == "0, 1"
    yaml = soup.find("summary", string="smoke.yaml").find_parent("details")
    assert "name: smoke" in yaml.text


def test_equal_inputs_give_equal_bytes(report: Path) -> None:
    assert page(load_profile("smoke")) == report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def judged(output: Path) -> Iterator[Path]:
    """The page with the demo's claims and steps beside the results of `smoke`."""
    came, own = paths.repository() / "results/demo", output / "results/smoke"
    files = ("claims.md", "claims.csv", "tables/controls_steps.csv", "tables/table1.csv")
    (own / "tables").mkdir(exist_ok=True)
    for name in files:
        shutil.copy(came / name, own / name)
    (picture := output / "figures/smoke/controls.png").write_bytes(png(5))
    (unseen := picture.with_name("ablations.png")).write_bytes(png(6))
    (made := own / "judged.html").write_text(page(load_profile("smoke")), encoding="utf-8")
    yield made
    for path in (made, unseen, picture, *(own / name for name in files)):
        path.unlink()


def test_the_picture_and_the_sentences_of_the_controls_open_the_page(judged: Path) -> None:
    opening = read(judged.read_text("utf-8")).header.find(class_="opening")
    assert (pixels(opening.img) == np.asarray(Image.open(io.BytesIO(png(5))))).all()
    said = opening.p.text
    assert said.startswith("On phantom-pcam (phantom_vit_s16) CLIP-IT adds to the probe -0.4 [")
    assert "LoRA alone gives -0.3 [-4.5, +3.9] undecided, its branch without text +0.9 " in said
    assert said.endswith(
        "The matched report adds +0.2 [-0.6, +1.0] points, equivalent; a gain of 1.1 would have "
        "been found with a power of 80%."
    )


def test_every_claim_is_a_row_with_its_verdict_and_links_that_lead_somewhere(judged: Path) -> None:
    soup = read(judged.read_text("utf-8"))
    kept = pd.read_csv(paths.repository() / "results/demo/claims.csv")
    section = soup.find("section")
    (heading,) = section.find_all(re.compile("^h[1-6]"))
    assert heading.text == "Claims of the paper"
    rows = section.find("table", id="ledger").tbody.find_all("tr")
    shown = {row.th.text: row.find(class_="verdict").text for row in rows}
    assert shown == dict(zip(kept["claim"], kept["verdict"], strict=True))
    assert len(rows) == len({row["id"] for row in rows}) == 29
    for row in rows:
        place, *others = row.find_all("a")
        assert place["href"].startswith("https://arxiv.org/html/2504.16181v5#")
        for link in (str(each["href"]) for each in others):
            assert soup.find(id=link[1:]) if link[0] == "#" else (judged.parent / link).is_file()
        asked = [["figure", "csv", "notebook"]] * ("Table 1" in place.text)
        asked += [["figure"]] * (place.text in ("Figure 5", "section 4.5"))
        assert [each.text for each in others] == (asked or [[]])[0]


def test_every_claim_has_a_place_here() -> None:
    for claim in load_claims().claims:
        (_, notebook, figure) = next(PLACES[each] for each in PLACES if each in claim.where)
        assert (paths.notebooks() / f"{notebook}.ipynb").exists() and figure in MEANING


def test_data_that_may_not_be_shared_are_left_out(output: Path) -> None:
    text = page(load_profile("pilot"))
    soup = read(text)
    image, course = soup.find_all("img")  # the kept figure and what is drawn from numbers alone
    assert image["alt"] == MEANING["table1"]
    assert (pixels(course) == np.asarray(Image.open(io.BytesIO(png(4))))).all()
    assert SENTENCE not in soup.text
    # Its words are the code's own and names of the profile.
    assert [e.text for e in soup.find_all("pre", class_="printed")] == ["pilot: 27 runs, key 0a1b"]
    left_out = [e.text for e in soup.find_all(class_="withheld")]
    assert all("patches or reports that are not ours" in words for words in left_out)
    assert sum("A picture" in words for words in left_out) == 2
    assert sum("Printed text" in words for words in left_out) == 3
    assert EVIL in soup.find("td").text  # tables hold numbers and names, and stay
    assert "Stand-in retriever" in soup.header.text and "Phantom" not in soup.header.text


def test_a_profile_that_was_not_run_is_an_error_of_one_line(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--profile", "demo"]) == 2
    assert "no executed notebook here. Run ./run_all.sh --profile demo" in capsys.readouterr().err


ONCE = (
    "--headless", "--virtual-time-budget=4000", "--allow-file-access-from-files",
    "--enable-logging=stderr",
)  # fmt: skip
browser = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is here")


def browse(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    folder = f"--user-data-dir={path.parent / 'browser'}"
    command = [str(BROWSER), *QUIET, *ONCE, folder, *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def requests(path: Path) -> tuple[str, set[str]]:
    """What the browser's console says, and the addresses that the page asks for."""
    log = path.with_suffix(".net.json")
    seen = browse(path, "--dump-dom", f"--log-net-log={log}")
    # One event a line. What the browser asks for its own ends has no origin.
    events = log.read_text(encoding="utf-8").splitlines()
    started = [e for e in events if '"initiator":' in e and '"initiator":"not an origin"' not in e]
    asked = re.findall(r'"url":"(https?://[^"]+)"', "\n".join(started))
    console = "\n".join(line for line in seen.stderr.splitlines() if "CONSOLE" in line)
    return console, set(asked)


@browser
def test_a_browser_has_nothing_to_complain_of_and_asks_no_network(report: Path) -> None:
    console, asked = requests(report)
    assert console == ""
    assert not asked
    # The same would be seen of a page that does ask, and its policy would not let it.
    other = report.with_name("other.html")
    text = report.read_text(encoding="utf-8")
    other.write_text(text.replace("<main", "<img src='http://127.0.0.1:9/x.png'><main"))
    assert "Content Security Policy" in requests(other)[0]
    other.write_text("<img src='http://127.0.0.1:9/x.png'>")
    assert "http://127.0.0.1:9/x.png" in requests(other)[1]


@browser
def test_it_fits_a_phone_sorts_its_claims_and_unfolds_on_paper(judged: Path) -> None:
    frame = judged.with_name("frame.html")
    frame.write_text(
        f"""<iframe src='{judged.name}' width='360' height='700'></iframe><script>
        const frame = document.querySelector("iframe");
        frame.onload = () => {{
            const page = frame.contentDocument, root = page.documentElement;
            const folded = () => page.querySelectorAll("details:not([open])").length;
            const said = {{width: root.clientWidth, content: root.scrollWidth, folded: folded()}};
            const verdicts = () => [...page.querySelectorAll("td.verdict")];
            said.right = Math.max(...verdicts().map((e) => e.getBoundingClientRect().right));
            const [, , , ours, verdict] = page.querySelectorAll("#ledger thead button");
            verdict.click();
            said.up = verdicts().map((e) => e.textContent);
            verdict.click();
            said.down = verdicts().map((e) => e.textContent);
            said.sorted = page.querySelector("#ledger [aria-sort]").getAttribute("aria-sort");
            ours.click();
            said.ours = page.querySelector("#ledger tbody tr td[data-name=ours]").textContent;
            said.contents = page.querySelector("details.contents").open;
            page.getElementById("all-code").click();
            said.code = page.querySelectorAll("details.code:not([open])").length;
            frame.contentWindow.dispatchEvent(new Event("beforeprint"));
            said.printed = folded();
            said.button = page.getElementById("all-code").hidden;
            document.body.dataset.said = JSON.stringify(said);
        }};</script>"""
    )
    said = json.loads(str(read(browse(frame, "--dump-dom").stdout).body["data-said"]))
    assert said["content"] <= said["width"] <= 360
    assert said["folded"] > 3 and said["code"] == 0 and said["printed"] == 0
    assert said["button"] is False and said["contents"] is False
    assert said["right"] <= 360
    assert said["up"] == sorted(said["up"]) and said["down"] == sorted(said["up"], reverse=True)
    assert said["sorted"] == "descending" and said["ours"] == "-12.1 [-20.0, -4.1] points"
