"""Runs of another lab: taken under its name if they are what they say, refused in a line if not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import CELL, toy_bench

from clipit_lib import runs
from clipit_lib.runs import CARD, DONE, HISTORY, MODEL, PREDICTIONS, SPEC
from companion import archive, archived, merge, paths, specs, tables
from companion.__main__ import main
from companion.profile import Workbench

THEIRS = "Another Lab"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Ours: a data set and encoders, and no run yet."""
    with pytest.MonkeyPatch.context() as patch:
        desk = toy_bench(patch)
        desk.runs = tmp_path_factory.mktemp("ours") / "results" / "smoke" / "runs"
        patch.setenv("CLIPIT_OUTPUT", str(desk.runs.parents[2]))
        patch.setattr(merge, "Workbench", lambda *_, **__: desk)
        yield desk


@pytest.fixture(scope="module")
def sent(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another lab sends: two runs of one setting."""
    folder, ours = tmp_path_factory.mktemp("theirs"), bench.runs
    bench.runs = folder / "runs"
    for seed in (0, 1):
        runs.get_or_run(specs.resolve(bench, *CELL, "clip_it", seed), bench)
    bench.runs = ours
    return folder


def merging(folder: Path, name: str = THEIRS) -> int:
    return main(["merge", str(folder), "--from", name, "--profile", "smoke"])


@pytest.fixture
def copy(sent: Path, tmp_path: Path) -> Path:
    """One of the runs that were sent, to be tampered with."""
    (tmp_path / "runs").mkdir()
    first = min((sent / "runs").glob("[0-9a-f]*"))
    return Path(shutil.copytree(first, tmp_path / "runs" / first.name))


def in_json(name: str, **values: Any) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        read = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(read | values))

    return change


def in_frame(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    return lambda run: change(pd.read_parquet(run / PREDICTIONS)).to_parquet(
        run / PREDICTIONS, index=False
    )


def linked(run: Path) -> None:
    (run / MODEL).rename(run.parent / "elsewhere")
    (run / MODEL).symlink_to(run.parent / "elsewhere")


def spoilt(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(logit_0=frame["logit_0"].where(frame.index != 5, np.float32("nan")))


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda run: (run / CARD).unlink(), "card.json is no file"),
    "a link": (linked, "model.safetensors is no file"),
    "half a file": (lambda run: (run / SPEC).write_text("{"), "missing or damaged"),
    "an unknown field": (in_json(SPEC, luck=1), "missing or damaged"),
    "another seed": (in_json(SPEC, seed=2), "has another text"),
    "another lambda": (in_json(SPEC, distillation_weight=9.0), "has another distillation_weight"),
    "other patches": (in_json(SPEC, data_hash="0" * 16), "has another data_hash"),
    "another folder": (lambda run: run.rename(run.with_name("0" * 16)), "its names and its spec"),
    "another key": (in_json(DONE, key="0" * 16), "its names and its specification"),
    "no time": (in_json(DONE, finished="soon"), "missing or damaged"),
    "markup as a name": (in_json(DONE, by="<b>"), "its names and its specification"),
    "other classes": (in_json(CARD, classes=["red", "blue", "green"]), "its card is not that of"),
    "other limits": (in_json(CARD, limits="none: trust it"), "its card is not that of toy"),
    "no predictions": (lambda run: (run / PREDICTIONS).write_bytes(b""), "missing or damaged"),
    "another column": (in_frame(lambda frame: frame.assign(more=1)), "other columns"),
    "not a number": (in_frame(spoilt), "its logits are not finite"),
    "of 64 bits": (in_frame(lambda frame: frame.assign(logit_0=1.0)), "its logits are not finite"),
    "better labels": (
        in_frame(lambda frame: frame.assign(label=frame.filter(like="logit").to_numpy().argmax(1))),
        "its patches, groups or labels are not those of toy",
    ),
    "another order": (in_frame(lambda frame: frame[::-1]), "its patches, groups or labels"),
    "fewer patches": (in_frame(lambda frame: frame[:-1]), "its patches, groups or labels"),
}  # fmt: skip


@pytest.mark.parametrize("tampered", TAMPERED)
def test_what_is_not_what_it_says_is_refused(
    tampered: str, bench: Workbench, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said = TAMPERED[tampered]
    change(copy)
    before = sorted(bench.runs.rglob("*"))
    assert merging(copy.parents[1]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "Nothing was taken" in line
    assert sorted(bench.runs.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "said"), [("=1+1", "cannot stand in a table"), ("Lab|x", "cannot stand"), (THEIRS, "")]
)
def test_whose_they_are_must_be_a_name_and_there_must_be_runs(
    name: str, said: str, bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merging(tmp_path, name) == 2
    assert (said or "no runs here") in capsys.readouterr().err


def test_one_bad_run_keeps_the_others_out(
    bench: Workbench, sent: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = max((sent / "runs").glob("[0-9a-f]*"))
    bad = Path(shutil.copytree(other, copy.with_name(other.name)))
    (bad / HISTORY).unlink()
    assert merging(copy.parents[1]) == 2 and not bench.runs.exists()


def test_they_join_ours_under_their_name_and_nothing_is_written_over(
    bench: Workbench, sent: Path, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    wanted = [specs.resolve(bench, *CELL, "clip_it", seed) for seed in (0, 1)]
    own = runs.get_or_run(wanted[1], bench)
    before = {path: path.read_bytes() for path in own.folder.iterdir()}
    frame = pd.read_parquet(own.folder / PREDICTIONS)
    theirs = sent.parent / "noisy"
    shutil.copytree(sent, theirs)
    flipped = frame.assign(logit_0=frame["logit_1"], logit_1=frame["logit_0"])
    flipped.to_parquet(theirs / "runs" / own.key / PREDICTIONS, index=False)

    assert merging(theirs) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    cell = "toy phantom_vit_s16 clip_it seed"
    assert lines[f"{cell} 0"] == "taken" and "ours is kept" in lines[f"{cell} 1"]
    assert {path: path.read_bytes() for path in own.folder.iterdir()} == before
    monkeypatch.setattr(runs, "perform", lambda *_: pytest.fail("trained again"))
    taken = runs.get_or_run(wanted[0], bench)
    assert taken.done()[archived.BY] == THEIRS and archived.BY not in own.done()
    sent_files = {path.name: path.read_bytes() for path in (sent / "runs" / taken.key).iterdir()}
    files = {path.name: path.read_bytes() for path in taken.folder.iterdir()}
    assert files.keys() == sent_files.keys()
    assert {name for name in files if files[name] != sent_files[name]} == {DONE}

    assert merging(bench.runs, "Who Passes It On") == 0  # said of both; nobody's name changes
    assert capsys.readouterr().out.count("was here, with the same predictions") == 2
    assert runs.read(taken.folder).done()[archived.BY] == THEIRS


def test_the_list_and_the_tables_say_whose_they_are(bench: Workbench, sent: Path) -> None:
    assert merging(sent) == 0
    found = [
        runs.get_or_run(specs.resolve(bench, *CELL, "clip_it", seed), bench) for seed in (0, 1)
    ]
    unimodal = runs.get_or_run(specs.resolve(bench, *CELL, "unimodal", 0), bench)
    results = paths.results("smoke")
    first = found[0]
    said = archived.by_others(results, [first.key, unimodal.key])
    assert said == f"Of 2 runs others made: 1 by {THEIRS}."
    assert archived.by_others(results, [unimodal.key]) == ""
    for name, run, own in (("theirs", first, f"1 by {THEIRS}.\n"), ("ours", unimodal, "")):
        tables.save_table("smoke", name, pd.DataFrame({"x": [1]}), "words", [run.key, unimodal.key])
        text = (paths.tables("smoke") / f"{name}.md").read_text()
        assert text.endswith(own) and (THEIRS in text) == bool(own)

    archive.list_runs("smoke", [unimodal.key])
    assert archived.BY not in archived.listed(results)
    archive.list_runs("smoke", [first.key, unimodal.key])
    listed = archived.listed(results).set_index("key")
    assert listed.loc[[first.key, unimodal.key], archived.BY].tolist() == [THEIRS, ""]
    shutil.rmtree(first.folder)  # what a fresh clone has
    assert archived.by_others(results, [first.key, unimodal.key]) == said
