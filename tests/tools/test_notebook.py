"""The papermill wrapper: parameters are checked, and only a whole notebook counts as done."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from clipit_lib.errors import ClipItError
from clipit_lib.settings import Strict, known
from companion import notebook, paths
from companion.__main__ import main

DECLARED = (
    'profile: str = "demo"\nscale: float = 1.0\nseeds: list[int] = [0]\nfast: bool = False\n'
    "count: int = 1"
)
SETUP = "from companion import notebook\np = notebook.parameters(globals())"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
SHOW = "print(vars(p))"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a notebook of code cells, after a parameters and a setup cell, where it is found."""
    monkeypatch.setattr(paths, "notebooks", lambda: tmp_path)

    def to(name: str, *cells: str) -> Path:
        first = nbformat.v4.new_code_cell(DECLARED, metadata={"tags": ["parameters"]})
        rest = [nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)]
        whole = nbformat.v4.new_notebook(cells=[first, *rest], metadata=KERNEL)
        nbformat.write(whole, tmp_path / f"{name}.ipynb")
        return tmp_path / f"{name}.ipynb"

    return to


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.text for cell in cells for out in cell.get("outputs", []) if "text" in out)


def papermill(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call papermill as a user would, without the wrapper."""
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(source), str(source) + ".out.ipynb", *arguments],
        env={**os.environ, "PYTHONPATH": str(paths.repository())},
        capture_output=True,
        text=True,
    )


def asked(given: str = "", **values: Any) -> Any:
    """`parameters` as the setup cell calls it, with the injected cell as papermill writes it."""
    namespace: dict[str, Any] = {"In": ["", "# On tissue", DECLARED, given, SETUP]}
    exec(DECLARED, namespace)
    return notebook.parameters({**namespace, **values})


def test_without_injection_the_defaults_are_returned() -> None:
    assert vars(asked()) == {
        "profile": "demo",
        "scale": 1.0,
        "seeds": [0],
        "fast": False,
        "count": 1,
    }


def test_a_list_given_as_text_is_read_as_json_and_an_integer_passes_for_a_float() -> None:
    given = asked("# Parameters\nseeds = '[3, 4]'\nscale = 2", seeds="[3, 4]", scale=2)
    assert given.seeds == [3, 4]
    assert given.scale == 2.0


def test_an_unknown_parameter_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ClipItError, match=r"unknown parameter 'datset'.*count, fast, profile"):
        asked("# Parameters\ndatset = 1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile", 3),
        ("scale", "fast"),
        ("seeds", "0,1"),
        ("seeds", '["a"]'),
        ("seeds", 3),
        ("fast", 1),
        ("count", True),
        ("count", 1.5),
        ("count", None),
    ],
)
def test_a_wrong_type_is_an_error_that_names_parameter_value_and_type(
    name: str, value: Any
) -> None:
    with pytest.raises(ClipItError, match=rf"{name} is .*Give {name} as (str|float|list|bool|int)"):
        asked(f"# Parameters\n{name} = {value!r}", **{name: value})


def test_an_executed_notebook_holds_its_values_and_runs_under_this_python(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "jupyter/kernels/python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "other", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write("00_ok", SHOW, "import sys; print(sys.executable)", "")
    output = tmp_path / "deep/er/out.ipynb"
    command = ["notebook", "00_ok", "--output", str(output), "--set", "seeds", "[1, 2]"]
    assert main([*command, "-p", "smoke"]) == 0
    assert "'profile': 'smoke'" in printed(output)
    assert "'seeds': [1, 2]" in printed(output)
    assert sys.executable in printed(output)
    assert [path.name for path in output.parent.iterdir()] == ["out.ipynb"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("raise ValueError('first\\nlast')", r"In \[4\]: ValueError: last\. "),
        (
            "from clipit_lib.errors import ClipItError\nraise ClipItError('a', 'b', 'c')",
            r"In \[4\]: b: a\. c\. ",
        ),
        (
            "from pydantic import TypeAdapter\nTypeAdapter(int).validate_python('two')",
            r"In \[4\]: ValidationError: 1 validation error for int: Input should be a valid",
        ),
        ("raise SystemExit", r"stopped early at 'raise SystemExit'"),
        ("import sys; sys.exit()", r"stopped early at 'import sys"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"kernel: Kernel died"),
    ],
)
def test_a_notebook_that_does_not_complete_leaves_only_its_failed_copy(
    write: Write, tmp_path: Path, cell: str, text: str
) -> None:
    write("00_bad", cell, SHOW)
    output = tmp_path / "out/bad.ipynb"
    output.parent.mkdir()
    output.write_text("from an earlier run")
    with pytest.raises(ClipItError, match=text) as caught:
        notebook.execute("00_bad", output, {"profile": "smoke"})
    assert "\n" not in str(caught.value)
    assert output.read_text() == "from an earlier run"
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "bad.failed.ipynb",
        "bad.ipynb",
    ]


def test_kernels_that_start_together_cannot_meet(write: Write, tmp_path: Path) -> None:
    write("00_ok", "import json", "from ipykernel.connect import get_connection_info",
          "print(json.dumps(json.loads(get_connection_info())))")  # fmt: skip
    seen = []
    for name in ("one", "two"):
        notebook.execute("00_ok", tmp_path / f"{name}.ipynb", {})
        seen.append(json.loads(printed(tmp_path / f"{name}.ipynb")))
    assert {each["transport"] for each in seen} == {"ipc"}
    folders = {Path(each["ip"]).parent for each in seen}
    assert len(folders) == 2 and not any(folder.exists() for folder in folders)
    assert all(folder.is_absolute() for folder in folders)


def test_a_deep_temporary_folder_and_braces_in_names_do_not_stop_a_kernel(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("scratch" * 12)  # the path of a socket has some 100 bytes at most
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.setattr(paths, "notebooks", lambda: tmp_path / "{v1}")
    (tmp_path / "{v1}").mkdir()
    write("00_ok", SHOW).rename(tmp_path / "{v1}" / "00_ok.ipynb")
    notebook.execute("00_ok", tmp_path / "{v2}" / "out.ipynb", {})
    assert "'profile': 'demo'" in printed(tmp_path / "{v2}" / "out.ipynb")
    assert list(deep.iterdir()) == []


def test_a_kernel_knows_folders_and_profile_as_the_command_does(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user: $HOME"
    user.mkdir()
    monkeypatch.chdir(user)
    monkeypatch.setenv("CLIPIT_OUTPUT", "out")
    smoke = (paths.profiles() / "smoke.yaml").read_text()
    Path("mine.YAML").write_text(smoke.replace("name: smoke", "name: mine", 1))
    write("00_ok", SHOW, "from companion import paths\nprint(paths.output())")
    main(["notebook", "00_ok", "--output", "here.ipynb", "--profile", "mine.YAML"])
    assert f"{user / 'out'}\n" in printed(user / "here.ipynb")
    assert f"'profile': {str(user / 'mine.YAML')!r}" in printed(user / "here.ipynb")


@pytest.mark.parametrize(
    ("where", "variable", "said"),
    [
        ("notebooks", None, "second: the notebook is of this clone, its code of "),
        ("", None, "PYTHONPATH=.*second"),
        ("..", "~/out", None),
        ("..", "out", "CLIPIT_OUTPUT: relative to a folder. Export an absolute path"),
    ],
)
def test_another_clone_and_a_folder_that_means_many_are_refused_by_the_setup_cell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    variable: str | None,
    said: str | None,
) -> None:
    clone = tmp_path / "second"
    for name in ("clipit_lib", "notebooks"):
        (clone / name).mkdir(parents=True)
    (clone / "clipit_lib" / "paths.py").touch()
    monkeypatch.chdir(clone / where)
    if variable is not None:
        monkeypatch.setenv("CLIPIT_OUTPUT", variable)
    with pytest.raises(ClipItError, match=said) if said else nullcontext():
        assert asked().profile == "demo"


def test_a_success_removes_the_failed_copy_of_before(write: Write, tmp_path: Path) -> None:
    write("00_ok", SHOW)
    failed = tmp_path / "out.failed.ipynb"
    failed.write_text("")
    notebook.execute("00_ok", tmp_path / "out.ipynb", {})
    assert not failed.exists()


def test_an_unknown_notebook_is_an_error_that_lists_the_known_ones(
    write: Write, tmp_path: Path
) -> None:
    write("00_ok")
    with pytest.raises(ClipItError, match=r"unknown notebook '00_no'. Known: 00_ok"):
        notebook.execute("00_no", tmp_path / "out.ipynb", {})


def test_an_output_that_cannot_be_written_is_an_error(write: Write, tmp_path: Path) -> None:
    write("00_ok")
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipItError, match="cannot write here"):
        notebook.execute("00_ok", tmp_path / "file/out.ipynb", {})


def test_plain_papermill_refuses_an_unknown_parameter(write: Write) -> None:
    result = papermill(write("00_ok", SHOW), "-p", "datset", "x")
    assert result.returncode != 0
    assert "unknown parameter 'datset'. Known: count, fast, profile" in result.stderr


def test_plain_papermill_may_give_a_list_as_text(write: Write) -> None:
    source = write("00_ok", SHOW)
    result = papermill(source, "-p", "seeds", "[0,1,2]")
    assert result.returncode == 0, result.stderr
    assert "'seeds': [0, 1, 2]" in printed(Path(str(source) + ".out.ipynb"))


class Rate(Strict):
    rate: int


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (lambda: Rate(rate="x"), "ValidationError: rate: Input should be a valid integer [type="),
        (lambda: Rate.model_validate(3), "ValidationError: 1 validation error for Rate: Input"),
        (lambda: int("x"), "ValueError: invalid literal for int()"),
        (lambda: known("x", ["a"], "name", "here"), "here: unknown name 'x'. Known: a"),
    ],
)
def test_what_a_cell_raised_is_said_and_not_where_to_read_about_it(
    cause: Callable[[], object], said: str
) -> None:
    with pytest.raises((ValueError, ClipItError), match=r".") as caught:
        cause()
    error = SimpleNamespace(ename=caught.type.__name__, evalue=str(caught.value))
    assert notebook._last_line(error).startswith(said)
    assert "errors.pydantic.dev" not in notebook._last_line(error)


CHEAPEST = ("00_doctor", "01_pairing", "18_claims")
SOLUTION = re.compile(r"<summary>A solution</summary>\n\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[] if path.stem in CHEAPEST else pytest.mark.alone)
        for path in sorted(paths.notebooks().glob("*.ipynb"))
    ],
)
@pytest.mark.slow
def test_a_notebook_and_its_solutions_run_alone_where_nothing_has_been_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "cache"))
    book = nbformat.read(paths.notebooks() / f"{name}.ipynb", as_version=4)
    solutions = [code for cell in book.cells for code in SOLUTION.findall(cell.source)]
    assert len(solutions) == (2 if "01" <= name[:2] <= "08" else 0)
    book.cells += map(nbformat.v4.new_code_cell, solutions)
    nbformat.write(book, tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(paths, "notebooks", lambda: tmp_path)
    executed = tmp_path / "executed.ipynb"
    assert main(["notebook", name, "--profile", "smoke", "--output", str(executed)]) == 0
    assert "Traceback" not in executed.read_text(encoding="utf-8")
