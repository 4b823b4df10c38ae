"""Data of the user: each warning fires where it must and only there; the whole way from files."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from clipit_lib import paths, runs, specs, studies
from clipit_lib.__main__ import main
from clipit_lib.data.contract import PatchDataset
from clipit_lib.encoders import backbones, clip, vision
from clipit_lib.errors import ClipItError
from clipit_lib.evaluation import balanced_accuracy, predictions_frame
from clipit_lib.figures.own import own_figure
from clipit_lib.own import data_checks, report_checks
from clipit_lib.own.checks import check, datasets
from clipit_lib.own.deployment import candidate_table, choice_words, choose
from clipit_lib.own.findings import (
    Finding,
    Severity,
    findings_table,
    findings_text,
    interval_caveats,
)
from clipit_lib.own.summary import ADDED, POOLED, Verdict, summary, summary_table, summary_words
from clipit_lib.reports.coverage import Coverage
from clipit_lib.runs import StoredRun
from clipit_lib.settings import (
    FileCorpus,
    FolderData,
    Profile,
    Study,
    ValidationSplit,
    load_profile,
)
from clipit_lib.workbench import Workbench

CELL = ("phantom-pcam", "phantom_vit_s16")


def samples(rows: list[tuple[str, str]], repeat: int = 1) -> pd.DataFrame:
    """Patches by split and group."""
    return pd.DataFrame(rows * repeat, columns=["split", "group"])


def one(found: list[Finding], check: str, severity: Severity = Severity.WARNING) -> Finding:
    assert [(f.check, f.severity) for f in found] == [(check, severity)]
    return found[0]


# Data, groups and splits.


def test_groups_in_two_splits_are_named() -> None:
    leak = samples([("train", "p1"), ("train", "p2"), ("test", "p2"), ("test", "p3"), ("test", "")])
    found = one(data_checks.shared_groups(leak), "shared_groups", Severity.STOP)
    assert found.what == "1 groups are in several splits: p2" and "1 of 3 test" in found.why
    apart = samples([("train", "p1"), ("train", ""), ("test", ""), ("test", "p2"), ("test", "p2")])
    assert data_checks.shared_groups(apart) == []


def test_validation_drawn_through_groups_is_stopped() -> None:
    split = ValidationSplit(by="stratified")
    several = samples([("train", "p1"), ("train", "p1"), ("train", "p2"), ("test", "p3")])
    found = data_checks.split_through_groups(several, split)
    assert "1 of 2 training groups" in one(found, "split_through_groups", Severity.STOP).why
    assert data_checks.split_through_groups(several, ValidationSplit(by="group")) == []
    singles = samples([("train", "p1"), ("train", "p2"), ("test", "p3")])
    assert data_checks.split_through_groups(singles, split) == []
    given = pd.concat([several, samples([("validation", "p4")])])
    assert data_checks.split_through_groups(given, split) == []


def test_unknown_groups() -> None:
    found = data_checks.unknown_groups(samples([("train", "a"), ("test", ""), ("test", "b")]))
    assert "1 of 2 test patches" in one(found, "unknown_groups").what
    assert data_checks.unknown_groups(samples([("train", ""), ("test", "b")])) == []


def test_few_test_groups_and_how_far_a_bootstrap_is_off() -> None:
    few = samples([("test", f"p{k}") for k in range(5)], repeat=8)
    assert "5 groups" in one(data_checks.few_groups(few), "few_groups").what
    # Simulated: by how much percentile intervals of 5 means must be widened to hold 95%.
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4000, 5))
    half = 1.96 * means.std(axis=1) / np.sqrt(5)  # what the bootstrap says, nearly
    needed = np.quantile(np.abs(means.mean(axis=1)) / half, 0.95)
    said = float(one(data_checks.few_groups(few), "few_groups").why.split("about ")[1].split()[0])
    assert said == pytest.approx(needed, rel=0.08)
    assert data_checks.few_groups(samples([("test", f"p{k}") for k in range(20)])) == []
    assert data_checks.few_groups(samples([("test", "")], repeat=5)) == []


def patches(splits: list[str], pixels: np.ndarray) -> PatchDataset:
    frame = pd.DataFrame({"id": [f"{k}.png" for k in range(len(splits))], "split": splits})
    return PatchDataset("mine", ("a", "b"), ("a", "b"), frame, pixels, "hash")


def test_equal_pixels_across_splits_and_no_others() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    splits = ["train", "train", "validation", "test", "test", "test"]
    pixels[1] = pixels[0]  # within a split: no leak
    assert data_checks.duplicates(patches(splits, pixels)) == []
    near = pixels.copy()
    near[4] = near[0]
    near[4, 0, 0, 0] ^= 1  # one bit off is another image
    assert data_checks.duplicates(patches(splits, near)) == []
    pixels[4] = pixels[0]
    found = one(data_checks.duplicates(patches(splits, pixels)), "duplicates")
    assert "1 of 3 test patches are also in train" in found.what and "4.png" in found.what
    assert "33.3 points" in found.why


def test_validation_that_is_too_small_to_choose_by() -> None:
    small = np.repeat([0, 1], [40, 8])
    found = one(data_checks.small_validation(small, ("a", "b")), "small_validation")
    said = float(found.why.split("up to ")[1].split()[0])
    rng = np.random.default_rng(0)  # two classes, each right half of the time
    drawn = (rng.binomial(40, 0.5, 20000) / 40 + rng.binomial(8, 0.5, 20000) / 8) / 2
    assert said == pytest.approx(100 * drawn.std(), rel=0.03)
    assert data_checks.small_validation(np.repeat([0, 1], 60), ("a", "b")) == []


def test_imbalance() -> None:
    found = one(data_checks.imbalance(np.repeat([0, 1], [220, 20]), ("a", "b"), 60), "imbalance")
    assert "a has 220 training patches, b has 20" in found.what and "sees 5.0 of b" in found.why
    assert data_checks.imbalance(np.repeat([0, 1], [200, 20]), ("a", "b"), 60) == []


def test_patches_kept_at_another_size_than_the_backbone_reads() -> None:
    found = data_checks.resized_twice(224, {"small": 128, "large": 224})
    assert "small reads 128" in one(found, "resized_twice", Severity.NOTE).what
    assert data_checks.resized_twice(128, {"small": 128}) == []


# Reports, pairs, retriever.


def test_few_reports() -> None:
    found = one(report_checks.few_reports(99, 1980), "few_reports")
    assert "99 reports" in found.what and "20 to a report" in found.why
    assert report_checks.few_reports(100, 1980) == []


def test_what_is_said_beside_an_interval() -> None:
    unknown = data_checks.unknown_groups(samples([("test", "")]))
    said = interval_caveats([*unknown, *report_checks.few_reports(9, 90)])
    assert said.count("\n") == 0 and "intervals are too narrow" in said
    assert interval_caveats(report_checks.few_reports(9, 90)) == ""


def test_few_reports_in_use() -> None:
    spread = np.arange(400) % 40
    assert report_checks.few_used(spread, 9) == []
    assert "20" in one(report_checks.few_used(spread // 2, 12), "few_used").what
    found = one(report_checks.few_used(spread // 5, 2), "few_used")  # eight equally often: 3 bits
    assert "8 reports, as many as 8.0" in found.what and "3.0 bits" in found.why


def test_hubs() -> None:
    ids = [f"r{k}" for k in range(100)]
    even = np.arange(1000) % 100
    assert report_checks.hubs(even, ids) == []
    one_hub = np.where(np.arange(1000) < 300, 7, even)
    assert "report r7 serves 31%" in one(report_checks.hubs(one_hub, ids), "hubs").what
    ten = np.where(np.arange(1000) < 900, even % 10, even)
    assert "ten reports 91%" in one(report_checks.hubs(ten, ids), "hubs").what


def test_truncation() -> None:
    long = Coverage(100, np.array([50, 350]))
    found = one(report_checks.truncation(long, "truncate"), "truncation")
    assert "62% of all tokens" in found.what and "50% of the reports" in found.what
    assert report_checks.truncation(long, "chunk") == []
    assert report_checks.truncation(Coverage(100, np.array([50, 120])), "truncate") == []


def retriever(hits: np.ndarray, labels: np.ndarray) -> list[Finding]:
    groups = np.arange(len(labels)).astype(str)
    return report_checks.weak_retriever(hits, labels, groups, 2, 400)


def test_a_retriever_at_chance_and_one_above() -> None:
    labels = np.repeat([0, 1], [900, 100])
    always = labels == 0  # plain accuracy 90%, balanced 50%
    found = one(retriever(always, labels), "weak_retriever")
    assert "50% of the training patches [50, 50]; chance is 50%" in found.what
    assert one(retriever(np.arange(1000) % 2 == 0, labels), "weak_retriever")
    assert retriever(np.arange(1000) % 10 < 7, labels) == []


def test_a_retriever_that_is_right_on_most_of_few_patients_may_be_at_chance() -> None:
    patients, labels = np.repeat(np.arange(5), 20), np.tile([0, 1], 50)
    hits = patients < 4  # 80% of the patches, and four of five patients
    assert retriever(hits, labels) == []
    by_patient = report_checks.weak_retriever(hits, labels, patients.astype(str), 2, 400)
    assert "80%" in one(by_patient, "weak_retriever").what


def test_class_information_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    reports, labels = rng.integers(0, 7, 300), rng.integers(0, 3, 300)
    expected = [mutual_info_score(reports, labels == c) / np.log(2) for c in range(3)]
    np.testing.assert_allclose(report_checks.class_information(reports, labels, 3), expected)


def test_a_class_whose_reports_are_everybodys() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    own = 20 * labels + rng.integers(0, 20, 600)
    assert report_checks.classes_without_text(own, labels, "abc") == []
    # a and b share their reports; they are told from c alone, so each is still partly told.
    lone = np.where(labels == 2, 40, 0) + rng.integers(0, 20, 600)
    assert report_checks.classes_without_text(lone, labels, "abc") == []
    anyone = np.arange(600) % 20  # each class has each report ten times
    found = report_checks.classes_without_text(anyone, labels, ("fat", "mucus", "tumor"))
    assert one(found, "class_without_text").what.endswith("of: fat, mucus, tumor")
    half = np.where(np.isin(labels, [0, 1]), own, rng.choice(own[labels < 2], 600))
    assert report_checks.classes_without_text(half, labels, "abc")[0].what.endswith("of: c")


def test_class_texts_that_no_report_has() -> None:
    texts = ["Adenoma of tubular type.", "Mucosa, normal."]
    found = report_checks.unmentioned(texts, ("tubular adenoma", "a normal mucosa", "serrated"))
    assert one(found, "unmentioned", Severity.NOTE).what.endswith("of: serrated")
    assert report_checks.unmentioned(texts, ("tubular adenoma", "normal mucosa")) == []


# What the text contributed.


class Answered(StoredRun):
    """A run that answers a known share of its patches; others answer the same patches."""

    def predictions(self, split: str = "test") -> pd.DataFrame:
        labels = np.arange(400) % 2
        right = np.arange(400) // 2 % 20 < 20 * SHARES[split][self.spec.setting]
        answer = np.where(right, labels, 1 - labels)
        ids = [str(k) for k in range(400)]
        # As often right with every seed, but less certain: cross-entropy breaks the tie.
        logits = np.eye(2)[answer] * (2 - self.spec.seed)
        return predictions_frame(ids, [""] * 400, labels, logits, split)


SHARES: dict[str, dict[str, float]] = {}


def answered(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, shares: dict[str, float], **other: float
) -> list[StoredRun]:
    """Runs of both data sets; `other` are shares on validation."""
    names = {name: name if name in ("unimodal", "lora_only", "clip_it") else f"clip_it/{name}"
             for name in shares}  # fmt: skip
    test = {names[name]: share for name, share in shares.items()}
    held = test | {names[name]: share for name, share in other.items()}
    monkeypatch.setitem(SHARES, "test", test)
    monkeypatch.setitem(SHARES, "validation", held)
    return [
        Answered(paths.runs("x") / f"{dataset}{name}{seed}",
                 specs.resolve(bench, dataset, CELL[1], name, seed))
        for dataset in bench.profile.data for name in test for seed in (0, 1)
    ]  # fmt: skip


ALL = {"unimodal": 0.5, "lora_only": 0.6, "architecture_only": 0.6, "random_reports": 0.7,
       "shuffled_pairs": 0.75}  # fmt: skip


def test_the_summary_has_the_gains_that_were_planted(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = summary(answered(bench, monkeypatch, ALL | {"clip_it": 0.9}), 200)
    pooled = found[found["dataset"] == POOLED].set_index("first")
    assert list(pooled.index) == list(ADDED)
    expected = {"unimodal": 40, "lora_only": 30, "clip_it/architecture_only": 30,
                "clip_it/random_reports": 20, "clip_it/shuffled_pairs": 15}  # fmt: skip
    for first, gain in expected.items():
        assert pooled.loc[first, "gain"] == pytest.approx(gain)
        assert 0 < pooled.loc[first, "low"] < gain < pooled.loc[first, "high"]
    assert len(found) == 5 * 3 and set(found["verdict"]) == {"helps"}
    words = summary_words(found)
    assert words.startswith("**The text helps here**: CLIP-IT lies above every control")
    assert "Matched text adds +20.0 [" in words and "over random reports" in words
    assert len(summary_table(found)) == 15
    (axis,) = own_figure(found, "title").axes
    assert [text.get_text() for text in axis.texts][3].startswith("+20.0 [")
    dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "."]
    np.testing.assert_allclose(dots, np.repeat([[40], [30], [30], [20], [15]], 2, axis=1))


@pytest.mark.parametrize(
    ("clip_it", "verdicts", "said"),
    [
        # Equal to random reports: the gain over the probe is not the text's.
        (0.7, ["helps", "helps", "helps", "not shown", "hurts"], "**Only a part is shown**"),
        (0.6, ["helps", "not shown", "not shown", "hurts", "hurts"], "**The text is not shown"),
    ],
)
def test_text_is_not_credited_with_what_a_control_does_as_well(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, clip_it: float, verdicts: list[str],
    said: str,
) -> None:  # fmt: skip
    found = summary(answered(bench, monkeypatch, ALL | {"clip_it": clip_it}), 200)
    pooled = found[found["dataset"] == POOLED]
    assert pooled["verdict"].tolist() == verdicts
    words = summary_words(found)
    assert words.startswith(said)
    assert "covers 0, so an effect is not shown" in words and "it hurts here" in words


def test_a_summary_says_which_controls_were_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = answered(bench, monkeypatch, {"unimodal": 0.5, "lora_only": 0.6, "clip_it": 0.9})
    assert "lies above the controls run (LoRA only)" in summary_words(summary(few, 50))
    probe = answered(bench, monkeypatch, {"unimodal": 0.5, "clip_it": 0.9})
    assert summary_words(summary(probe, 50)).startswith("**No control of the text was run")
    with pytest.raises(ClipItError, match="no runs of clip_it beside a control"):
        summary(answered(bench, monkeypatch, {"unimodal": 0.5}), 50)
    with pytest.raises(ClipItError, match="clip_it share no seeds"):
        summary([r for r in few if r.spec.setting == "clip_it" or r.spec.seed == 0], 50)


def test_the_run_to_deploy_is_the_best_on_validation_not_on_test(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"unimodal": 0.5, "lora_only": 0.6, "clip_it": 0.9, "random_reports": 0.7}
    stored = answered(bench, monkeypatch, shares, lora_only=0.8, clip_it=0.75, random_reports=1.0)
    choice = choose(stored, CELL[0])
    spec = choice.run.spec
    assert (spec.dataset, spec.setting) == (CELL[0], "lora_only")
    # A fifth is wrong: 0.8 log(1 + e^-m) + 0.2 log(1 + e^m) is 0.527 at m = 2, 0.513 at m = 1.
    nats = candidate_table(choice).set_index("setting").loc["lora_only", "validation nats"]
    assert spec.seed == 1 and nats == pytest.approx((0.527 + 0.513) / 2, abs=1e-3)
    assert choice.validation == pytest.approx(80)
    assert set(candidate_table(choice)["setting"]) == {"unimodal", "lora_only", "clip_it"}
    words = choice_words(choice)
    assert "80.0%" in words and "it has 60.0%" in words and str(choice.run.folder) in words
    with pytest.raises(ClipItError, match="no run of other to deploy"):
        choose(stored, "other")


# From files to a classifier, as a user does it.


@pytest.fixture(scope="module")
def own_file(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom patches as PNG files, phantom reports as lines, and a YAML file beside them."""
    folder = tmp_path_factory.mktemp("user")
    data = bench.dataset(CELL[0])
    for row, (_, sample) in zip(data.pixels, data.samples.iterrows(), strict=True):
        place = folder / "patches" / sample["split"] / data.classes[sample["label"]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(row)).save(place / f"{len(list(place.iterdir())):03d}.png")
    lines = [" ".join(text.split()) for text in bench.corpus(CELL[0]).texts]
    (folder / "reports.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    values: dict[str, Any] = {
        "name": "mine", "summary": "a test",
        "data": {"patches": {"source": "folder", "folder": "patches", "side": 32,
                             "class_texts": list(data.class_texts), "corpus": "reports"}},
        "corpora": {"reports": {"source": "file", "path": "reports.txt", "organ": "breast"}},
        "retriever": "phantom_clip", "backbones": ["phantom_vit_s16"], "seeds": [0, 1],
        "pretraining": bench.profile.pretraining.model_dump(), "bootstrap_draws": 100,
        "probe": {"epochs": 3}, "text_stage": {"epochs": 1}, "lora": {"rank": 2, "alpha": 2},
    }  # fmt: skip
    (folder / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "mine.yaml"


def changed(own_file: Path, target: Path, **changes: Any) -> Path:
    """The user's file with some keys changed, in a folder of its own."""
    values = yaml.safe_load(own_file.read_text()) | changes
    target.write_text(yaml.safe_dump(values), encoding="utf-8")
    return target


def test_a_file_of_the_user_is_a_profile(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_file.parent)
    profile = load_profile("mine.yaml")
    assert profile.studies == {"own": Study()} and studies.asked(profile, "own")
    assert profile.data["patches"].folder == str(own_file.parent / "patches")
    assert profile.corpora["reports"].path == str(own_file.parent / "reports.txt")
    only = Study(settings=("unimodal", "clip_it"))
    asks = changed(own_file, tmp_path / "a.yaml", studies={"own": only.model_dump()})
    assert load_profile(str(asks)).studies["own"] == only
    assert load_profile(str(paths.profiles() / "smoke.yaml")) == load_profile("smoke")
    assert "own" not in load_profile("pilot").studies
    crc5 = {"crc": {"source": "crc", "corpus": "reports"}}  # lies under $CLIPIT_DATA
    assert (
        load_profile(str(changed(own_file, tmp_path / "b.yaml", data=crc5))).data["crc"].folder
        == "crc"
    )


@pytest.mark.parametrize(
    ("name", "said"), [("demo", "comes with this library"), ("../x", "cannot name a folder")]
)
def test_names_that_are_refused(own_file: Path, tmp_path: Path, name: str, said: str) -> None:
    path = changed(own_file, tmp_path / "x.yaml", name=name)
    with pytest.raises(ClipItError, match=said) as caught:
        load_profile(str(path))
    assert str(path) in str(caught.value)
    with pytest.raises(ClipItError, match=r"no such file.*demo, .*smoke"):
        load_profile(str(tmp_path / "absent.yaml"))


def test_the_example_is_a_profile_of_known_parts() -> None:
    profile = load_profile(str(paths.repository() / "examples" / "your_data.yaml"))
    assert {each.corpus for each in profile.data.values()} <= set(profile.corpora)
    for _, backbone, settings, seeds in studies.cells(profile, "own"):
        backbones.check(backbone)
        assert seeds and all(specs.fields_of(name, profile) for name in settings)
    assert profile.retriever in clip.CLIPS


PAGE = (paths.repository() / "docs" / "your_data.md").read_text(encoding="utf-8")


def test_the_page_explains_every_field_and_model() -> None:
    fields = {*Profile.model_fields, *FolderData.model_fields, *FileCorpus.model_fields}
    elsewhere = {"settings", "protocol", "training_for", "stand_in", "survival", "clips",
                 "templates", "synthetic", "searched"}  # fmt: skip
    assert {name for name in fields - elsewhere if f"`{name}`" not in PAGE} <= {"path"}
    for name in [*clip.CLIPS, *vision.VISION]:
        assert f"`{name}`" in PAGE, name


def test_the_page_explains_every_check() -> None:
    folder = paths.repository() / "clipit_lib" / "own"
    sources = [(folder / f"{name}.py").read_text() for name in ("data_checks", "report_checks")]
    names = {
        line.strip().strip('",')
        for text in sources
        for before, line in zip(text.splitlines(), text.splitlines()[1:], strict=False)
        if before.strip() == "Finding("
    }
    assert len(names) >= 13 and {name for name in names if f"`{name}`" not in PAGE} == set()


def test_from_files_to_a_classifier(
    bench: Workbench, own_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--profile", str(own_file)]) == 0
    printed = capsys.readouterr().out
    for name in ("few_reports", "unknown_groups", "small_validation"):
        assert f"[{name}]" in printed
    assert "WARNING patches: 40 reports" in printed

    own = Workbench(load_profile(str(own_file)))
    np.testing.assert_array_equal(
        np.sort(own.dataset("patches").pixels.sum(axis=(1, 2, 3))),
        np.sort(bench.dataset(CELL[0]).pixels.sum(axis=(1, 2, 3))),
    )
    stored = [runs.get_or_run(spec, own) for spec in studies.runs_of(own, "own")]
    assert len(stored) == 12 and stored[0].folder.parent == paths.runs("mine")
    found = summary(stored, 100)
    assert set(found["first"]) == set(ADDED)
    assert set(found["verdict"]) <= {str(each) for each in Verdict}
    assert len(summary_table(found)) == 5  # one cell: the pooled rows would only repeat it

    choice = choose(stored, "patches")
    held = {
        run.key: balanced_accuracy(run.predictions("validation"))
        for run in stored if run.spec.setting == choice.run.spec.setting
    }  # fmt: skip
    assert held[choice.run.key] == max(held.values()) == pytest.approx(choice.validation)
    images = sorted((own_file.parent / "patches" / "test").rglob("*.png"))[:4]
    with contextlib.redirect_stdout(io.StringIO()) as answers:
        assert main(["predict", str(choice.run.folder), *map(str, images)]) == 0
    rows = pd.read_csv(io.StringIO(answers.getvalue()))
    logits = choice.run.predictions().iloc[:4].filter(like="logit_").to_numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows.iloc[:, 2:], expected, atol=2e-4)


def test_mistakes_are_all_said_at_once(
    own_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"source": "folder", "folder": str(own_file.parent / "patches"), "side": 32,
            "corpus": "reports"}  # fmt: skip
    wrong = changed(
        own_file, tmp_path / "wrong.yaml", backbones=["vit_of_nobody"], pretraining=None,
        data={"absent": data | {"folder": "absent"}, "textless": data},
    )  # fmt: skip
    assert main(["check", "--profile", str(wrong)]) == 2
    said = capsys.readouterr()
    for words in ("unknown backbone 'vit_of_nobody'", "no such folder", "no such file",
                  "the profile does not say how"):  # fmt: skip
        assert words in said.out
    assert "4 findings must be mended first" in said.err and "Traceback" not in said.err


def test_a_leak_in_a_manifest_is_a_finding_and_not_only_an_error(
    own_file: Path, tmp_path: Path
) -> None:
    images = sorted((own_file.parent / "patches").rglob("*.png"))
    table = pd.DataFrame(
        {"path": [str(path) for path in images], "label": [path.parent.name for path in images],
         "split": [path.parent.parent.name for path in images]}
    )  # fmt: skip
    table["group"] = [f"p{k}" for k in range(len(table))]
    table.loc[[0, len(table) - 1], "group"] = "twice"
    table.to_csv(tmp_path / "list.csv", index=False)
    settings = {"source": "folder", "folder": str(tmp_path), "manifest": "list.csv", "side": 32,
                "corpus": "reports"}  # fmt: skip
    path = changed(own_file, tmp_path / "leak.yaml", data={"leak": settings})
    found = check(Workbench(load_profile(str(path))))
    assert one(found, "shared_groups", Severity.STOP).dataset == "leak"
    assert "twice" in findings_text(found)
    assert findings_table(found)["severity"].tolist() == ["stop"]


def test_an_untrained_retriever_is_a_note(own_file: Path, tmp_path: Path) -> None:
    path = changed(
        own_file, tmp_path / "new.yaml",
        pretraining={"images": 7, "clip_epochs": 1, "vision_epochs": 1, "side": 32},
        data={"patches": {"source": "folder", "folder": str(own_file.parent / "patches"),
                          "side": 32, "corpus": "reports"}},
        corpora={"reports": {"source": "file", "path": str(own_file.parent / "reports.txt")}},
    )  # fmt: skip
    found = {each.check: each for each in check(Workbench(load_profile(str(path))))}
    assert found["retriever"].severity is Severity.NOTE and "hubs" not in found
    assert "few_reports" in found


def test_the_shipped_phantom_stands_in_for_your_data(bench: Workbench) -> None:
    assert datasets(bench.profile) == [CELL[0]]
    assert {each.dataset for each in check(bench)} <= {"", CELL[0]}
    controls = {spec.key for spec in studies.runs_of(bench, "controls")}
    assert {spec.key for spec in studies.runs_of(bench, "own")} <= controls
