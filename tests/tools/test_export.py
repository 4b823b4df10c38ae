"""An exported classifier: the run's answers, by torch and by ONNX, from one folder alone."""

from __future__ import annotations

import json
import re
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, hub_mixin
from PIL import Image
from safetensors.torch import load_file

from clipit_lib import runs
from clipit_lib.encoders import registry, weights
from clipit_lib.errors import ClipItError
from clipit_lib.model import ClipIt
from clipit_lib.paths import repository
from clipit_lib.predictions import predictions_frame
from companion import deploy, specs
from companion import exported as exporting
from companion.__main__ import main
from companion.deploy import export
from companion.exported import Classifier, Description, Network, load_classifier
from companion.profile import Workbench

CELL = ("phantom-crc", "phantom_vit_s16")
FILES = ["README.md", "config.json", "model.onnx", "model.safetensors"]


def stored(bench: Workbench, setting: str) -> runs.StoredRun:
    by_clip = setting.split("/")[0] in ("zero_shot", "contrastive", "text", "vision")
    backbone = bench.profile.retriever if by_clip else CELL[1]
    return runs.get_or_run(specs.resolve(bench, CELL[0], backbone, setting, 0), bench)


def patches(bench: Workbench) -> np.ndarray:
    data = bench.dataset(CELL[0])
    return np.array(data.pixels[data.indices("test")])


def probabilities_of(run: runs.StoredRun) -> torch.Tensor:
    """As the run stored them when it was trained."""
    return torch.tensor(run.predictions().filter(like="logit_").to_numpy()).softmax(dim=-1)


def by_onnx(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """What a stranger would write: floats from 0 to 1, channels first, and nothing else."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    return session.run(["probabilities"], {"images": images})[0]


WITH_GRAPH = ("unimodal", "lora_only", "clip_it", "contrastive")


class Exported(dict[str, Path]):
    """Folders written by the command, by setting, each when it is first asked for."""

    def __init__(self, bench: Workbench, place: Path) -> None:
        self.bench, self.place = bench, place

    def __missing__(self, setting: str) -> Path:
        folder = self.place / setting
        command = ["export", str(stored(self.bench, setting).folder), "--output", str(folder)]
        assert main(command) == 0
        self[setting] = folder
        return folder


@pytest.fixture(scope="module")
def exported(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(bench, tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("setting", WITH_GRAPH)
@pytest.mark.slow
def test_the_folder_alone_answers_as_the_run(
    bench: Workbench,
    exported: Exported,
    setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, folder = stored(bench, setting), exported[setting]
    assert sorted(path.name for path in folder.iterdir()) == FILES
    state = load_file(folder / "model.safetensors")
    assert not [name for name in state if "lora_" in name or "text_tower" in name]
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path / "empty"))  # no encoder can be found there
    expected, pixels = probabilities_of(run), patches(bench)
    found = load_classifier(folder).probabilities(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    for batch in (1, 5):
        np.testing.assert_allclose(by_onnx(folder, pixels[:batch]), found[:batch], atol=1e-4)


def test_the_smaller_graph_may_lose_little_or_one_patch() -> None:
    many, few = np.repeat([0, 1, 2], 1000), np.array([0] * 50 + [2] * 20)  # none of class 1
    assert deploy.most_lost(many) == 0.2
    assert deploy.most_lost(few) == pytest.approx(100 * (1 - (1 + 19 / 20) / 2))


def test_the_smaller_graph_is_compared_and_answers(
    bench: Workbench, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = stored(bench, "clip_it"), tmp_path / "exported"
    command = ["export", str(run.folder), "--output", str(folder), "--int8", bench.profile.name]
    assert main([*command, "--no-onnx"]) == 2
    monkeypatch.setattr(deploy, "most_lost", lambda _: 100.0)
    assert main(command) == 0
    monkeypatch.setattr(deploy, "most_lost", lambda _: -100.1)  # whatever is lost is too much
    with pytest.raises(ClipItError, match="int8 loses too much: on"):
        deploy.write_int8(folder, run, bench)
    other = replace(run, spec=run.spec.model_copy(update={"data_hash": "0" * 16}))
    with pytest.raises(ClipItError, match="has other patches than the run"):
        deploy.write_int8(folder, other, bench)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "model.int8.onnx"])
    validation = run.predictions("validation")
    right = validation["label"] == validation.filter(like="logit_").to_numpy().argmax(axis=1)
    score = 100 * right.groupby(validation["label"]).mean().mean()
    said = (folder / "README.md").read_text(encoding="utf-8")
    assert f"on {len(validation)} validation patches" in said
    assert f"% in place of {score:.1f}%" in said
    whole, small = load_classifier(folder), exporting.load_graph(folder)
    data = bench.dataset(CELL[0])
    pixels = np.array(data.pixels[data.indices("validation")])
    apart = (whole.probabilities(pixels) - small.probabilities(pixels)).abs().max()
    assert 0 < apart < 0.1 and f"no probability by more than {apart:.3f}" in said
    Image.fromarray(pixels[0]).save(tmp_path / "patch.png")
    capsys.readouterr()
    assert main(["predict", str(folder), str(tmp_path / "patch.png"), "--int8"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split(",")
    expected = small.probabilities(pixels[:1])[0].tolist()
    assert [*map(float, row[2:])] == pytest.approx(expected, abs=1e-4)


def test_without_the_smaller_graph_the_way_to_it_is_said(
    bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(stored(bench, "unimodal"), tmp_path / "exported", onnx=False)
    assert main(["predict", str(folder), "x.png", "--int8"]) == 2
    assert "Export the run with --int8 PROFILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting",
    ["clip_it/early_fusion", "clip_it/direct_distillation", "clip_it/full_fine_tuning", "vision",
     "zero_shot", "zero_shot/embeddings", "lora_only/protocol_released"],
)  # fmt: skip
def test_every_image_only_model_is_exported(bench: Workbench, setting: str, tmp_path: Path) -> None:
    run = stored(bench, setting)
    found = load_classifier(export(run, tmp_path / "exported", onnx=False))
    torch.testing.assert_close(
        found.probabilities(patches(bench)), probabilities_of(run), atol=1e-4, rtol=1e-3
    )
    assert not (tmp_path / "exported" / "model.onnx").exists()


@pytest.mark.parametrize("setting", ["lora_only", "clip_it", "contrastive"])
def test_an_encoder_of_other_bytes_is_refused(
    bench: Workbench, setting: str, tmp_path: Path
) -> None:
    """Its recipe names an encoder that is trained here; a run keeps what bytes training gave."""
    run = stored(bench, setting)
    folder = Path(shutil.copytree(run.folder, tmp_path / run.key))
    about = json.loads((folder / "card.json").read_text())
    names = {run.spec.backbone, *([bench.profile.retriever] if setting == "clip_it" else [])}
    assert about["weights"] == {
        name: weights.read_card(bench.sources.recipe(name))["weights_hash"] for name in names
    }
    export(runs.read(folder), tmp_path / "same", onnx=False)
    own, about["weights"][run.spec.backbone] = about["weights"][run.spec.backbone], "0" * 16
    (folder / "card.json").write_text(json.dumps(about))
    said = rf"not those it was trained with \({own}, not 0{{16}}\)"
    with pytest.raises(ClipItError, match=said) as caught:
        export(runs.read(folder), tmp_path / "other", onnx=False)
    assert caught.value.where == str(folder) and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_convolutional_network_is_the_same_in_onnx(tmp_path: Path) -> None:
    """EfficientNet-Lite with random weights and batch statistics, under all of CLIP-IT's heads."""
    transform = registry.entry("efficientnet_lite0").transform(None)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = registry.build_backbone("efficientnet_lite0", None, None).model
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        model = ClipIt(backbone, 1280, 5, 16, fusion_start="random").eval()
    said = Description(
        run="x", dataset="x", setting="clip_it", seed=0, classes=tuple("abcde"),
        class_texts=tuple("abcde"), text_width=16, unit_distilled=True, versions={},
        licence="x", retriever="x",
        input=replace(transform, size=64),
        network=Network(
            name="x", library="timm", architecture="x", options={}, projection=None, width=1280,
            origin="x", licence="x",
        ),
        head="clip_it",
    )  # fmt: skip
    deploy.write_graph(model, said, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    normalised = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        expected = model(normalised).logits.softmax(dim=-1).numpy()
    assert expected.std(axis=0).min() > 1e-4  # the answers differ, so that agreement says something
    for batch in (1, 5):
        found = by_onnx(tmp_path, pixels[:batch])
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4)


def test_the_code_on_the_card_runs_as_it_stands(
    bench: Workbench, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(exported["clip_it"], tmp_path / "copied")
    Image.fromarray(patches(bench)[0]).save(folder / "patch.png")
    monkeypatch.chdir(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(programs) == 2
    expected = probabilities_of(stored(bench, "clip_it"))[:1]
    for program in programs:
        assert program.count("\n") <= 5
        names: dict[str, Any] = {}
        exec(program, names)
        found = names["probabilities"]
        found = [[*found.values()]] if isinstance(found, dict) else found
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_card_says_what_it_is_and_what_it_is_not(bench: Workbench, tmp_path: Path) -> None:
    run = stored(bench, "clip_it")
    text = (export(run, tmp_path / "x", onnx=False) / "README.md").read_text(encoding="utf-8")
    score = deploy.scores_on_test(run.predictions())["balanced accuracy"]
    for wanted in (
        "Not a medical device", "A phantom: drawn by a program, not tissue",
        "has never seen tissue", f"| balanced accuracy | {score.estimate:.1f} |",
        "made by this project and under its licence", "with seed 0", run.key, "| ADI |",
        "patients or slides", "for trying things out",
    ):  # fmt: skip
        assert wanted in text
    about = ModelCard(text).data
    assert about.license == "other" and "made by this project" in about.license_name
    assert about.eval_results[1].metric_value == score.estimate
    assert "onnxruntime" not in text  # no graph, no word of it


def frame(labels: list[int], answers: list[int], groups: list[str]) -> pd.DataFrame:
    logits = np.eye(3, dtype=np.float32)[answers]
    ids = [str(i) for i in range(len(labels))]
    return predictions_frame(ids, groups, np.array(labels), logits, "test")


def test_scores_of_a_hand_worked_case() -> None:
    """Three of four right in class 0, one of two in class 1: 4/6 and (3/4 + 1/2) / 2."""
    predictions = frame([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2], [""] * 6)
    scores = deploy.scores_on_test(predictions)
    assert scores["accuracy"].estimate == pytest.approx(400 / 6)
    assert scores["balanced accuracy"].estimate == pytest.approx(62.5)
    table = deploy.class_table(predictions, "abc", "ABC").set_index("class")
    assert table["recall (%)"].tolist() == ["75.0", "50.0", "0.0"]
    assert table["precision (%)"].tolist() == ["100.0", "50.0", "0.0"]
    assert table["test patches"].tolist() == [4, 2, 0]
    never = deploy.class_table(frame([0, 1], [0, 0], ["", ""]), "abc", "ABC").set_index("class")
    assert never.loc["b", "precision (%)"] == "never said"


def test_the_interval_is_that_of_a_binomial_share_and_grows_with_groups() -> None:
    rng = np.random.default_rng(5)
    right = rng.random(500) < 0.8
    answers = np.where(right, 0, 1).tolist()
    single = deploy.scores_on_test(frame([0] * 500, answers, [""] * 500))["accuracy"]
    share = right.mean()
    half = 100 * 1.96 * np.sqrt(share * (1 - share) / 500)
    assert single.high - single.estimate == pytest.approx(half, rel=0.15)
    # Fifty patients with ten equal answers each: as wide as fifty patches.
    right = np.repeat(rng.random(50) < 0.8, 10)
    groups = [f"patient-{i // 10}" for i in range(500)]
    grouped = deploy.scores_on_test(frame([0] * 500, np.where(right, 0, 1).tolist(), groups))
    share = right.mean()
    half = 100 * 1.96 * np.sqrt(share * (1 - share) / 50)
    found = (grouped["accuracy"].high - grouped["accuracy"].low) / 2
    assert found == pytest.approx(half, rel=0.2)


def test_a_text_classifier_cannot_be_exported(bench: Workbench, capsys, tmp_path: Path) -> None:
    run = stored(bench, "text")
    assert main(["export", str(run.folder), "--output", str(tmp_path / "x")]) == 2
    assert "there is no image-only model in it" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(bench: Workbench, capsys, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    run = stored(bench, "unimodal")
    assert main(["export", str(run.folder), "--output", str(tmp_path), "--no-onnx"]) == 2
    assert "exists and is no exported classifier" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_the_earlier_export(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = stored(bench, "unimodal"), tmp_path / "exported"
    export(run, folder, onnx=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def broken(*_: object) -> str:
        raise RuntimeError("killed while writing")

    monkeypatch.setattr(deploy, "card_written", broken)
    with pytest.raises(RuntimeError, match="killed"):
        export(run, folder, onnx=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    monkeypatch.undo()
    export(run, folder, onnx=False)  # an export may take the place of an export


def test_without_the_packages_of_onnx_the_way_out_is_said(
    bench: Workbench, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    run, folder = stored(bench, "unimodal"), tmp_path / "exported"
    assert main(["export", str(run.folder), "--output", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "onnxscript" in error and "--no-onnx" in error and not folder.exists()
    assert main(["export", str(run.folder), "--output", str(folder), "--no-onnx"]) == 0


def test_a_graph_of_another_model_is_refused(exported: Exported) -> None:
    classifier = load_classifier(exported["unimodal"])
    whole = deploy.Normalised(classifier.model.cpu(), classifier.transform).eval()
    size = classifier.transform.size
    assert deploy.checked_graph(exported["unimodal"] / "model.onnx", whole, size) < 1e-4
    with pytest.raises(ClipItError, match="ONNX differs from torch"):
        deploy.checked_graph(exported["clip_it"] / "model.onnx", whole, size)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"cut", "the weights are damaged or missing"),
        ("config.json", b"{}", "not the description of an exported classifier"),
        ("config.json", None, "the weights do not fit config.json"),
    ],
)
def test_a_damaged_export_is_said(
    bench: Workbench, tmp_path: Path, capsys, name: str, content: bytes | None, said: str
) -> None:
    folder = export(stored(bench, "unimodal"), tmp_path / "exported", onnx=False)
    if content is None:  # a description that is well made, of another network
        content = (folder / name).read_bytes().replace(b'"depth": 4', b'"depth": 3')
    (folder / name).write_bytes(content)
    assert main(["predict", str(folder), "x.png"]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and str(folder) in error and "\n" not in error


def uploads(monkeypatch: pytest.MonkeyPatch, hub: Path) -> None:
    """Stand in for the hub: a repository is a folder, its first upload alone."""

    def create_repo(api: HfApi, repo_id: str, **asked: Any) -> Namespace:
        if "/" not in repo_id:
            raise ConnectionError("no hub\nis reached")
        return Namespace(repo_id=repo_id)

    def upload_folder(api: HfApi, *, repo_id: str, folder_path: Path, **asked: Any) -> str:
        shutil.copytree(folder_path, hub / repo_id)
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)


def test_what_was_pushed_is_loaded_again(
    bench: Workbench, exported: Exported, tmp_path: Path, capsys, monkeypatch
) -> None:
    uploads(monkeypatch, tmp_path)
    folder, image = exported["clip_it"], tmp_path / "patch.png"
    Image.fromarray(patches(bench)[0]).save(image)
    command = ["push", str(folder), "me/mine"]
    assert main(command) == 2  # there is no terminal
    shown = capsys.readouterr()
    for said in (
        "weights of phantom_vit_s16",
        "images of phantom-crc: made by",
        "text features of",
    ):
        assert said in shown.out
    assert "--accept-licence" in shown.err and not (tmp_path / "me").exists()
    assert main([*command, "--accept-licence"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "https://hub/me/mine"
    pushed = tmp_path / "me" / "mine"
    assert sorted(path.name for path in pushed.iterdir()) == FILES
    expected = Classifier.from_pretrained(folder)(image)
    assert sum(expected.values()) == pytest.approx(1) and "ADI" in expected
    monkeypatch.setattr(hub_mixin, "hf_hub_download", lambda **_: str(pushed / "config.json"))
    monkeypatch.setattr(exporting, "snapshot_download", lambda *_, **__: str(pushed))
    found = Classifier.from_pretrained("me/mine", revision="main")
    assert found(image) == expected
    found.save_pretrained(pushed)  # in its own place, and elsewhere
    found.save_pretrained(tmp_path / "copy")
    for place in (pushed, tmp_path / "copy"):
        assert sorted(path.name for path in place.iterdir()) == FILES
        assert Classifier.from_pretrained(place)(image) == expected
    assert main(["push", str(folder), "mine", "--accept-licence"]) == 2
    error = capsys.readouterr().err.strip()
    assert "the hub refused it (no hub is reached)" in error and "\n" not in error


def test_weights_that_must_not_be_passed_on_are_not(
    exported: Exported, tmp_path: Path, capsys, monkeypatch
) -> None:
    uploads(monkeypatch, tmp_path)
    folder = shutil.copytree(exported["unimodal"], tmp_path / "uni")
    about = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(about.replace('"phantom_vit_s16"', '"uni"'))
    assert main(["push", str(folder), "me/uni", "--accept-licence"]) == 2
    assert "the terms of uni forbid passing on" in capsys.readouterr().err
    assert not (tmp_path / "me").exists()


def test_the_example_answers_on_an_empty_machine(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs nothing but itself, and says what its run said of this patch, which is muscle."""
    monkeypatch.setenv("CLIPIT_CACHE", str(tmp_path))
    examples = repository() / "examples"
    assert main(["predict", str(examples / "classifier"), str(examples / "patch.png")]) == 0
    head, row = (line.split(",") for line in capsys.readouterr().out.splitlines())
    said = {"ADI": 0.0017, "BACK": 0.0002, "DEB": 0.1603, "LYM": 0.0032, "MUC": 0.005,
            "MUS": 0.6646, "NORM": 0.0026, "STR": 0.1463, "TUM": 0.016}  # fmt: skip
    assert head[2:] == [*said] and row[1] == "MUS"
    assert [*map(float, row[2:])] == pytest.approx([*said.values()], abs=1e-3)
    card = (examples / "classifier" / "README.md").read_text(encoding="utf-8")
    assert "has never seen tissue. This classifier is for trying things out" in card
