"""Where things go, and on what they run, as the user means it, from wherever the user stands."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from snakemake.cli import parse_config

from clipit_lib import files
from clipit_lib.errors import ClipItError
from companion import paths
from companion.__main__ import main
from companion.profile import load_profile

RUN_ALL = paths.repository() / "run_all.sh"
# Python as run_all.sh calls it: what takes long only notes how it was called.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *missing.py*) ;;
    "-m snakemake"*) printf '%s\\n' "$@" > "$NOTED"; env -0 > "$NOTED.env" ;;
    "-m companion"*) ;;
    *) exec "$REAL" "$@" ;;
esac
"""
NO_LOCKS = """import errno, fcntl, os
def flock(*_): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
"""


@dataclass(frozen=True)
class Called:
    """What a call of run_all.sh said, and how it called Snakemake."""

    status: int
    said: str
    options: list[str]
    environment: dict[str, str]

    def option(self, name: str) -> str:
        """The last value given, which counts."""
        place = len(self.options) - 1 - self.options[::-1].index(name)
        return self.options[place + 1]


@pytest.fixture
def run_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Called]:
    """Call run_all.sh in an own home, on a machine of four GPUs."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    home.mkdir()
    programs.mkdir()
    for name, text in (("python", STAND_IN), ("nvidia-smi", "#!/bin/sh\nseq 0 3\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in (*paths.FOLDERS, "CUDA_VISIBLE_DEVICES", "CLIPIT_KERNELS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    own = {"VIRTUAL_ENV": str(tmp_path), "HOME": str(home), "REAL": sys.executable}

    def call(*arguments: str, script: Path = RUN_ALL, **variables: str) -> Called:
        noted = tmp_path / "noted"
        done = subprocess.run(
            [script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=os.environ | own | {"NOTED": str(noted)} | variables,
        )  # fmt: skip
        if not noted.exists():
            return Called(done.returncode, done.stdout + done.stderr, [], {})
        pairs = (line.partition("=") for line in Path(f"{noted}.env").read_text().split("\0"))
        environment = {name: value for name, _, value in pairs}
        options = noted.read_text().splitlines()
        return Called(done.returncode, done.stdout + done.stderr, options, environment)

    return call


@pytest.mark.slow
def test_folders_are_read_once_from_where_the_user_stands(
    run_all: Callable[..., Called], tmp_path: Path
) -> None:
    given = {"CLIPIT_OUTPUT": "out", "CLIPIT_CACHE": "~/cache", "CLIPIT_DATA": "../data"}
    called = run_all("--profile", "smoke", **given)
    assert called.status == 0, called.said
    assert {name: called.environment[name] for name in given} == {
        "CLIPIT_OUTPUT": str(tmp_path / "out"),
        "CLIPIT_CACHE": str(tmp_path / "home" / "cache"),
        "CLIPIT_DATA": str(tmp_path.parent / "data"),
    }
    results = tmp_path / "out" / "results" / "smoke"
    assert called.option("--directory") == str(results) and results.is_dir()
    assert f"executed notebooks  {results}/notebooks\n" in called.said
    assert not (RUN_ALL.parent / "out").exists()


@pytest.mark.parametrize("given", ["x: y/#1/Mine.YAML", "~/it's.yml"])
@pytest.mark.slow
def test_a_profile_of_the_user_is_found_and_a_link_to_the_script_runs(
    run_all: Callable[..., Called], tmp_path: Path, given: str
) -> None:
    file = tmp_path / given.replace("~", "home")
    file.parent.mkdir(parents=True, exist_ok=True)
    smoke = (paths.profiles() / "smoke.yaml").read_text()
    file.write_text(smoke.replace("name: smoke", "name: mine", 1))
    link = tmp_path / "link.sh"
    link.symlink_to(RUN_ALL)
    called = run_all("--profile", given, script=link, CLIPIT_OUTPUT="it's: here")
    assert called.status == 0, called.said
    (config,) = [each for each in called.options if each.startswith("profile=")]
    assert parse_config([config]) == {"profile": [str(file)]}
    assert called.option("--directory") == str(tmp_path / "it's: here" / "results" / "mine")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("{v1}", "{, }, < or > in a path"),
        ("~no_such_user/x", "error: ~no_such_user/x: no such home folder"),
    ],
)
@pytest.mark.slow
def test_a_place_that_cannot_be_is_one_line(
    run_all: Callable[..., Called], output: str, said: str
) -> None:
    called = run_all("--profile", "smoke", CLIPIT_OUTPUT=output)
    assert called.status == 1 and said in called.said and len(called.said.splitlines()) == 1
    assert called.options == []


@pytest.mark.slow
def test_caches_have_a_place_where_no_home_can_be_made(
    run_all: Callable[..., Called], tmp_path: Path
) -> None:
    called = run_all("--profile", "smoke", CLIPIT_OUTPUT="out", HOME="/proc/nobody")
    assert called.status == 0, called.said
    results = tmp_path / "out" / "results" / "smoke"
    assert called.environment["XDG_CACHE_HOME"] == str(results / ".cache")


@pytest.mark.slow
def test_a_relative_folder_with_a_workflow_profile(
    run_all: Callable[..., Called], tmp_path: Path
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.yaml").write_text("executor: none\n")
    called = run_all("--profile", "smoke", "--cluster", "ours", CLIPIT_OUTPUT="out")
    assert called.status == 0, called.said
    assert called.option("--workflow-profile") == str(tmp_path / "ours")


@pytest.mark.parametrize(
    ("shown", "gpus"),
    [
        (None, None), ("", []), ("-1", []), ("NoDevFiles", []), ("2", ["2"]), ("0,-1,1", ["0"]),
        ("1, 3", ["1", "3"]), ("GPU-8932,MIG-b1c2", ["GPU-8932", "MIG-b1c2"]),
    ],
)  # fmt: skip
def test_gpus_as_cuda_counts_them(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, gpus: list[str] | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert paths.gpus() == gpus


@pytest.mark.parametrize(
    ("arguments", "shown", "jobs", "given"),
    [
        ((), {}, "4", "0 1 2 3"),
        (("--gpus", "2"), {"CUDA_VISIBLE_DEVICES": "0,2,GPU-7,3"}, "2", "0 2 GPU-7 3"),
        ((), {"CUDA_VISIBLE_DEVICES": "-1"}, None, ""),
        (("--gpus", "0"), {"CUDA_VISIBLE_DEVICES": "0,1"}, None, ""),
    ],
)
@pytest.mark.slow
def test_a_job_for_each_gpu_and_none_where_they_are_hidden(
    run_all: Callable[..., Called], arguments: tuple[str, ...], shown: dict[str, str],
    jobs: str | None, given: str,
) -> None:  # fmt: skip
    called = run_all("--profile", "smoke", *arguments, CLIPIT_OUTPUT="out", **shown)
    assert called.status == 0, called.said
    assert called.option("--jobs") == (jobs or str(min(len(os.sched_getaffinity(0)), 4)))
    assert called.environment["CLIPIT_GPUS"] == given
    assert called.environment.get("CLIPIT_KERNELS") == (None if given == "" else "native")
    if "--gpus" in arguments and given == "":
        assert called.environment["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.slow
def test_a_second_run_waits_its_turn_and_a_disk_without_locks_is_said(
    run_all: Callable[..., Called], tmp_path: Path
) -> None:
    results = tmp_path / "results" / "smoke"
    results.mkdir(parents=True)
    with FileLock(results / ".run.lock"):
        refused = run_all("--profile", "smoke", CLIPIT_OUTPUT=str(tmp_path))
    assert refused.status == 1 and "profile smoke is already running" in refused.said
    (tmp_path / "sitecustomize.py").write_text(NO_LOCKS)
    own = {"CLIPIT_OUTPUT": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    called = run_all("--profile", "smoke", **own)
    assert called.status == 0 and "already" not in called.said
    assert f"no locks on this disk ({os.strerror(errno.ENOLCK)})" in called.said
    # GPUs are shared out by locks, too.
    assert called.option("--jobs") == "1" and called.environment["CLIPIT_GPUS"] == ""


def test_an_environment_is_made_on_a_disk_without_locks(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LOCKS)
    script = (
        'source "$1"; cd "$2"; find_python() { echo python; }; venv_is_whole() { true; };'
        "make_venv; echo made"
    )
    command = [
        "bash",
        "-euc",
        script,
        "-",
        RUN_ALL.parent / "workflow" / "environment.sh",
        tmp_path,
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "no locks on this disk" in done.stdout and "Waiting" not in done.stdout
    assert done.stdout.endswith("made\n")


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_one_process_makes_a_thing_on_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(fcntl, "flock", flock)
    target = tmp_path / "thing"
    stands = tmp_path / "thing.lock.held"
    with files.locked(target):
        assert stands.exists()
        with pytest.raises(TimeoutError), files.held(Path(f"{target}.lock"), timeout=0):
            pass
    assert not stands.exists() and str(stands) in caplog.text
    # A process of this machine that was killed.
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    stands.write_text(f"{gone.stdout.strip()}\n{os.uname().nodename}\n")
    with files.locked(target):
        pass


def test_a_home_of_nobody_in_a_profile_is_one_line() -> None:
    with pytest.raises(ClipItError, match=r"~no_such_user/mine\.yaml: no such home folder"):
        load_profile("~no_such_user/mine.yaml")
    with pytest.raises(ClipItError, match="no such home folder"):
        paths.in_data("~no_such_user/images")


def test_a_command_in_another_clone_says_whose_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("clipit_lib", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "clipit_lib" / "paths.py").touch()
    for place, said in ((tmp_path / "notebooks", True), (paths.notebooks(), False)):
        monkeypatch.chdir(place)
        assert main(["plan", "--profile", "none"]) == 2
        note = f"note: the code of {paths.repository()} runs, not {tmp_path}'s\n"
        assert (note in capsys.readouterr().err) == said


def test_progress_is_counted(tmp_path: Path) -> None:
    logs = tmp_path / "notebooks" / "logs"
    logs.mkdir(parents=True)
    told = ["Job stats:", "total        30", "1 of 30 steps (3%) done", "2 of 30 steps (7%) done"]
    command = ["bash", str(RUN_ALL.parent / "workflow" / "job.sh"), "notebook", "x"]
    command += [str(tmp_path / "notebooks" / "x.ipynb"), str(logs / "x.log"), "--set", "seed", "1"]
    (tmp_path / "python").write_text("#!/bin/sh\n")
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for lines, ago, end in (
        (None, None, ""),
        (told[:2], None, "; 1 of 30"),
        (told, None, "; 3 of 30"),
        (told, 600, "; 3 of 30, about 9[0-2] min left"),  # 27 steps of 200 s
        (told, 10**5, r"; 3 of 30, about 250\.\d h left"),
        ([told[0], "total 1"], 600, "; 1 of 1"),
    ):
        if lines is not None:
            (logs / "snakemake.log").write_text("\n".join(lines) + "\n")
        own = {} if ago is None else {"CLIPIT_STARTED": f"{time.time() - ago:.0f}"}
        done = subprocess.run(
            command, env=environment | own, capture_output=True, text=True, check=True
        )
        assert re.fullmatch(rf"start   x seed=1\ndone    x seed=1 \(\d+ s{end}\)\n", done.stdout)
