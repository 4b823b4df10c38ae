"""The run store: done once, whole or absent, the same twice."""

import json
import multiprocessing
import os
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toys import CELL as TOY
from toys import ToyData, toy_bench

from clipit_lib import inputs, pairing, runs, text, training
from clipit_lib import run as experiment
from clipit_lib.encoders import embeddings
from clipit_lib.errors import ClipItError
from clipit_lib.losses import cross_entropy
from clipit_lib.predictions import predictions_frame
from clipit_lib.settings import RunSpec
from clipit_lib.training import Stage
from companion import paths, specs, tables
from companion.paper import PROTOCOLS, SWITCHES
from companion.profile import Workbench
from companion.statistics import accuracy, balanced_accuracy, correct

CELL = ("phantom-crc", "phantom_vit_s16")


FURTHER = (
    "clip_it/word_dropout_30", "clip_it/report_rank_2", "clip_it/lora_rank_2", "clip_it/lambda_3",
    "clip_it/retriever_phantom_clip_noisy", "clip_it/random_reports/labels_5",
    "lora_only/label_noise_30", "clip_it/corpus_phantom-breast", "clip_it/long_text_chunk",
    "clip_it/protocol_released", "lora_only/protocol_released",
    *(f"clip_it/switch_{name}" for name in SWITCHES),
)  # fmt: skip


def spec(
    bench: Workbench, setting: str, seed: int = 0, dataset: str = CELL[0], **changes: object
) -> RunSpec:
    by_clip = setting.split("/")[0] in ("zero_shot", "contrastive", "text", "vision")
    backbone = bench.profile.retriever if by_clip else CELL[1]
    return specs.resolve(bench, dataset, backbone, setting, seed, **changes)


@pytest.mark.parametrize("setting", [*sorted(specs.SETTINGS), *FURTHER])
def test_every_setting_runs_and_is_read_back(setting: str, monkeypatch) -> None:
    desk = toy_bench(monkeypatch)
    run = runs.get_or_run(spec(desk, setting, dataset=TOY[0]), desk)
    predictions, data = run.predictions(), desk.dataset(TOY[0])
    assert predictions["sample"].tolist() == data.samples["id"].iloc[data.indices("test")].tolist()
    assert predictions["label"].tolist() == data.labels[data.indices("test")].tolist()
    assert np.isfinite(predictions.filter(like="logit_").to_numpy()).all()
    assert run.done()["key"] == run.key == run.spec.key


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": PROTOCOLS["released"]},
        {"protocol": PROTOCOLS["paper"].model_copy(update={"moving_target": True})},
        {"adaptation": "full"},
        {"adaptation": "none"},
        {"labels_per_class": 4, "label_noise": 0.5},
    ],
)
def test_protocol_and_data_switches_run(bench: Workbench, change: dict[str, object]) -> None:
    outcome = experiment.perform(spec(bench, "clip_it", **change), bench)
    assert len(outcome.predictions) == 180
    assert any("lora_" in name for name in outcome.state) == (
        change.get("adaptation", "lora") == "lora"
    )


@pytest.mark.parametrize("setting", ["unimodal", "text"])
def test_predictions_name_patches_and_patients(setting: str, monkeypatch) -> None:
    desk = toy_bench(monkeypatch)
    run = runs.get_or_run(spec(desk, setting, dataset=TOY[0]), desk)
    data, answers = desk.dataset(TOY[0]), {}
    for split in ("validation", "test"):
        found, samples = run.predictions(split), data.samples.iloc[data.indices(split)]
        for ours, theirs in (("sample", "id"), ("group", "group"), ("label", "label")):
            assert found[ours].tolist() == samples[theirs].tolist()
        if setting == "text":  # a text has one answer, in every split
            chosen = desk.pairs(TOY[0], split, 1).reports[:, 0]
            for report, logits in zip(chosen, found.filter(like="logit_").to_numpy(), strict=True):
                assert answers.setdefault(report, logits.tolist()) == logits.tolist()
    assert setting != "text" or len({*map(tuple, answers.values())}) == len(answers) > 3


def test_a_folder_that_is_not_finished_is_no_run(monkeypatch) -> None:
    desk = toy_bench(monkeypatch)
    made = [
        runs.get_or_run(specs.resolve(desk, *TOY, "unimodal", seed), desk) for seed in range(40, 46)
    ]
    assert {run.key[0].isdigit() for run in made} == {True, False}
    keys = {run.key for run in runs.stored("smoke")}
    assert keys >= {run.key for run in made}
    (made[0].folder / runs.DONE).unlink()
    assert {run.key for run in runs.stored("smoke")} == keys - {made[0].key}
    assert runs.find("smoke", made[0].key) is None and runs.find("smoke", made[1].key) == made[1]
    with pytest.raises(ClipItError, match="no finished run here"):
        runs.read(made[0].folder)
    for run in made:
        shutil.rmtree(run.folder)


def test_doubts_of_every_stage_are_kept_with_a_run(monkeypatch) -> None:
    floors, courses = [], []

    def stage_two(*asked: Any) -> Any:
        floors.append(asked[-1])
        return second(*asked)

    def probe(*asked: Any) -> Any:
        head, course, said = first(*asked)
        courses.append([row["validation"] for row in course])
        return head, course, said

    first, second = experiment.probe, experiment.stage_two
    monkeypatch.setattr(experiment, "probe", probe)
    monkeypatch.setattr(experiment, "stage_two", stage_two)
    monkeypatch.setattr(Stage, "doubts", lambda self, *_: (self.name,))
    desk = toy_bench(monkeypatch)
    for _ in range(2):  # stage one is trained, and read
        wanted = specs.resolve(desk, *TOY, "clip_it", 47)
        run = runs.get_or_run(wanted, desk)
        assert run.notes == ("the probe", "stage one", "stage two")
        shutil.rmtree(run.folder)
    (course,) = courses  # runs of a job share it
    assert floors == [min(course)] * 2 and len(set(course)) > 1


def test_a_stored_run_is_not_trained_again(bench: Workbench, monkeypatch) -> None:
    first = runs.get_or_run(spec(bench, "lora_only"), bench)
    monkeypatch.setattr(runs, "perform", lambda *_: pytest.fail("trained again"))
    assert runs.get_or_run(spec(bench, "lora_only"), bench) == first


def test_the_way_to_the_loss_is_short(monkeypatch) -> None:
    """Files on the way from `get_or_run` to the loss; a newcomer reads them in this order."""
    bench, ways = toy_bench(monkeypatch), []
    usual = training.cross_entropy

    def seen(*given: Any, **named: Any) -> Any:
        code = [frame.filename for frame in traceback.extract_stack()]
        ways.append([Path(name).name for name in code if Path(name).parent.name == "clipit_lib"])
        return usual(*given, **named)

    monkeypatch.setattr(training, "cross_entropy", seen)
    runs.get_or_run(
        specs.resolve(bench, *TOY, "clip_it", 977), bench
    )  # a seed of its own: not stored
    assert ways and {name for way in ways for name in way} <= {
        "runs.py", "parallel.py", "run.py", "training.py",
    }  # fmt: skip


def test_the_same_specification_gives_the_same_predictions(bench: Workbench) -> None:
    first, second = (experiment.perform(spec(bench, "clip_it"), bench) for _ in range(2))
    pd.testing.assert_frame_equal(first.predictions, second.predictions)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_a_failure_leaves_no_run_and_no_rest(bench: Workbench, monkeypatch) -> None:
    wanted = spec(bench, "lora_only", seed=77)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("killed while writing")

    monkeypatch.setattr(runs, "save_file", broken)
    with pytest.raises(RuntimeError, match="killed"):
        runs.get_or_run(wanted, bench)
    assert runs.find("smoke", wanted.key) is None
    assert not list(paths.runs("smoke").glob("*.part"))
    monkeypatch.undo()
    assert runs.get_or_run(wanted, bench).key == wanted.key


def _work(values: str) -> str:
    """What each of two processes does with one specification."""
    from companion.profile import load_profile

    bench = Workbench(load_profile("smoke"))
    run = runs.get_or_run(RunSpec.model_validate_json(values), bench)
    return f"{os.getpid()} {run.key}"


@pytest.mark.slow
def test_two_processes_asked_for_one_run_do_it_once(bench: Workbench) -> None:
    wanted = spec(bench, "lora_only", seed=78)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.map(_work, [wanted.model_dump_json()] * 2, chunksize=1)
    assert {answer.split()[1] for answer in answers} == {wanted.key}
    assert len(list(paths.runs("smoke").glob(f"*{wanted.key}"))) == 1


def test_results_that_cannot_be_written_are_said(bench: Workbench, monkeypatch, tmp_path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    wanted = spec(bench, "unimodal")
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    with pytest.raises(ClipItError, match=r"cannot write here.*CLIPIT_OUTPUT"):
        runs.get_or_run(wanted, Workbench(bench.profile))


def test_noise_and_subsets_never_reach_the_test_split(bench: Workbench) -> None:
    data = bench.dataset(CELL[0])
    chosen = inputs.choose_labels(spec(bench, "lora_only", labels_per_class=3), data)["train"]
    counts = np.bincount(data.labels[chosen.rows], minlength=9)
    assert counts.tolist() == [3] * 9
    assert (chosen.labels.numpy() == data.labels[chosen.rows]).all()
    noisy = inputs.choose_labels(spec(bench, "lora_only", label_noise=0.5), data)["train"]
    changed = noisy.labels.numpy() != data.labels[noisy.rows]
    assert 0.3 < changed.mean() < 0.7
    assert not set(noisy.rows) & set(data.indices("test"))
    paired = inputs.choose_labels(spec(bench, "lora_only/pair_noise_50"), data)["train"]
    moved = (paired.labels.numpy() - data.labels[paired.rows]) % 9
    assert set(moved) == {0, 1} and 0.3 < moved.mean() < 0.7


def test_patches_without_labels_are_distilled_and_not_classified(bench: Workbench) -> None:
    data = bench.dataset(CELL[0])
    few = spec(bench, "clip_it/labels_3/unlabelled_40")
    labels = inputs.choose_labels(few, data)
    wide = inputs.with_unlabelled(few, data, labels)
    own, all_of_it = labels["train"], wide["train"]
    rest = len(data.indices("train")) - len(own.rows)
    assert len(all_of_it.rows) == len(own.rows) + round(0.4 * rest)
    assert set(own.rows) < set(all_of_it.rows) < set(data.indices("train"))
    assert (data.indices("train")[all_of_it.at] == all_of_it.rows).all()
    said = all_of_it.labels.sum(dim=1) > 0
    assert all_of_it.rows[said.numpy()].tolist() == own.rows.tolist()
    assert all_of_it.labels[said].argmax(dim=1).tolist() == own.labels.tolist()
    # Over all of them cross-entropy is what it was over those with labels.
    logits = torch.randn(len(said), 9, generator=torch.Generator().manual_seed(0))
    over_all = cross_entropy(logits, all_of_it.labels)
    torch.testing.assert_close(over_all, cross_entropy(logits[said], own.labels))
    assert wide["validation"] is labels["validation"]
    plain = spec(bench, "clip_it/labels_3")
    assert inputs.with_unlabelled(plain, data, labels) is labels


def test_tables_follow_from_stored_predictions(bench: Workbench) -> None:
    stored = [
        runs.get_or_run(spec(bench, setting, seed), bench)
        for setting in ("lora_only", "clip_it")
        for seed in (0, 1)
    ]
    table = tables.run_table(stored)
    for run, row in zip(stored, table.to_dict("records"), strict=True):
        frame = pd.read_parquet(run.folder / "predictions.parquet").query("split == 'test'")
        answer = frame.filter(like="logit_").to_numpy().argmax(axis=1)
        recalls = [(answer[frame["label"] == c] == c).mean() for c in range(9)]
        assert row["balanced_accuracy"] == pytest.approx(100 * np.mean(recalls))
        assert row["accuracy"] == pytest.approx(100 * (answer == frame["label"]).mean())
    pair = [("lora_only", "clip_it")]
    gain = tables.gain_table(stored, pair)["gain"].item()
    by_setting = table.groupby("setting")["balanced_accuracy"].mean()
    assert gain == pytest.approx(by_setting["clip_it"] - by_setting["lora_only"])
    with pytest.raises(ClipItError, match="same seeds"):
        tables.gain_table(stored[:3], pair)


def test_accuracies_by_hand() -> None:
    labels, answers = np.array([0, 0, 0, 1]), np.array([[1, 1], [0, 2], [-3, 2], [0, 1.0]])
    frame = predictions_frame(list("abcd"), [""] * 4, labels, answers, "test")
    assert correct(frame).tolist() == [True, False, False, True]  # of equal logits the first
    assert accuracy(frame) == 50
    assert balanced_accuracy(frame) == pytest.approx(100 * (1 / 3 + 1) / 2)


def test_saved_tables_escape_what_came_from_data(tmp_path: Path) -> None:
    text = tables.markdown(pd.DataFrame({"a|b": ["<script>"]}))
    assert "a\\|b" in text and "<script>" not in text
    tables.save_table("smoke", "test", pd.DataFrame({"x": [1 / 3]}), text, ["b", "a"])
    folder = paths.tables("smoke")
    assert (folder / "test.csv").read_text() == "x\n0.3333\n"
    assert json.loads((folder / "test.runs.json").read_text()) == ["a", "b"]


def test_nothing_is_computed_twice_within_a_job(monkeypatch, tmp_path: Path) -> None:
    """Several settings of one cell share patches, embeddings, pairs, probe and stage one."""
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path))
    desk, done = toy_bench(monkeypatch), Counter[str]()

    def counted(of: Any, name: str, what: Callable[..., str]) -> None:
        plain = getattr(of, name)

        def call(*asked: Any, **named: Any) -> Any:
            done[what(*asked)] += 1
            return plain(*asked, **named)

        monkeypatch.setattr(of, name, call)

    counted(ToyData, "open", lambda _, name: f"patches of {name}")
    counted(embeddings, "_stream", lambda path, count, _: f"{count} embeddings, {path.name[:9]}")
    counted(pairing, "top_k", lambda images, texts, k, **_: f"pairs of {len(images)}")
    counted(experiment, "probe", lambda spec, *_: f"probe {spec.seed} {spec.labels_per_class}")
    counted(text, "_train", lambda spec, *_: f"stage one, {spec.key}")
    settings = (
        "unimodal", "lora_only", "clip_it", "clip_it/lambda_3", "clip_it/random_reports",
        "clip_it/image_target", "clip_it/soft_labels", "text", "lora_only/labels_5",
    )  # fmt: skip
    for setting in settings:
        experiment.perform(specs.resolve(desk, *TOY, setting, 3), desk)
    assert set(done.values()) == {1}
    kinds = Counter(name.split()[0] if name[0].isalpha() else "embeddings" for name in done)
    # The backbone's of train and validation, the retriever's of all splits, the reports'.
    assert kinds == {"patches": 1, "embeddings": 6, "pairs": 3, "probe": 2, "stage": 2}


def test_looks_at_a_part_of_validation_choose_by_it_and_predict_all(monkeypatch) -> None:
    """The paper's profile asks for it: 12 times fewer passes, and nothing else changes."""
    desk = toy_bench(monkeypatch, training={"epochs": 2, "checks_per_epoch": 2, "batch_size": 20})
    plain = specs.resolve(desk, *TOY, "clip_it", 5)
    assert plain.training is not None
    read, found = list[int](), {}
    whole = training.predict_logits

    def counted(model: Any, patches: training.Patches) -> Any:
        read.append(len(patches.rows))
        return whole(model, patches)

    monkeypatch.setattr(training, "predict_logits", counted)
    for most in (None, 10, 28):  # of 28
        asked = plain.training.model_copy(update={"looks_at": most})
        found[most] = experiment.perform(plain.model_copy(update={"training": asked}), desk)
    # Four looks, and one before the first step where the probe's own loss is on other patches.
    assert read == [28] * 4 + [10] * 5 + [28] * 4
    pd.testing.assert_frame_equal(found[None].predictions, found[28].predictions)
    assert len(found[10].predictions) == len(found[None].predictions) == 28 + 14
    courses = [[row["classification"] for row in found[most].history] for most in (None, 10)]
    assert courses[0] == courses[1]
    assert found[None].history[0]["validation"] != found[10].history[0]["validation"]
