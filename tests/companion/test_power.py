"""The crossed model against its algebra and simulated truths; worlds and questions of the kind."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from toys import CELL, toy_bench

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from companion import paths, power, registration, specs, studies
from companion.phantom.known import Drawn, Known, KnownCorpus, KnownData, information
from companion.power import Design, Spread, judged, planted
from companion.profile import Study, Workbench
from companion.statistics import Cell, Gain, Word, crossed_gain

# -- Four words.


@pytest.mark.parametrize(
    ("estimate", "error", "word"),
    [
        (2.0, 1.0, Word.HELPS),  # 2.0 > 1.96
        (-2.0, 1.0, Word.HURTS),
        (1.9, 1.0, Word.UNDECIDED),
        (0.0, 0.6, Word.EQUIVALENT),  # 1.645 x 0.6 < 1
        (0.0, 0.62, Word.UNDECIDED),
        (-0.5, 0.35, Word.UNDECIDED),  # 0.5 + 1.645 x 0.35 > 1
        (0.3, 0.1, Word.HELPS),  # sure, if small
        (0.0, 0.0, Word.EQUIVALENT),
    ],
)
def test_words_by_the_interval(estimate: float, error: float, word: Word) -> None:
    assert Gain(estimate, error, 1e9).word() is word


def test_the_smallest_gain_is_found_with_its_power() -> None:
    gain = Gain(0.0, 0.7, 1e9)
    drawn = gain.smallest + 0.7 * np.random.default_rng(0).standard_normal(20_000)
    assert np.mean(drawn - 1.96 * 0.7 > 0) == pytest.approx(0.8, abs=0.01)


def cell(table: np.ndarray) -> Cell:
    """One sample per patient and class, so that `table` [seeds, patients] holds the gains."""
    first = np.repeat(table < 0, 2, axis=1)
    second = np.repeat(table > 0, 2, axis=1)
    people = np.repeat(np.arange(table.shape[1]), 2)
    return Cell("one", first, second, np.tile([0, 1], table.shape[1]), people)


def test_the_error_of_a_table_worked_by_hand() -> None:
    # Rows 50 and 50, columns 100 and 0; nothing is left over: two patients, 50 +- 50.
    found = crossed_gain([cell(np.array([[1, 0], [1, 0]]))])
    assert (found.estimate, found.error, found.freedom) == (50.0, pytest.approx(50.0), 1.0)
    # And the other way round: two seeds.
    found = crossed_gain([cell(np.array([[1, 1], [0, 0]]))])
    assert (found.estimate, found.error, found.freedom) == (50.0, pytest.approx(50.0), 1.0)
    # Chance alone: components of seeds and patients are zero, one square is left over.
    found = crossed_gain([cell(np.array([[1, 0], [0, 1]]))])
    assert (found.estimate, found.error, found.freedom) == (50.0, pytest.approx(50.0), 1.0)


def test_one_seeds_p_value_is_students() -> None:
    table = np.random.default_rng(3).integers(-1, 2, (1, 12))
    expected = stats.ttest_1samp(100 * table[0], 0).pvalue
    assert crossed_gain([cell(table)]).p == pytest.approx(expected)
    assert (Gain(0.0, 0.0, 1.0).p, Gain(1.0, 0.0, 1.0).p) == (1.0, 0.0)


def test_data_sets_are_independent_and_backbones_of_one_are_not() -> None:
    table = np.random.default_rng(0).integers(-1, 2, (5, 30))
    one, two = cell(table), cell(table)
    assert crossed_gain([one, two]) == crossed_gain([one])  # the same numbers twice say no more
    other = Cell("two", two.first, two.second, two.labels, two.groups)
    assert crossed_gain([one, other]).error == pytest.approx(crossed_gain([one]).error / 2**0.5)


def test_identical_settings_are_equivalent() -> None:
    found = crossed_gain([cell(np.zeros((3, 9)))])
    assert (found.estimate, found.error, found.word()) == (0.0, 0.0, Word.EQUIVALENT)


@pytest.mark.parametrize(
    "spread", [Spread(), Spread(patient_gain=1.0, seed_gain=1.0, sample_gain=2.0)]
)
def test_planted_gains_are_what_they_are_called(spread: Spread) -> None:
    rng = np.random.default_rng(0)
    cells = [planted(Design(4, 40, 50), spread, 3.0, rng) for _ in range(60)]
    rights = [(100 * each.first.mean(), 100 * each.second.mean()) for each in cells]
    assert np.mean(rights, axis=0) == pytest.approx([85.0, 88.0], abs=1)


def test_verdicts_and_coverage_on_planted_gains() -> None:
    found = judged([Design(10, 50)], [0.0, 2.0], 150, draws=20)
    off = (found["estimate"] - found["planted"]).abs()
    assert (found["crossed"] == (off <= found["crossed_width"] / 2)).all()
    table = power.summary(found).set_index("planted")
    # Three standard errors of 150 worlds around 95, and the goals for what is found.
    assert table["crossed"].between(95 - 5.4, 100).all()
    assert table.loc[0.0, "helps"] + table.loc[0.0, "hurts"] <= 5 + 5.4
    assert table.loc[2.0, "helps"] >= 90


# -- A world whose answer is known.


WORLD = Known(train=300, validation=100, test=200, noise=0.9, spread=0.3)


def test_labels_are_noisy_where_one_learns_and_true_on_test() -> None:
    drawn = Drawn.of(WORLD)
    right = drawn.latents.label == drawn.truth
    assert right[drawn.splits == "test"].all()
    assert 0.5 < right[drawn.splits == "train"].mean() < 0.75
    larger = Drawn.of(WORLD.model_copy(update={"train": 500}))
    assert (larger.truth[:300] == drawn.truth[:300]).all()


@pytest.mark.parametrize("informs", [0.0, 0.5, 1.0])
def test_information_by_counting(informs: float) -> None:
    """What text adds to the label, against draws of grade, label and statement."""
    rng = np.random.default_rng(0)
    z = rng.beta(WORLD.spread, WORLD.spread, 400_000)
    truth, label = z > 0.5, rng.random(z.size) < 1 / (1 + np.exp((0.5 - z) / WORLD.noise))
    said = np.where(rng.random(z.size) < informs, truth, rng.random(z.size) < 0.5)

    def bits(known: np.ndarray) -> float:
        joint = np.histogram2d(known, truth, bins=[np.arange(5), 2])[0] / z.size
        apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
        return float(
            np.sum(joint[joint > 0] * np.log2((joint / np.where(apart, apart, 1))[joint > 0]))
        )

    found = information(WORLD, informs)
    assert found.label == pytest.approx(bits(label), abs=0.003)
    both = bits(2 * label + said)
    assert found.text_to_label == pytest.approx(both - bits(label), abs=0.003)
    assert 0 <= found.text + 1e-9 and found.image < found.both < 1


def test_a_report_has_the_id_of_its_patch_and_the_class_of_its_truth() -> None:
    data = KnownData(source="known", world=WORLD, corpus="all", side=16).open("known")
    paired = data.samples[data.samples["split"] != "test"]
    informed = KnownCorpus(source="known", world=WORLD, informs=1.0).open("all")
    assert list(informed.ids) == paired["id"].tolist()
    truth = Drawn.of(WORLD).truth[: len(informed)]
    invasive = np.array(["carcinoma" in text for text in informed.texts])
    assert not invasive[truth == 0].any() and invasive[truth == 1].mean() > 0.4
    silent = KnownCorpus(source="known", world=WORLD, informs=0.0).open("none")
    said = np.array(["carcinoma" in text for text in silent.texts])
    assert stats.fisher_exact(np.histogram2d(said, truth, bins=2)[0]).pvalue > 0.01


# -- Questions come before their runs.


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """The first question in a repository of its own, committed a while ago."""
    text = (registration.FOLDER / "positive_control.yaml").read_text(encoding="utf-8")
    text, *_ = text.partition("deviations:")
    path = tmp_path / "positive_control.yaml"
    path.write_text(text, encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "asked", "--date", "2026-01-02T00:00:00Z")
    return path


def test_a_question_stands_since_it_was_last_changed(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registration.load("positive_control", asked.parent)
    assert first.dated_by == "the repository's history"
    text = asked.read_text(encoding="utf-8")
    asked.write_text(f"{text}deviations: [a seed was run twice]\n", encoding="utf-8")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2099-01-01T00:00:00Z")
    git(asked.parent, "commit", "-qam", "a deviation")
    again = registration.load("positive_control", asked.parent)
    assert (again.since, again.question.hash) == (first.since, first.question.hash)
    asked.write_text(text.replace("margin: 1.0", "margin: 2.0"), encoding="utf-8")
    with pytest.raises(ClipItError, match="changed and not committed"):
        registration.load("positive_control", asked.parent)
    git(asked.parent, "commit", "-qam", "another margin")
    later = registration.load("positive_control", asked.parent)
    assert later.since.year == 2099 and later.question.hash != first.question.hash


def test_without_history_its_own_date_counts(asked: Path) -> None:
    folder = asked.parent / "copy"
    folder.mkdir()
    (folder / asked.name).write_text(asked.read_text(encoding="utf-8"), encoding="utf-8")
    found = registration.load("positive_control", folder)
    assert (found.dated_by, found.since) == ("its file", datetime(2026, 11, 28, tzinfo=UTC))


def test_runs_older_than_their_question_are_refused(
    asked: Path, monkeypatch: pytest.MonkeyPatch, output_folder: Path
) -> None:
    desk = toy_bench(monkeypatch)
    arms = {"second": "clip_it/own_100/corpus_toy-own", "first": "clip_it/random_reports"}
    study = Study(datasets=("toy",), settings=tuple(arms.values()), seeds=(40, 41))
    desk = Workbench(desk.profile.model_copy(update={"studies": {"known": study}}))
    registered = registration.load("positive_control", asked.parent)
    changes = {"profile": "smoke", "datasets": ("toy",), "seeds": (40, 41), "secondary": {},
               "negative": {}, "primary": {"own": registration.Pair(**arms)}}  # fmt: skip
    question = registered.question.model_copy(update=changes)
    mine = replace(registered, question=question, since=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ClipItError, match="4 of 4 runs are missing"):
        registration.runs_for(mine, desk)
    for number, spec in enumerate(studies.runs_of(desk, "known")):
        if number == 3:
            with pytest.raises(ClipItError, match="1 of 4 runs are missing"):
                registration.runs_for(mine, desk)
        run = runs.get_or_run(spec, desk)
    stored = registration.runs_for(mine, desk)
    (row,) = registration.answers(mine, stored).to_dict("records")
    assert row["word"] in list(Word) and len(stored) == 4
    monkeypatch.setattr(registration, "every", lambda: [mine])
    assert registration.told(desk, "controls").startswith("No question is registered")
    table = paths.tables(desk.profile.name) / f"registered_{mine.name}.csv"
    assert not table.exists()
    assert "2026-01-01" in registration.told(desk)
    assert pd.read_csv(table)["gain"].tolist() == pytest.approx([row["gain"]])
    with pytest.raises(ClipItError, match="before the question"):
        registration.runs_for(replace(mine, since=datetime(2099, 1, 1, tzinfo=UTC)), desk)
    done = run.folder / "done.json"  # as runs were stored that did not say when
    done.write_text(json.dumps({k: v for k, v in run.done().items() if k != "finished"}))
    with pytest.raises(ClipItError, match=f"run {run.key} was made at an unknown time"):
        registration.runs_for(mine, desk)


def test_an_oracle_asks_for_a_report_of_each_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = toy_bench(monkeypatch)
    spec = specs.resolve(desk, *CELL, "clip_it/own_100", 0)  # its reports are called 0 to 8
    with pytest.raises(ClipItError, match=r"corpus toy: no report of 68 of 68 patches \(p\d+, "):
        runs.get_or_run(spec, desk)
