"""The plan: which runs, what of it is done, how long and how much."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from clipit_lib import runs
from clipit_lib.data.folder import FolderData
from clipit_lib.encoders import registry
from clipit_lib.settings import Training
from companion import paths, plan, specs, studies
from companion.__main__ import main
from companion.plan import (
    Facts,
    Job,
    Sizes,
    Speed,
    disk,
    facts,
    jobs,
    on_gpu,
    sizes,
    speeds,
    work,
)
from companion.profile import Profile, Workbench, load_profile

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
    every = jobs(bench.profile.model_copy(update=other))
    assert not any(each.done for each in every if each.dataset == "phantom-pcam")
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


def passes(todo: list[Job], profile: Profile) -> dict[tuple[str, str], int]:
    found = Counter[tuple[str, str]]()
    for one in work(todo, profile, {"phantom-pcam": SIZES}):
        found[one.term, one.backbone] += one.patches
    return dict(found)


@pytest.mark.parametrize(("looks_at", "looked"), [(None, 60), (4, 24), (400, 60)])
def test_passes_worked_by_hand(
    looks_at: int | None, looked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.plan.untrained", lambda _: ())
    training = Training(epochs=3, checks_per_epoch=2, looks_at=looks_at)
    profile = load_profile("smoke").model_copy(update={"training": training})
    todo = [job("unimodal", 0), job("unimodal", 1), job("text/prompts"), job("clip_it/lambda_3")]
    assert passes(todo, profile) == {
        ("training steps", "phantom_vit_s16"): 3 * 100,
        ("looks at validation", "phantom_vit_s16"): looked,  # six looks at 10
        ("predictions", "phantom_vit_s16"): 3 * 30,
        ("embeddings", "phantom_vit_s16"): 110,  # shared by all probes
        ("pairing", "phantom_clip"): 130,  # the text classifier reads the test split too
    }


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("clip_it", "step"), ("clip_it/full_fine_tuning", "step"), ("contrastive", "step"),
        ("clip_it/without_lora", "look"), ("clip_it/lora_text_only", "look"),
    ],
)  # fmt: skip
def test_a_frozen_backbone_takes_no_step(setting: str, kind: str) -> None:
    first = work([job(setting)], load_profile("smoke"), {"phantom-pcam": SIZES})[0]
    assert (first.term, first.kind) == ("training steps", kind)


@pytest.mark.parametrize(
    ("setting", "retriever"),
    [
        ("lora_only", None), ("clip_it/architecture_only", None), ("clip_it", "phantom_clip"),
        ("clip_it/retriever_phantom_clip_noisy", "phantom_clip_noisy"),
    ],
)  # fmt: skip
def test_what_pairs_patches(setting: str, retriever: str | None) -> None:
    assert job(setting).retriever(load_profile("smoke")) == retriever


def test_encoders_that_are_trained_first_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.plan.untrained", lambda _: ("phantom_vit_s16",))
    found = passes([job("lora_only")], load_profile("smoke"))
    assert found["encoders trained here", "phantom_vit_s16"] == 2 * 256  # two views, one epoch


def test_a_gpu_has_the_measured_speeds_or_those_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {name: 1e9 * 4**n for n, name in enumerate(plan.MEASURED.index)}
    monkeypatch.setattr("companion.plan.facts", lambda name, _: Facts(costs[name], 8, 8))
    known = {"uni": Facts(costs["uni"], 8, 8), "other": Facts(1.5 * costs["kaiko_vitb16"], 8, 8)}
    paper, smoke = load_profile("paper"), load_profile("smoke")
    measured = on_gpu(known, paper, "h200")
    assert measured["uni"] == Speed(step=1 / 418, look=1 / 1953, forward=1 / 1446)
    assert measured["other"].step == pytest.approx(1.5 / 803)
    assert on_gpu(known, smoke, "h200")["uni"] == Speed(1 / 398, 1 / 1446, 1 / 1446)
    assert on_gpu(known, smoke, "h200", "float32")["uni"] == Speed(1 / 147, 1 / 371, 1 / 371)
    slower = on_gpu(known, paper, "a100")["uni"]  # 989.4 and 494.7 against 312 and 156
    assert slower.step == pytest.approx(989.4 / 312 / 418)
    assert slower.forward == pytest.approx(494.7 / 156 / 1446)
    assert set(plan.MEASURED.index) <= set(registry.ENCODERS)


def test_hours_and_operations_worked_by_hand() -> None:
    known = {"uni": Facts(5e8, 8, 8)}
    every = [plan.Work("steps", "step", "uni", 10**9), plan.Work("looks", "look", "uni", 10**9)]
    found = plan.terms([(every, {"uni": Speed(7.2e-6, 3.6e-6, 1.0)})], known).splitlines()[1:]
    cells = {words[0]: [float(each) for each in words[1:]] for words in map(str.split, found)}
    # A step has the operations of two forward passes, of 10^9 each.
    assert cells == {"steps": [2, 2], "looks": [1, 1], "together": [3, 3]}


def test_a_large_model_is_scaled_by_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.plan.measure", lambda *_: Speed(3.0, 0.5, 1.0))
    monkeypatch.setattr("companion.plan.facts", lambda *_: Facts(4e9, 384, 10))
    monkeypatch.setattr("clipit_lib.compute.device", lambda: __import__("torch").device("cpu"))
    found = speeds({"uni": Facts(60e9, 1024, 10)}, load_profile("smoke"))
    assert found["uni"] == Speed(step=45.0, look=7.5, forward=15.0)


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


@pytest.mark.slow
def test_the_lines(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--profile", "smoke", "--runs"]) == 0
    said = capsys.readouterr().out
    line = next(each for each in said.splitlines() if each.startswith("  table1 "))
    assert "phantom-pcam phantom_vit_s16 unimodal: 0 1" in line.replace("(", "").replace(")", "")
    assert "GB:" in said and "not in it" in said
    assert main(["plan", "--profile", "smoke", "--study", "table1", "--gpu", "a100"]) == 0
    said = capsys.readouterr().out
    assert " in 1 studies: table1" in said and "NVIDIA A100 datasheet" in said


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--runs"], []])  # more than a buffer holds, and less
def test_a_reader_that_stops_reading_is_no_error(more: list[str]) -> None:
    command = [sys.executable, "-m", "companion", "plan", "--profile", "smoke", *more]
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


def test_durations() -> None:
    assert [plan.duration(s) for s in (40.0, 720.0, 12600.0)] == ["40 s", "12 min", "3.5 h"]


@pytest.mark.parametrize(
    "asked", [("--price", "0"), ("--price", "nan"), ("--gpu", "none"), ("--study", "none")]
)
def test_an_impossible_accelerator_is_refused(asked: tuple[str, str]) -> None:
    assert main(["plan", "--profile", "smoke", *asked]) == 2
