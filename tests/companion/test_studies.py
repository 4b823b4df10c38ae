"""Which runs a profile asks for, how settings are named, and how words say it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from clipit_lib import runs as stored_runs
from clipit_lib.errors import ClipItError
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec, TextSpec
from companion import paths, specs, studies
from companion.__main__ import main
from companion.figures.gains import AXES, KNOBS, curves_along, gain_curves_figure, map_table
from companion.profile import Profile, Study, Workbench, load_profile
from companion.specs import label
from companion.train import train

CELL = ("phantom-pcam", "phantom_vit_s16")


def counted(profile: Profile) -> dict[str, int]:
    """Runs of each study by the profile alone: cells x settings x seeds."""
    counts = {}
    for name in studies.STUDIES:
        if studies.asked(profile, name):
            cells = studies.cells(profile, name)
            counts[name] = sum(len(settings) * len(seeds) for *_, settings, seeds in cells)
    return counts


@pytest.mark.parametrize("name", sorted(p.stem for p in paths.profiles().glob("*.yaml")))
def test_every_profile_says_how_many_trainings_it_needs(name: str) -> None:
    profile = load_profile(name)
    counts = counted(profile)
    whole = {
        (dataset, backbone, setting, seed)
        for study in counts
        for dataset, backbone, settings, seeds in studies.cells(profile, study)
        for setting in settings
        for seed in seeds
    }
    for *_, setting, _ in whole:
        specs.fields_of(setting, profile)  # raises for a name that means nothing
    print(f"{name}: {counts}, together {len(whole)} different runs")
    data = profile.studies.get("table1", Study()).datasets or profile.data
    assert counts["table1"] == (
        len(data) * len(profile.backbones) * len(profile.settings) * len(profile.seeds)
    )
    assert max(counts.values()) <= len(whole) < sum(counts.values())


def test_studies_share_runs(bench: Workbench) -> None:
    each = [
        spec.key
        for name in studies.STUDIES
        if studies.asked(bench.profile, name)
        for spec in studies.runs_of(bench, name)
    ]
    assert 0 < len(set(each)) < len(each)


def test_a_study_not_asked_for_is_said(bench: Workbench) -> None:
    lean = Workbench(bench.profile.model_copy(update={"studies": {}}))
    with pytest.raises(ClipItError, match=r"no study 'map'.*Add `map: \{\}`"):
        studies.runs_of(lean, "map")
    assert studies.runs_of(lean, "table1")


def test_a_study_may_choose_its_own_cells(bench: Workbench) -> None:
    study = Study(datasets=("phantom-crc",), settings=("unimodal", "clip_it/lambda_3"), seeds=(7,))
    own = Workbench(bench.profile.model_copy(update={"studies": {"ablations": study}}))
    found = [(s.dataset, s.setting, s.seed) for s in studies.runs_of(own, "ablations")]
    assert found == [("phantom-crc", "unimodal", 7), ("phantom-crc", "clip_it/lambda_3", 7)]


def test_changes_reach_the_specification(bench: Workbench) -> None:
    def spec(setting: str) -> RunSpec:
        return specs.resolve(bench, *CELL, setting, 0)

    def text(setting: str) -> TextSpec:
        found = spec(setting).text
        assert found is not None
        return found

    assert spec("clip_it/lambda_0.3").distillation_weight == 0.3
    assert text("clip_it/report_rank_4").pairing.rank == 4
    assert text("clip_it/word_dropout_30").word_dropout == 0.3
    assert text("clip_it/long_text_chunk").training == bench.profile.text_stage.model_copy(
        update={"long_text": "chunk"}
    )
    rank = spec("clip_it/lora_rank_16").lora
    own = bench.profile.lora
    assert rank.rank == 16 and rank.alpha / 16 == own.alpha / own.rank
    assert text("clip_it/lora_rank_16").lora == rank != own == text("clip_it").lora
    other = text("clip_it/retriever_phantom_clip_noisy")
    assert other.retriever == "phantom_clip_noisy"
    assert other.retriever_hash != text("clip_it").retriever_hash
    written = text("clip_it/corpus_synthetic-pcam")
    assert written.corpus == "synthetic-pcam" and written.corpus_hash != text("clip_it").corpus_hash
    both = spec("clip_it/random_reports/labels_5")
    assert both.labels_per_class == 5 and both.text is not None
    assert both.text.labels_per_class == 5 and both.text.pairing.reports == "random"
    assert spec("lora_only/label_noise_30").label_noise == 0.3


def test_only_what_a_setting_uses_is_in_its_key(bench: Workbench) -> None:
    without = specs.resolve(bench, *CELL, "clip_it/without_lora", 0)
    assert without.lora is None and without.training is not None
    assert without.text is not None and without.text.lora is None
    vision_only = specs.resolve(bench, *CELL, "clip_it/lora_vision_only", 0)
    assert vision_only.lora is not None and vision_only.text is not None
    assert vision_only.text.lora is None
    text_only = specs.resolve(bench, *CELL, "clip_it/lora_text_only", 0)
    assert text_only.lora is not None and text_only.text is not None
    assert text_only.text.lora == text_only.lora
    text = specs.resolve(bench, CELL[0], "phantom_clip", "text", 0)
    assert text.training is None and text.distillation_weight is None
    shot = specs.resolve(bench, CELL[0], "phantom_clip", "zero_shot", 0)
    assert (shot.lora, shot.training, shot.branch, shot.text) == (None, None, None, None)
    # Reports are named where they are read, texts of classes where they are filled in.
    read, prompted = (
        specs.resolve(bench, CELL[0], "phantom_clip", name, 0).text
        for name in ("text", "text/prompts")
    )
    assert read is not None and prompted is not None
    assert read.corpus_hash == bench.corpus(CELL[0]).content_hash and read.class_texts is None
    assert (prompted.corpus, prompted.corpus_hash) == (None, None)
    assert prompted.class_texts == bench.dataset(CELL[0]).class_texts


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("clip_itt", "unknown setting 'clip_itt'"),
        ("clip_it/labmda_3", "unknown setting 'clip_it/labmda_3'"),
        ("clip_it/lambda_much", "cannot read 'lambda_much'"),
        ("clip_it/retriever", "unknown setting 'clip_it/retriever'"),
        ("clip_it/lambda_1/labels_5/lambda_3", "'clip_it/lambda_1/labels_5/lambda_3' changes some"),
    ],
)
def test_a_setting_that_means_nothing_is_said(bench: Workbench, setting: str, said: str) -> None:
    with pytest.raises(ClipItError, match=said):
        specs.resolve(bench, *CELL, setting, 0)


def test_a_setting_is_taken_apart_and_named_again() -> None:
    own = specs.Setting.of("clip_it/random_reports/labels_5/lambda_0.3")
    assert (own.base, own.changes) == ("clip_it/random_reports", {"labels": "5", "lambda": "0.3"})
    noisy = specs.Setting.of("clip_it/retriever_phantom_clip_noisy")
    assert noisy.changes == {"retriever": "phantom_clip_noisy"}
    for name in (*studies.ABLATIONS, *studies.AUDIT, *studies.CLIP_AUDIT, *studies.CONTROLS):
        assert str(specs.Setting.of(name)) == name and specs.Setting.of(name).base
    assert specs.Setting.of("clip_itt/lambda_3").base == ""


def test_a_contrastive_run_needs_a_clip(bench: Workbench) -> None:
    with pytest.raises(ClipItError, match="unknown retriever 'phantom_vit_s16'"):
        specs.resolve(bench, *CELL, "contrastive", 0)


def test_the_released_protocol_takes_patches_of_one_class_as_negatives(bench: Workbench) -> None:
    released = Workbench(bench.profile.model_copy(update={"protocol": "released"}))
    for desk, setting, said in (
        (bench, "contrastive", "left_out"),
        (released, "contrastive", "negatives"),
        (bench, "contrastive/protocol_released", "negatives"),
    ):
        spec = specs.resolve(desk, CELL[0], "phantom_clip", setting, 0)
        assert spec.contrastive.same_class == said
        assert spec.contrastive.averaging == "similarities"


def test_settings_in_words() -> None:
    assert label("clip_it/word_dropout_30") == "30% of the words dropped"
    assert label("lora_only/labels_5") == "LoRA only, 5 labels per class"
    assert label("lora_only/labels_1/passes_1") == "LoRA only, 1 label per class, 1 pass per epoch"
    assert label("clip_it/random_reports/label_noise_10").startswith("random reports, 10%")
    assert label("something") == "something"


def test_train_runs_one_seed_and_lists_its_runs(bench: Workbench, tmp_path, capsys) -> None:
    output = tmp_path / "keys.txt"
    main(["train", "table6", "--output", str(output), "--profile", "smoke", "--seed", "1"])
    keys = output.read_text().split()
    wanted = [s.key for s in studies.runs_of(bench, "table6") if s.seed == 1]
    assert (
        keys == wanted and "3 of 3: phantom-pcam phantom_clip text/terms" in capsys.readouterr().out
    )
    with pytest.raises(ClipItError, match="no run has seed 9"):
        train("smoke", ["table6"], seed=9)


class Answered(StoredRun):
    """A run whose every test answer is known."""

    def predictions(self, split: str = "test"):
        import numpy as np

        from clipit_lib.predictions import predictions_frame

        rng = np.random.default_rng(self.spec.seed)
        labels = np.arange(200) % 2
        share = {"clip_it": 0.9, "lora_only": 0.8}.get(self.spec.setting.split("/")[0], 0.8)
        if self.spec.setting == "clip_it/labels_5":
            share = 0.6
        right = rng.permutation(200) < round(200 * share)
        answer = np.where(right, labels, 1 - labels)
        ids = [str(k) for k in range(200)]
        return predictions_frame(ids, [""] * 200, labels, np.eye(2)[answer], split)


def test_the_map_shows_the_gain_at_each_point(bench: Workbench) -> None:
    names = (
        "lora_only", "clip_it/random_reports", "clip_it", "lora_only/labels_5",
        "clip_it/random_reports/labels_5", "clip_it/labels_5", "clip_it/lambda_3",
        "clip_it/random_reports/lambda_3", "clip_it/retriever_phantom_clip_noisy",
        "clip_it/class_prompts_20", "clip_it/class_prompts_100", "lora_only/labels_5/passes_4",
        "clip_it/random_reports/labels_5/passes_4/text_passes_2",
        "clip_it/labels_5/passes_4/text_passes_2",
    )  # fmt: skip
    stored = [
        Answered(paths.runs("x"), specs.resolve(bench, *CELL, name, seed))
        for name in names
        for seed in (0, 1)
    ]
    axes = curves_along([run.spec.setting for run in stored], bench.profile, AXES)
    assert {title: list(points) for title, points in axes.items()} == {
        "labels per class": ["5", "all"],
        "labels per class, in as many steps": ["5", "all"],
        "retriever": ["phantom_clip", "phantom_clip_noisy"],
        "λ": ["1", "3"],
        "prompts of the right class (%)": ["20", "100"],
    }
    table = map_table(stored, axes).set_index(["axis", "point", "control"])
    whole = table.loc[("labels per class", "all", "lora_only")]
    assert whole["gain"] == pytest.approx(10, abs=1e-6)
    few = table.loc[("labels per class", "5", "clip_it/random_reports")]
    assert few["first"] == "clip_it/random_reports/labels_5"
    often = table.loc["labels per class, in as many steps"].loc["5"]
    assert often["first"].to_dict() == {
        "lora_only": "lora_only/labels_5/passes_4",
        "clip_it/random_reports": "clip_it/random_reports/labels_5/passes_4/text_passes_2",
    }
    strong = table.loc[("λ", "3", "lora_only")]
    assert strong["first"] == "lora_only" and strong["second"] == "clip_it/lambda_3"
    weak = table.loc[("retriever", "phantom_clip_noisy", "clip_it/random_reports")]
    assert weak["first"] == "clip_it/random_reports"
    named = table.loc["prompts of the right class (%)"]
    assert set(named["first"]) == {"lora_only", "clip_it/random_reports"}


def test_knobs_are_in_order_and_hold_the_profiles_own_point(bench: Workbench) -> None:
    names = ["clip_it", "clip_it/lambda_10", "clip_it/lambda_0.3", "clip_it/report_rank_2",
             "clip_it/random_reports"]  # fmt: skip
    curves = curves_along(names, bench.profile, KNOBS)
    assert list(curves["λ"]) == ["0.3", "1", "10"]
    assert list(curves["rank of the paired report"]) == ["1", "2", "random"]
    assert "LoRA rank" not in curves
    apart = curves_along([f"clip_it/label_noise_{n}" for n in (60, 20)], bench.profile, AXES)
    assert apart == {  # the profile's own point was not asked there
        "wrong labels (%)": {"20": "clip_it/label_noise_20", "60": "clip_it/label_noise_60"}
    }


def test_a_line_of_the_map_passes_through_its_marks() -> None:
    gains = pd.DataFrame({"axis": "wrong labels (%)", "point": ["20", "60"], "control": "lora_only",
                          "gain": [1, 3], "low": 0.5, "high": 4})  # fmt: skip
    figure = gain_curves_figure(gains, {"wrong labels (%)": dict.fromkeys(["0", "20", "60"], "x")})
    (line,) = (
        line for line in figure.axes[0].lines
        if line.get_transform() == figure.axes[0].transData and len(set(line.get_ydata())) > 1
        and len(set(line.get_xdata())) > 1
    )  # fmt: skip
    assert line.get_xydata().tolist() == [[1, 1], [2, 3]]
    plt.close(figure)


def test_lines_of_the_map_join_numbers_and_no_categories() -> None:
    points = {"labels per class": ("5", "20", "all"), "retriever": ("clip", "noisy")}
    gains = pd.DataFrame(
        [(axis, each, "lora_only", 1, 0.5, 2) for axis, names in points.items() for each in names],
        columns=["axis", "point", "control", "gain", "low", "high"],
    )
    axes = {axis: dict.fromkeys(names, "x") for axis, names in points.items()}
    figure = gain_curves_figure(gains, axes)
    joined = [
        [line.get_xdata().tolist() for line in axis.lines
         if line.get_transform() == axis.transData and len(np.unique(line.get_xdata())) > 1]
        for axis in figure.axes
    ]  # fmt: skip
    marks = [
        sum(line.get_marker() == "s" and len(line.get_xdata()) > 0 for line in axis.lines)
        for axis in figure.axes
    ]
    plt.close(figure)
    assert joined == [[[0, 1]], []] and marks == [3, 2]


def test_runs_are_tracked_where_it_is_asked_for(
    bench: Workbench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In W&B, for which something stands in: a run for each run, a step for each look."""
    asked = ["train", "table1", "-p", "smoke", "--dataset", CELL[0], "--seed", "0", "--track"]
    monkeypatch.setattr("companion.train.find_spec", lambda name: None)
    for package in ("tensorboard", "wandb"):
        assert main([*asked, package]) == 2
        said = f"error: --track {package}: not installed. Run `pip install {package}`"
        assert capsys.readouterr().err.strip() == said
    made: list[str] = []
    logged: list[tuple[int, dict[str, float]]] = []

    def log(row: dict[str, float], step: int) -> None:
        logged.append((step, row))

    def init(*, name: str, **given: object) -> object:
        made.append(name.split()[-1])
        return SimpleNamespace(log=log, finish=lambda: made.append("finished"))

    monkeypatch.setattr("companion.train.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    assert main([*asked, "wandb", "--output", str(tmp_path / "keys")]) == 0
    keys = (tmp_path / "keys").read_text(encoding="utf-8").split()
    assert made[::2] == keys and made[1::2] == ["finished"] * len(keys)
    courses = [stored_runs.read(paths.runs("smoke") / key).history() for key in keys]
    assert logged == [look for rows in courses for look in enumerate(rows.to_dict("records"))]
