"""The deployed classifier: the same answers, and no text anywhere near it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from toys import CELL as TOY
from toys import toy_bench

from clipit_lib import predict, runs
from clipit_lib import run as experiment
from clipit_lib.errors import ClipItError
from clipit_lib.inputs import Inputs
from clipit_lib.predict import load_classifier
from companion import predict as answering
from companion import specs
from companion.__main__ import main
from companion.deploy import export
from companion.exported import ClassEmbeddings
from companion.profile import Workbench

CELL = ("phantom-crc", "phantom_vit_s16")
# What must not be loaded: text encoders, tokenizers, reports, and whatever would load them.
FORBIDDEN = (
    "open_clip", "transformers", "tokenizers", "peft", "clipit_lib.data.reports",
    "clipit_lib.inputs", "clipit_lib.text", "clipit_lib.pairing", "clipit_lib.training",
)  # fmt: skip


@pytest.fixture(scope="module", params=["clip_it", "lora_only", "unimodal"])
def run(bench: Workbench, request: pytest.FixtureRequest) -> runs.StoredRun:
    return runs.get_or_run(specs.resolve(bench, *CELL, request.param, 0), bench)


@pytest.fixture
def image(bench: Workbench, tmp_path: Path) -> Path:
    path = tmp_path / "patch.png"
    Image.fromarray(np.array(bench.dataset(CELL[0]).pixels[0])).save(path)
    return path


def test_merged_classifier_gives_the_stored_predictions(
    bench: Workbench, run: runs.StoredRun
) -> None:
    data = bench.dataset(CELL[0])
    pixels = np.array(data.pixels[data.indices("test")])
    logits = run.predictions().filter(like="logit_").to_numpy()
    expected = torch.tensor(logits).softmax(dim=-1)
    found = load_classifier(run.folder).probabilities(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_command_line_prediction_loads_no_text(
    bench: Workbench, image: Path, tmp_path: Path
) -> None:
    """Of a run, of an exported classifier and of tiles, all in one process."""
    run = runs.get_or_run(specs.resolve(bench, *CELL, "clip_it", 0), bench)
    exported = export(run, tmp_path / "exported", onnx=False)
    program = (
        "import sys; from companion.__main__ import main; image = sys.argv[-1]; "
        "codes = [main(['predict', model, image, image]) for model in sys.argv[1:3]]; "
        "codes += [main(['predict', sys.argv[1], image, '--tiles', '16'])]; "
        f"bad = [n for n in sys.modules if n.startswith({FORBIDDEN!r})]; "
        "print('LOADED', sorted(bad)[:5], codes)"
    )
    command = [sys.executable, "-c", program, str(run.folder), str(exported), str(image)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1] == "LOADED [] [0, 0, 0]"
    assert lines[0].startswith("image,prediction,ADI,BACK")
    values = [float(value) for value in lines[1].split(",")[2:]]
    assert len(values) == 9 and sum(values) == pytest.approx(1, abs=1e-3)
    assert lines[3:6] == lines[:3] and len(lines) == 6 + 5 + 1


def test_the_test_split_is_read_without_text(bench: Workbench, monkeypatch) -> None:
    """After training, whatever touches a tower, a report or a pairing fails the run."""
    wanted = specs.resolve(bench, *CELL, "clip_it", 5)
    original, seen = experiment.predicted, []

    def guarded(*arguments: object) -> object:
        def touched(*_: object, **__: object) -> None:
            raise AssertionError("text was touched while predicting")

        with monkeypatch.context() as patch:
            for tower in (bench.clip.text_tower, bench.clip.image_tower):
                patch.setattr(type(tower), "forward", touched)
            for name in ("named_corpus", "retriever", "nearest", "image_embeddings"):
                assert getattr(Workbench, name) is getattr(Inputs, name)
                patch.setattr(Inputs, name, touched)
            found = original(*arguments)  # type: ignore[arg-type]
            seen.extend(found["split"].unique())
            return found

    monkeypatch.setattr(experiment, "predicted", guarded)
    experiment.perform(wanted, bench)
    assert seen == ["validation", "test"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "none.png", "no such image"),
        (lambda folder: _written(folder / "text.jpg", b"this is text"), "image"),
    ],
)
def test_bad_images_are_one_line_and_a_code(bench, run, tmp_path, capsys, make, said) -> None:
    path = make(tmp_path)
    assert main(["predict", str(run.folder), str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and said in error and str(path) in error
    assert "\n" not in error


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def folder(bench: Workbench, tmp_path: Path) -> Path:
    """Seven images at two depths, some with awkward names, and what is none."""
    root = tmp_path / "images"
    (root / "b" / ".cache").mkdir(parents=True)
    pixels = bench.dataset(CELL[0]).pixels
    names = ["a.png", "z, last.PNG", "b/1.jpg", "b/2.tif", "b/3.bmp", "b/4.png", "b/5.webp"]
    for row, name in enumerate(names):
        Image.fromarray(np.array(pixels[row])).save(root / name)
    (root / "notes.txt").write_text("no image")
    Image.fromarray(np.array(pixels[0])).save(root / "b" / ".cache" / "hidden.png")
    return root


def answers(path: Path) -> dict[str, list[str]]:
    """The rows of a csv below its head, by their first cell."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {row[0]: row[1:] for row in list(csv.reader(stream))[1:]}


def test_folders_are_read_at_any_depth_a_batch_at_a_time(
    bench: Workbench, run: runs.StoredRun, folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    output, sizes = tmp_path / "out" / "answers.csv", []
    whole = predict.ImageClassifier.probabilities

    def counted(self: predict.ImageClassifier, pixels: np.ndarray) -> torch.Tensor:
        sizes.append(len(pixels))
        return whole(self, pixels)

    monkeypatch.setattr(answering, "BATCH", 3)
    monkeypatch.setattr(predict.ImageClassifier, "probabilities", counted)
    assert main(["predict", str(run.folder), str(folder), "--output", str(output)]) == 0
    assert sizes == [3, 3, 1]
    assert capsys.readouterr() == ("", f"{folder}: 1 files passed over (.txt 1)\n")
    found = answers(output)
    names = sorted(str(p) for p in folder.rglob("*.*") if p.suffix not in ("", ".txt"))
    assert list(found) == [name for name in names if ".cache" not in name] and len(found) == 7
    # One image by itself has the answer that it has in a batch.
    monkeypatch.undo()
    classifier = load_classifier(run.folder)
    for name, cells in found.items():
        pixels = np.asarray(Image.open(name).convert("RGB"))
        alone = classifier.probabilities(pixels[None])[0].numpy()
        np.testing.assert_allclose([float(cell) for cell in cells[1:]], alone, atol=1e-4)
        assert cells[0] == classifier.classes[int(alone.argmax())]


def test_unreadable_images_stop_or_are_listed(
    run: runs.StoredRun, folder: Path, tmp_path: Path, capsys
) -> None:
    broken, output = folder / "b" / "3.bmp", tmp_path / "answers.csv"
    broken.write_bytes(broken.read_bytes()[:80])
    Image.new("RGB", (70, 32)).save(folder / "a.png")
    part = tmp_path / "answers.csv.part"
    command = ["predict", str(run.folder), str(folder), "--output", str(output)]
    for options, code, written in (([], 2, part), (["--skip-unreadable"], 0, output)):
        assert main([*command, *options]) == code
        said = capsys.readouterr().err
        assert f"not answered: {broken}: not a readable image or cut short" in said
        assert "1 of 7 images are more than 2 times as long as wide" in said
        assert ("1 of 7 images could not be read" in said) == (code == 2)
        assert (f"{part}: the answers so far are kept here" in said) == (code == 2)
        assert list(tmp_path.glob("*.csv*")) == [written]
        found = answers(written)
        assert len(found) == 7 and found[str(broken)] == [""] * 10
        assert all(cells[0] for name, cells in found.items() if name != str(broken))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "writing failed (No space left"),
        (ValueError("a fault of the code"), ""),
    ],
)
def test_what_was_answered_before_a_failure_is_on_disk(
    run: runs.StoredRun, folder: Path, tmp_path: Path, monkeypatch, capsys, error, said
) -> None:
    output, whole, seen = tmp_path / "answers.csv", predict.ImageClassifier.probabilities, []

    def failing(self: predict.ImageClassifier, pixels: np.ndarray) -> torch.Tensor:
        if seen:
            assert len(answers(part)) == 3  # not held back: a kill would leave as much
            raise error
        seen.append(pixels)
        return whole(self, pixels)

    part = tmp_path / "answers.csv.part"
    monkeypatch.setattr(answering, "BATCH", 3)
    monkeypatch.setattr(predict.ImageClassifier, "probabilities", failing)
    command = ["predict", str(run.folder), str(folder), "--output", str(output)]
    if isinstance(error, OSError):
        assert main(command) == 2
    else:
        with pytest.raises(ValueError, match="a fault of the code"):
            main(command)
    heard = capsys.readouterr().err
    assert said in heard and f"{part}: the answers so far are kept here" in heard
    assert len(answers(part)) == 3 and not output.exists()


def test_files_beside_the_images_are_counted_and_odd_names_answered(
    run: runs.StoredRun, folder: Path, tmp_path: Path, capsys
) -> None:
    (folder / "folder.png").mkdir()
    (folder / "scan.svs").touch()
    os.rename(folder / "a.png", os.fsencode(folder) + b"/\xfc.png")
    output = tmp_path / "answers.csv"
    assert main(["predict", str(run.folder), str(folder), "--output", str(output)]) == 0
    assert f"{folder}: 2 files passed over (" in capsys.readouterr().err
    found = answers(output)
    assert len(found) == 7 and found[f"{folder}/\\udcfc.png"][0]


def test_a_folder_without_images_is_said(run: runs.StoredRun, tmp_path: Path, capsys) -> None:
    assert main(["predict", str(run.folder), str(tmp_path)]) == 2
    assert "no images in this folder" in capsys.readouterr().err


def test_weights_of_another_run_or_encoder_are_refused(monkeypatch) -> None:
    desk = toy_bench(monkeypatch)
    one, other = (
        runs.get_or_run(specs.resolve(desk, *TOY, "lora_only", seed), desk) for seed in (50, 51)
    )
    kept = (one.folder / runs.MODEL).read_bytes()
    (one.folder / runs.MODEL).write_bytes((other.folder / runs.MODEL).read_bytes())
    with pytest.raises(ClipItError, match="the weights are not those of this run"):
        load_classifier(one.folder)
    (one.folder / runs.MODEL).write_bytes(kept)
    state = load_file(one.folder / runs.MODEL) | {"no.such": torch.zeros(1)}
    save_file(state, one.folder / runs.MODEL, metadata={"spec": one.spec.model_dump_json()})
    with pytest.raises(ClipItError, match=r"unknown weights no\.such"):
        load_classifier(one.folder)
    monkeypatch.setattr(predict.weights, "read_card", lambda _: {"weights_hash": "trained anew"})
    with pytest.raises(ClipItError, match="are not those it was trained with"):
        load_classifier(other.folder)


def test_class_embeddings_answer_by_cosines() -> None:
    torch.manual_seed(0)
    images, classes = torch.randn(3, 3, 2, 2), torch.randn(4, 12)
    found = ClassEmbeddings(nn.Flatten(), classes)(images).logits
    for row, image in zip(found, images.flatten(1), strict=True):
        for value, own in zip(row, classes, strict=True):
            assert value.item() == pytest.approx((image @ own / image.norm()).item(), abs=1e-5)


def test_batches_of_any_number_of_patches_are_answered_in_order(monkeypatch) -> None:
    monkeypatch.setattr(predict, "BATCH", 3)
    desk = toy_bench(monkeypatch)
    classifier = load_classifier(
        runs.get_or_run(specs.resolve(desk, *TOY, "unimodal", 0), desk).folder
    )
    pixels = desk.dataset(TOY[0]).pixels[:7]
    alone = torch.cat([classifier.probabilities(pixels[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(classifier.probabilities(pixels), alone)


def test_what_is_no_run_is_said(tmp_path: Path, capsys) -> None:
    assert main(["predict", str(tmp_path), "x.png"]) == 2
    assert "no finished run here. Name a folder below results/" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_said(bench: Workbench, image: Path, capsys) -> None:
    run = runs.get_or_run(specs.resolve(bench, *CELL, "lora_only", 79), bench)
    checkpoint = run.folder / "model.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert main(["predict", str(run.folder), str(image)]) == 2
    assert "the checkpoint is damaged or missing" in capsys.readouterr().err
