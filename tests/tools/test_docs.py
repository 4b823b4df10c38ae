"""The pages on how to extend this library do what they say: their code runs, block by block."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from clipit_lib import __version__
from clipit_lib.data.images import MEGAPIXELS
from clipit_lib.encoders import registry
from companion import paths, specs
from companion.__main__ import COMMANDS, main, parser
from companion.profile import Search, Workbench

DOCS = paths.repository() / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(page.stem for page in DOCS.glob("add_a_*.md"))


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page adds is taken out again."""
    changed = (specs.SETTINGS, registry.ENCODERS)
    before = [dict(each) for each in changed]
    yield
    for each, old in zip(changed, before, strict=True):
        each.clear()
        each.update(old)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, registries: None, bench: Workbench) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks and any("assert" in block for block in blocks)
    names: dict[str, object] = {"__name__": page}
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), names)


def test_there_is_a_page_for_each_part() -> None:
    assert PAGES == ["add_a_backbone", "add_a_clip_model", "add_a_control", "add_a_data_set"]


def test_files_that_the_pages_name_exist() -> None:
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:clipit_lib|companion|tests)/[a-z0-9_/]+\.py)`", text):
            assert (paths.repository() / name).exists(), f"{page.name} names {name}"


def test_links_between_pages_lead_somewhere() -> None:
    here = paths.repository()
    for page in [here / "README.md", *DOCS.glob("*.md")]:
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        inside = [link for link in links if not link.startswith("http")]
        lost = [link for link in inside if not (page.parent / link).exists()]
        assert lost == [], page


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the site's settings define, where one notebook of `smoke` has run for one cell."""
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    (ran := tmp_path / "results/smoke/notebooks").mkdir(parents=True)
    book = (paths.notebooks() / "02_training.ipynb").read_text(encoding="utf-8")
    for name in ("02_training__a__b.ipynb", "03_table1.failed.ipynb"):
        (ran / name).write_text(book, encoding="utf-8")
    return runpy.run_path(str(DOCS / "site" / "conf.py"))


def test_the_site_holds_every_notebook_every_page_and_what_they_link_to(
    site: dict[str, Any],
) -> None:
    places = site["files"]("smoke")
    asked = {f"notebooks/{path.name}" for path in paths.notebooks().glob("*.ipynb")}
    ran = "notebooks/02_training__a__b.ipynb"
    assert {place for place in places if place.startswith("notebooks/")} == (
        asked - {"notebooks/02_training.ipynb"} | {ran}
    )
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} < set(places)
    linked = {"README.md", "figures/README.md", "figures/pilot/controls.png", "LICENSE"}
    assert linked | {"results/kernels.md"} < set(places)
    assert all(path.is_file() for path in places.values())
    titles = [
        "".join(json.loads(site["page"](place, places[place]))["cells"][0]["source"]).split("\n\n")
        for place in (ran, "notebooks/03_table1.ipynb")
    ]
    assert titles[0][0].endswith("CLIP-IT (a, b)") and titles[0][1].startswith("**Question")
    assert titles[1][1] == "*Not executed in this profile: this is its source.*"


@pytest.mark.slow
def test_the_site_is_built_whole_for_offline(site: dict[str, Any], tmp_path: Path) -> None:
    """By run_all.sh, warnings as errors: every link inside it leads to a file of it."""
    pytest.importorskip("sphinx_book_theme", reason="requirements-site.lock is not installed")
    command = [paths.repository() / "run_all.sh", "--site", "--profile", "smoke"]
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "results/smoke").iterdir()} == {"notebooks", "site"}
    built = tmp_path / "results/smoke/site"
    every = [page for page in built.rglob("*.html") if page.parent.name != "_static"]
    pages = {str(page.relative_to(built)): page for page in every}  # `_static` has templates
    sources = [Path(place) for place in site["files"]("smoke")]
    texts = [place for place in sources if place.suffix in (".md", ".ipynb")]
    assert {"index.html", *(str(place.with_suffix(".html")) for place in texts)} < set(pages)
    assert 'id="clipit_lib.pairing.top_k"' in pages["api/clipit_lib.pairing.html"].read_text()
    for page in pages.values():
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        assert "Author name not set" not in soup.text
        read = [
            tag.get("src") or tag["href"] for tag in soup.select("script[src], img, link[href]")
        ]
        links = [*read, *(tag["href"] for tag in soup.select("a[href]"))]
        assert not [each for each in read if each.startswith("http")], page
        inside = {each.partition("#")[0].partition("?")[0] for each in links if ":" not in each}
        assert not [each for each in inside if not (page.parent / each).exists()], page


def test_the_first_page_is_short() -> None:
    lines = (paths.repository() / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_what_it_does_and_shows_defaults(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    usage, about, *_ = (shown := capsys.readouterr().out).split("\n\n")
    assert usage.startswith(f"usage: python -m companion {command} ") and about.endswith(".")
    assert "None" not in shown and "False" not in shown


def test_every_argument_is_described_with_what_it_is_by_default() -> None:
    given = set()
    for what in COMMANDS.values():
        for name, options in what.arguments.items():
            flag, optional = "action" in options and "nargs" not in options, name.startswith("-")
            assert options["help"]
            if optional and not flag and not options.get("required"):
                by_hand = "default: " in options["help"] or "; needed" in options["help"]
                assert by_hand != (options.get("default") not in (None, [])), name
            given.add(name)
    assert "-p --profile" in given and not given & {"-p", "--profile"}


def test_defaults_are_those_of_the_code() -> None:
    parsed = parser().parse_args
    search = parsed(["search"])
    assert (search.trials, tuple(search.seeds)) == (Search().trials, Search().seeds)
    assert parsed(["predict", "model", "image"]).max_megapixels == MEGAPIXELS


@pytest.mark.parametrize(
    ("asked", "said"), [("--help", "  fetch "), ("-h", "  plan "), ("--version", __version__)]
)
def test_the_program_says_its_commands_and_its_version(
    asked: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([asked])
    shown = capsys.readouterr()
    assert said in shown.out and shown.err == ""


def test_help_waits_for_nothing_heavy() -> None:
    """Nor does the answer to a mistyped option. The script `clipit` is the same program."""
    project = tomllib.loads((paths.repository() / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"clipit": "companion.__main__:main"}
    program = (
        "import sys; from companion.__main__ import COMMANDS, main\n"
        "for asked in (['--help'], ['plan', '--nope'], *([name, '--help'] for name in COMMANDS)):\n"
        "    try: main(asked)\n"
        "    except SystemExit: pass\n"
        "print('LOADED', *sorted({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "LOADED"
