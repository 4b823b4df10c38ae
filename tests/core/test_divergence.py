"""Nothing diverges in silence: it stops in one line, or what rests on it says so."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor, nn

from clipit_lib import run as run_
from clipit_lib import runs
from clipit_lib.encoders import clips
from clipit_lib.errors import ClipItError, Diverged
from clipit_lib.runs import StoredRun
from clipit_lib.settings import Descent, StandInTraining
from clipit_lib.training import Task, fit
from companion import __main__, paths, specs, tables, train_encoders
from companion import search as search_trials
from companion import survival as study
from companion.figures import style
from companion.own import choice_words, choose, summary, summary_words
from companion.profile import (
    Profile,
    Search,
    SlideTraining,
    Workbench,
    get_or_train,
    load_profile,
    sources_of_profile,
)
from companion.survival import cohort as opening

CELL = ("phantom-pcam", "phantom_vit_s16")
HUGE = {"learning_rate": 1e30, "epochs": 2}


def changed(bench: Workbench, section: str, **values: Any) -> Workbench:
    """The bench of a profile with other values in one section."""
    own = getattr(bench.profile, section)
    new = own.model_validate(own.model_dump() | values)
    return Workbench(bench.profile.model_copy(update={section: new}))


def kept(pattern: str) -> set[Path]:
    return set(paths.cache().parent.rglob(pattern))


@pytest.mark.parametrize(
    ("setting", "section", "stage"),
    [
        ("unimodal", "probe", "the probe"),
        ("clip_it", "text_stage", "stage one"),
        ("text", "text_stage", "stage one"),
        ("lora_only", "training", "stage two"),
        ("clip_it", "training", "stage two"),
        ("contrastive", "training", "contrastive fine-tuning"),
    ],
)
def test_each_stage_stops_and_says_where_and_what_to_change(
    bench: Workbench, setting: str, section: str, stage: str
) -> None:
    own = changed(bench, section, **HUGE)
    backbone = "phantom_clip" if setting == "contrastive" else CELL[1]
    spec = specs.resolve(own, CELL[0], backbone, setting, 0)
    before = kept("text_stage/*.safetensors")
    with pytest.raises(Diverged) as caught:
        runs.get_or_run(spec, own)
    said = str(caught.value)
    what = f"{backbone}, {setting}"
    if section != "training":  # other runs may share it
        what = backbone if section == "probe" else "reports paired by phantom_clip"
    assert said.startswith(f"{stage} of {CELL[0]}, {what}, seed 0: diverged: the ")
    assert " of 2; nothing is stored. " in said and "at step " in said and "\n" not in said
    assert f"Lower {section}.learning_rate (1e+30)" in said
    assert not (paths.runs("smoke") / spec.key).exists()
    new = kept("text_stage/*.safetensors") - before
    assert not new if section == "text_stage" else len(new) <= 1


def test_the_section_of_a_data_set_is_named(bench: Workbench) -> None:
    rate = bench.profile.training.model_validate(HUGE)
    own = Workbench(bench.profile.model_copy(update={"training_for": {CELL[0]: rate}}))
    with pytest.raises(
        Diverged, match=r"Lower training.learning_rate .* or that of `training_for`"
    ):
        runs.get_or_run(specs.resolve(own, *CELL, "lora_only", 0), own)


def test_survival_stops(bench: Workbench) -> None:
    settings = bench.profile.survival
    assert settings is not None
    rate = SlideTraining.model_validate(HUGE | {"epochs": 3})
    own = changed(bench, "survival", training=rate)
    cohort = opening.open_cohort(own.profile)
    spec = study.resolve(own, cohort, "clip_it", 0)
    with pytest.raises(Diverged, match="survival of clip_it, seed 0, without fold ") as caught:
        study.get_or_run(spec, own, cohort)
    assert "Lower survival.training.learning_rate (1e+30)" in str(caught.value)
    assert not (paths.results("smoke") / "survival_runs" / spec.key).exists()


@pytest.mark.parametrize("name", ["phantom_clip", "phantom_vit_s16"])
def test_an_encoder_that_diverges_is_not_kept(bench: Workbench, name: str) -> None:
    settings = bench.profile.pretraining
    assert settings is not None
    new = settings.model_copy(update={"learning_rate": 1e30, "images": 128})
    profile = bench.profile.model_copy(update={"pretraining": new})
    with pytest.raises(Diverged, match=f"training of {name}, seed 0: diverged: ") as caught:
        get_or_train(name, profile)
    assert str(caught.value).endswith("Lower pretraining.learning_rate (1e+30)")
    assert not sources_of_profile(profile).recipe(name).folder.exists()


def test_an_encoder_says_that_its_loss_rose(bench: Workbench) -> None:
    settings = bench.profile.pretraining
    assert settings is not None
    few = settings.model_copy(update={"images": 32, "batch_size": 16})
    values = iter([1.0, 1.0, 2.0, 2.0])
    model = nn.Linear(1, 1)

    def loss(rows: np.ndarray) -> Tensor:
        return 0 * model.weight.sum() + next(values)

    learned, shuffle = list(model.parameters()), np.random.default_rng(0)
    course = train_encoders._descend("toy", few, learned, loss, 2, 32, shuffle)
    assert course["loss"] == [1.0, 2.0]
    assert course["notes"] == ("training of toy, seed 0: the training loss rose from 1 to 2",)


def test_the_stand_in_stops(monkeypatch) -> None:
    tower = clips.StandInTextTower(nn.Identity(), 6, 0, 4)
    image = nn.Module()
    image.backbone, image.projection = nn.Identity(), nn.Linear(5, 4)
    monkeypatch.setattr(clips, "build_stand_in", lambda settings: (image, tower))
    monkeypatch.setattr(clips, "stand_in_tokenizer", lambda settings: None)
    monkeypatch.setattr(train_encoders, "_image_states", lambda *_: torch.randn(8, 5))
    monkeypatch.setattr(train_encoders, "_text_states", lambda *_: torch.randn(2, 3, 6))
    settings = StandInTraining(
        dataset="toy", epochs=3, batch_size=4, captions_per_class=3, learning_rate=1e30
    )
    pixels, labels = np.zeros((8, 2, 2, 3), np.uint8), np.arange(8) % 2
    with pytest.raises(Diverged, match="training of stand_in, seed 0") as caught:
        train_encoders.train_stand_in(
            settings, pixels, labels, ("adenocarcinoma", "villous adenoma")
        )
    assert str(caught.value).endswith("Lower stand_in.learning_rate (1e+30)")


class Toy(Task):
    """One number that is learned; loss and validation are what a test says, call by call."""

    def __init__(self, losses: Callable[[int], float], looks: Callable[[int], float]) -> None:
        self.model = nn.Linear(1, 1)
        self.rows, self.calls, self.looked = 4, 0, 0
        self.losses, self.looks = losses, looks

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        self.calls += 1
        return {"classification": model.weight.sum() * 0 + self.losses(self.calls)}

    def validate(self) -> float:
        self.looked += 1
        return self.looks(self.looked)


def course(task: Toy, **values: Any) -> tuple[str, ...]:
    return fit(task, Descent(epochs=3, batch_size=2), 0, **values).notes


def test_validation_alone_and_a_later_epoch_stop_too() -> None:
    with pytest.raises(Diverged, match=r"cross-entropy is nan at step 2 of 2 in epoch 1 of 3"):
        course(Toy(lambda _: 1.0, lambda look: math.nan if look == 2 else 1.0))
    with pytest.raises(Diverged, match=r"classification loss is inf at step 1 of 2 in epoch 3"):
        course(Toy(lambda call: math.inf if call == 5 else 1.0, lambda _: 1.0))
    with pytest.raises(Diverged, match=r"before the first step.*Look for numbers that are not fin"):
        course(Toy(lambda _: 1.0, lambda _: math.nan))
    with pytest.raises(Diverged, match=r"step 1 of 2 in epoch 1 of 3.*Look for numbers"):
        course(Toy(lambda _: math.nan, lambda _: 1.0))


class Steep(Toy):
    """A loss that is finite where its gradient is not."""

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"classification": (0 * model.weight).abs().sum().sqrt() + 1}


def test_a_gradient_that_is_not_finite_stops() -> None:
    with pytest.raises(Diverged, match="the gradient's norm is nan at step 1 of 2"):
        course(Steep(lambda _: 1.0, lambda _: 1.0))


class Deaf(Toy):
    """A validation that does not see what is learned."""

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == 6:
            model.weight.data.fill_(math.nan)
        return {"classification": model.bias.sum()}


def test_weights_that_end_not_finite_stop() -> None:
    with pytest.raises(Diverged, match="the learned weights are not all finite after the last"):
        course(Deaf(lambda _: 1.0, lambda _: 1.0), keep="last")


def test_a_doubtful_course_is_noted_and_a_healthy_one_is_not() -> None:
    assert course(Toy(lambda _: 1.0, lambda look: 1 / look)) == ()
    worse = "training of this model: the best look at validation (2 nats) is no better than "
    assert course(Toy(lambda _: 1.0, float)) == (f"{worse}the untrained start (1)",)
    risen = "training of this model: the training loss rose from 1.5 to 5.5"
    assert course(Toy(float, lambda look: 1 / look)) == (risen,)
    # A start that is known is not computed again.
    task = Toy(lambda _: 1.0, lambda look: 1 / look)
    assert len(course(task, start=0.2)) == 1 and task.looked == 3
    # The last weights are kept, whatever an earlier look was.
    looks = [1.0, 0.5, 0.7, 3.0]
    assert course(Toy(lambda _: 1.0, lambda look: looks[look - 1])) == ()
    assert len(course(Toy(lambda _: 1.0, lambda look: looks[look - 1]), keep="last")) == 1


def test_a_look_at_the_start_changes_no_weight_and_no_row() -> None:
    from clipit_lib.training import FeatureTask

    found = []
    for start in (None, 0.7):
        torch.manual_seed(0)
        head, features = nn.Linear(4, 2), torch.randn(24, 4)
        labels = (features[:, 0] > 0).long()
        task = FeatureTask(head, (features[:16], labels[:16]), (features[16:], labels[16:]))
        history = fit(task, Descent(epochs=3, batch_size=4, checks_per_epoch=2), 1, start=start)
        found.append((head.weight.detach().clone(), list(history), torch.rand(1)))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert torch.equal(found[0][2], found[1][2])


def test_predictions_that_are_not_finite_are_not_stored(bench: Workbench, monkeypatch) -> None:
    spec = specs.resolve(bench, *CELL, "unimodal", 77)
    perform = run_.perform

    def spoilt(*asked: Any) -> Any:
        outcome = perform(*asked)
        outcome.predictions.loc[0, "logit_1"] = np.nan
        return outcome

    monkeypatch.setattr(runs, "perform", spoilt)
    with pytest.raises(Diverged, match=r"prediction of .*seed 77: diverged: the logits"):
        runs.get_or_run(spec, bench)
    assert not (paths.runs("smoke") / spec.key).exists()


def written(folder: Path, **sections: Any) -> str:
    raw = yaml.safe_load((paths.profiles() / "smoke.yaml").read_text(encoding="utf-8"))
    raw |= {"name": "hasty", "seeds": [0], **sections}
    (folder / "hasty.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return str(folder / "hasty.yaml")


def test_train_ends_with_one_line_and_code_2(bench: Workbench, tmp_path: Path, capsys) -> None:
    profile = written(tmp_path, training={"epochs": 1, "learning_rate": 1e6})
    asked = ["--profile", profile, "--dataset", CELL[0]]
    assert __main__.main(["train", "own", *asked]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: stage two of phantom-pcam")
    assert {run.spec.setting for run in runs.stored("hasty")} == {"unimodal"}


def test_a_diverged_trial_is_said_and_never_chosen(bench: Workbench, monkeypatch) -> None:
    task = search_trials.Task(bench.profile, *CELL, Search(trials=2, seeds=(1001,)))
    real, asked = runs.get_or_run, []

    def first_diverges(spec: Any, own: Workbench) -> StoredRun:
        asked.append(spec)
        if len(asked) in (1, 3):
            raise Diverged("diverged", "stage two", "Lower training.learning_rate")
        return real(spec, own)

    monkeypatch.setattr(runs, "get_or_run", first_diverges)
    table = search_trials.search(task)
    assert len(table) == 4 and np.isinf(table["validation"]).tolist() == [True, False] * 2
    assert table["note"].isna().tolist() == [False, True] * 2
    assert "Lower training.learning_rate" in table["note"][0]
    from companion import search

    best = search.chosen(task, table)
    found = best["lora_only"].found_with
    assert found is not None and found.validation == pytest.approx(table["validation"][1], 1e-5)
    with pytest.raises(ClipItError, match="every trial of lora_only diverged"):
        search.chosen(task, table[table["number"] == 0])


@pytest.fixture(scope="module")
def hasty(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> list[StoredRun]:
    """Runs whose learning rate is too high to lead anywhere but whose numbers stay finite."""
    slow = {"epochs": 2, "learning_rate": 3.0}
    profile: Profile = load_profile(written(tmp_path_factory.mktemp("hasty"), training=slow))
    own = Workbench(profile)
    names = ("unimodal", "lora_only", "clip_it")
    return [runs.get_or_run(specs.resolve(own, *CELL, name, 0), own) for name in names]


def test_what_rests_on_a_doubtful_run_says_so(
    hasty: list[StoredRun], tmp_path: Path, capsys
) -> None:
    unimodal, lora_only, _ = hasty
    assert not unimodal.notes and "is no better than the probe" in lora_only.notes[0]
    assert json.loads((lora_only.folder / runs.DONE).read_text())["notes"] == list(lora_only.notes)
    keys = [run.key for run in hasty]
    tables.save_table("hasty", "any", pd.DataFrame({"x": [1]}), "words", keys)
    said = (paths.tables("hasty") / "any.md").read_text(encoding="utf-8")
    assert "**2 of 3 runs rest on a doubtful course**" in said and said.startswith("words\n")
    assert f"phantom-pcam, phantom_vit_s16, lora_only, seed 0 ({lora_only.key})" in said
    assert "2 of 3 runs rest on a doubtful course" in capsys.readouterr().out
    tables.save_table("hasty", "sound", pd.DataFrame({"x": [1]}), "words", [unimodal.key])
    assert (paths.tables("hasty") / "sound.md").read_text(encoding="utf-8") == "words\n"
    __main__.main(["collect", "--profile", written(tmp_path)])
    assert "2 of 3 runs rest on a doubtful course" in capsys.readouterr().out

    import matplotlib.pyplot as plt

    style.save(plt.figure(), "hasty", "any", keys)
    drawn = (paths.figures("hasty") / "any.svg").read_text(encoding="utf-8")
    assert "2 of 3 runs rest on a doubtful course: see the table" in drawn
    assert lora_only.key not in drawn  # the table names them


def test_the_summary_credits_nothing_to_text_beside_doubtful_runs(hasty: list[StoredRun]) -> None:
    doubt = tables.doubtful("hasty", [run.key for run in hasty])
    found = summary(hasty).assign(word="helps")
    assert "The text helps here" in summary_words(found)
    words = summary_words(found, doubt)
    assert words.startswith("**2 of 3 runs rest") and "helps here" not in words
    assert "**The text is not shown to help here: some runs rest on a doubtful course.**" in words
    assert "**Doubtful**: stage two of " in choice_words(choose(hasty[1:], CELL[0]))
