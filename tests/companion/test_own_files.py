"""Data of the user, the whole way from files to a classifier."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from clipit_lib import runs
from clipit_lib.data.folder import FolderData
from clipit_lib.data.reports import FileCorpus
from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from companion import findings, paths, specs, studies
from companion.__main__ import main
from companion.findings import Severity
from companion.own import ADDED, choose, summary, summary_table
from companion.own.checks import COLUMNS, check, datasets, zero_shot_table
from companion.profile import Profile, Study, Workbench, load_profile
from companion.statistics import Word, balanced_accuracy

CELL = ("phantom-pcam", "phantom_vit_s16")


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


def test_a_copy_of_a_profile_asks_for_the_same(tmp_path: Path) -> None:
    """The same studies; and data where `fetch` puts them, unless the copy says where they are."""
    text = (paths.profiles() / "paper.yaml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: paper", "name: mine"), encoding="utf-8")
    copy = load_profile(str(mine))
    assert copy.model_copy(update={"name": "paper"}) == load_profile("paper")
    text = text.replace("source: crc,", "source: crc, folder: nct,")
    text = text.replace("source: tcga,", "source: tcga, path: all.csv,")
    mine.write_text(text.replace("name: paper", "name: mine"), encoding="utf-8")
    copy = load_profile(str(mine))
    assert (copy.data["crc"].folder, copy.data["pcam"].folder) == (str(tmp_path / "nct"), "pcam")
    corpus = copy.corpora["tcga-breast"]
    assert corpus.path == str(tmp_path / "all.csv")
    assert corpus.cancer_type_table == "tcga/tcga_patient_to_cancer_type.csv"


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
        registry.entry(backbone)
        assert seeds and all(specs.fields_of(name, profile) for name in settings)
    assert registry.entry(profile.retriever, clip=True)


PAGE = (paths.repository() / "docs" / "your_data.md").read_text(encoding="utf-8")


def test_the_page_explains_every_field_and_model() -> None:
    fields = {*Profile.model_fields, *FolderData.model_fields, *FileCorpus.model_fields}
    elsewhere = {"settings", "protocol", "training_for", "stand_in", "survival", "clips",
                 "templates", "synthetic", "cells", "depth"}  # fmt: skip
    assert {name for name in fields - elsewhere if f"`{name}`" not in PAGE} <= {"path"}
    for name in registry.ENCODERS:
        assert f"`{name}`" in PAGE, name


def test_the_page_explains_every_check() -> None:
    source = (paths.repository() / "companion" / "own" / "checks.py").read_text()
    names = re.findall(r'_found\(\s*"(\w+)"', source)
    assert len(names) >= 13 and {name for name in names if f"`{name}`" not in PAGE} == set()


@pytest.mark.slow
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
    found = summary(stored)
    assert set(found["first"]) == set(ADDED)
    assert set(found["word"]) <= set(Word)
    assert len(summary_table(found)) == 5  # one cell: the pooled rows would only repeat it

    choice = choose(stored, "patches")
    held = {
        run.key: balanced_accuracy(run.predictions("validation"))
        for run in stored if run.spec.setting == choice.run.spec.setting
    }  # fmt: skip
    assert held[choice.run.key] == max(held.values())
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
    assert "4 findings must be fixed first" in said.err and "Traceback" not in said.err


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
    assert [(f.check, f.severity) for f in found] == [("shared_groups", Severity.STOP)]
    assert found[0].dataset == "leak"
    shown = zero_shot_table(Workbench(load_profile(str(path))))  # the encoders are sound
    assert shown["zero-shot balanced accuracy (%)"].tolist() == [f"stop: {found[0].what}"]
    assert "twice" in str(found[0])
    assert findings.table(found, COLUMNS)["severity"].tolist() == ["stop"]


def test_an_untrained_retriever_is_a_note(own_file: Path, tmp_path: Path) -> None:
    path = changed(
        own_file, tmp_path / "new.yaml",
        pretraining={"images": 7, "clip_epochs": 1, "vision_epochs": 1, "side": 32},
        data={"patches": {"source": "folder", "folder": str(own_file.parent / "patches"),
                          "side": 32, "corpus": "reports"}},
        corpora={"reports": {"source": "file", "path": str(own_file.parent / "reports.txt")}},
    )  # fmt: skip
    found = {each.check: each for each in check(Workbench(load_profile(str(path)), download=False))}
    assert found["retriever"].severity is Severity.NOTE and "hubs" not in found
    assert "few_reports" in found


def test_the_shipped_phantom_stands_in_for_your_data(bench: Workbench) -> None:
    assert datasets(bench.profile) == [CELL[0]]
    assert {each.dataset for each in check(bench)} <= {"", CELL[0]}
    controls = {spec.key for spec in studies.runs_of(bench, "controls")}
    assert {spec.key for spec in studies.runs_of(bench, "own")} <= controls
