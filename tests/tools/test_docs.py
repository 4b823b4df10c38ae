"""The pages on how to extend this library do what they say: their code runs, block by block."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

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
        for name, options in what.arguments:
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
