"""The plan: which runs, what of it is done, how long and how much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipit_lib import runs
from clipit_lib.data.folder import FolderData
from clipit_lib.settings import Training
from companion import paths, plan, specs, studies
from companion.__main__ import main
from companion.plan import (
    Facts,
    Job,
    Sizes,
    Speed,
    assumed,
    disk,
    facts,
    jobs,
    seconds_of,
    shared_seconds,
    sizes,
    speeds,
)
from companion.profile import Workbench, load_profile

SIZES = Sizes(train=100, validation=10, test=20, side=4)


def job(setting: str, seed: int = 0, done: bool = False) -> Job:
    return Job("table1", "phantom-pcam", "phantom_vit_s16", setting, seed, done)


def test_every_run_of_the_studies_is_there_once(bench: Workbench) -> None:
    planned = jobs(bench.profile)
    cells = [(one.dataset, one.backbone, one.setting, one.seed) for one in planned]
    asked = {
        (spec.dataset, spec.backbone, spec.setting, spec.seed)
        for name in studies.STUDIES
        if studies.asked(bench.profile, name)
        for spec in studies.runs_of(bench, name)
    }
    assert len(cells) == len(set(cells)) and asked <= set(cells)
    listed = plan.table(planned, {}).splitlines()[1:]
    assert sum(len(line.split(": ")[1].split(";")[0].split()) for line in listed) == len(planned)


def test_a_stored_run_counts_as_done(bench: Workbench) -> None:
    spec = specs.resolve(bench, "phantom-pcam", "phantom_vit_s16", "unimodal", 1)
    runs.get_or_run(spec, bench)
    done = {(j.dataset, j.setting, j.seed): j.done for j in jobs(bench.profile)}
    assert done["phantom-pcam", "unimodal", 1]


def test_nothing_is_decoded(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a data set that is not in the cache, nor to count the images of the user."""
    spec = specs.resolve(bench, "phantom-pcam", "phantom_vit_s16", "unimodal", 1)
    runs.get_or_run(spec, bench)
    monkeypatch.setattr("clipit_lib.data.patches._build", lambda *_: pytest.fail("decoded"))
    larger = bench.profile.data["phantom-pcam"].model_copy(update={"train": 70})
    other = {"data": bench.profile.data | {"phantom-pcam": larger}}
    assert not any(each.done for each in jobs(bench.profile.model_copy(update=other)))
    for split, count in {"train": 10, "test": 4}.items():
        for name in ("calm", "wild"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / split / name / f"{number}.png").write_bytes(b"not read")
    own = FolderData(source="folder", folder=str(tmp_path), corpus="phantom-breast", side=32)
    mine = bench.profile.model_copy(update={"data": {"mine": own}})
    assert sizes(mine, "mine") == Sizes(18, 2, 8, 32)


def test_without_the_data_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPIT_DATA", raising=False)
    planned = jobs(load_profile("paper"))
    assert planned and not any(one.done for one in planned)


def test_passes_worked_by_hand() -> None:
    training = Training(epochs=3, checks_per_epoch=2)
    profile = load_profile("smoke").model_copy(update={"training": training})
    counts, speed = {"phantom-pcam": SIZES}, {"phantom_vit_s16": Speed(step=2.0, forward=1.0)}
    todo = [job("unimodal"), job("text/prompts"), job("clip_it/lambda_3")]
    # Three epochs over 100 patches, six looks at 10, and 30 predictions at the end.
    assert list(seconds_of(todo, profile, counts, speed).values()) == [30, 0, 2 * 300 + 60 + 30]


def test_features_that_runs_share_are_counted_once() -> None:
    profile = load_profile("smoke")
    todo = [job("unimodal", 0), job("unimodal", 1), job("lora_only", 0)]
    counts, speed = {"phantom-pcam": SIZES}, {"phantom_vit_s16": Speed(0.0, 1.0)}
    assert shared_seconds(todo, profile, counts, speed) == 110
    each = seconds_of([*todo, job("text")], profile, counts, speed)
    assert each[job("text")] == 0 and each[job("unimodal", 1)] == 30


def test_an_assumed_accelerator_keeps_the_measured_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.plan.measure", lambda *_: Speed(step=3.0, forward=1.0))
    known = {"phantom_vit_s16": Facts(multiply_adds=1e9, width=64, adapters=10)}
    here = speeds(known, load_profile("smoke"))
    assert here["phantom_vit_s16"].step == 3.0
    (found,) = assumed(known, here, teraflops=2.0).values()
    assert found.forward == pytest.approx(2e9 / 2e12) and found.step == pytest.approx(3e-3)


def test_a_large_model_is_scaled_by_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.plan.measure", lambda *_: Speed(step=3.0, forward=1.0))
    monkeypatch.setattr("companion.plan.facts", lambda *_: Facts(4e9, 384, 10))
    monkeypatch.setattr("clipit_lib.compute.device", lambda: __import__("torch").device("cpu"))
    found = speeds({"uni": Facts(60e9, 1024, 10)}, load_profile("smoke"))
    assert found["uni"] == Speed(step=45.0, forward=15.0)


def test_counts_of_a_known_architecture() -> None:
    counted = facts("kaiko_vits16", load_profile("paper"))
    assert counted.width == 384
    # Rank 16 on the fused projection (4 widths), attention's output (2), the MLP (5 and 5).
    assert counted.adapters == 12 * 16 * 384 * (4 + 2 + 5 + 5)
    assert counted.multiply_adds == pytest.approx(4.6e9, rel=0.05)


def test_disk_worked_by_hand() -> None:
    profile = load_profile("smoke").model_copy(update={"clips": ()})
    known = {"phantom_vit_s16": Facts(1e9, width=64, adapters=1000)}
    todo = [job("unimodal"), job("lora_only")]
    found = disk(todo, profile, {"phantom-pcam": SIZES}, known)
    assert found == {
        "decoded patches": 130 * 4 * 4 * 3,
        "embeddings": 130 * 64 * 4,  # the retriever's width is not known here
        "runs": 2 * (30 * 24 + 2**20) + 4000,
    }
    gigabytes = {"decoded patches": 2 * 10**9, "embeddings": 0, "runs": 5 * 10**8}
    assert "2.5 GB: 2.0 decoded patches, 0.0 embeddings, 0.5 runs;" in plan.space(gigabytes)


def test_sizes_of_the_shipped_data_sets() -> None:
    assert sizes(load_profile("smoke"), "phantom-pcam") == Sizes(60, 40, 60, 32)
    assert sizes(load_profile("pilot"), "crc5") == Sizes(1600, 400, 1500, 128)
    paper = load_profile("paper")
    assert sizes(paper, "pcam") == Sizes(262144, 32768, 32768, 96)
    assert sizes(paper, "bach") == Sizes(268 - 27, 27, 132, 448)
    assert sizes(paper, "crc") == Sizes(90000, 10000, 7180, 224)


def test_the_lines(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--profile", "smoke", "--runs"]) == 0
    said = capsys.readouterr().out
    line = next(each for each in said.splitlines() if each.startswith("  table1 "))
    assert "phantom-pcam phantom_vit_s16 unimodal: 0 1" in line.replace("(", "").replace(")", "")
    assert "GB:" in said and "not in it" in said


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = [sys.executable, "-m", "companion", "plan", "--profile", "smoke", "--runs"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=paths.repository()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_hours_and_how_they_were_found() -> None:
    assert "90 min on 2 cores" in plan.time_here(10800.0, 2, scaled=False)
    weeks = plan.time_here(3600.0 * 96, 2, scaled=True)
    assert "96 core-hours (2.0 days on 2)" in weeks and "kaiko_vits16" in weeks
    assert "5 GPU-hours if a GPU sustains 40 TFLOP/s" in plan.time_assumed(18000.0, 40.0)


def test_durations() -> None:
    assert [plan.duration(s) for s in (40.0, 720.0, 12600.0)] == ["40 s", "12 min", "3.5 h"]


@pytest.mark.parametrize("value", ["0", "-3", "nan"])
def test_an_impossible_accelerator_is_refused(value: str) -> None:
    assert main(["plan", "--profile", "smoke", "--teraflops", value]) == 2
