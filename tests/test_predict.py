"""The deployed classifier: the same answers, and no text anywhere near it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipit_lib import experiment, runs, specs
from clipit_lib.__main__ import main
from clipit_lib.predict import load_classifier
from clipit_lib.workbench import Workbench

CELL = ("phantom-crc", "phantom_vit_s16")
# What must not be loaded: text encoders, tokenizers, reports, and whatever would load them.
FORBIDDEN = (
    "open_clip", "transformers", "tokenizers", "peft", "clipit_lib.reports",
    "clipit_lib.encoders.clip", "clipit_lib.encoders.tokens", "clipit_lib.encoders.towers",
    "clipit_lib.text_stage", "clipit_lib.pairing", "clipit_lib.targets",
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


def test_command_line_prediction_loads_no_text(bench: Workbench, image: Path) -> None:
    run = runs.get_or_run(specs.resolve(bench, *CELL, "clip_it", 0), bench)
    program = (
        "import sys; from clipit_lib.__main__ import main; code = main(sys.argv[1:]); "
        f"bad = [n for n in sys.modules if n.startswith({FORBIDDEN!r})]; "
        "print('LOADED', sorted(bad)[:5], code)"
    )
    command = [sys.executable, "-c", program, "predict", str(run.folder), str(image), str(image)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1] == "LOADED [] 0"
    assert lines[0].startswith("image,prediction,ADI,BACK")
    values = [float(value) for value in lines[1].split(",")[2:]]
    assert len(lines) == 4 and len(values) == 9 and sum(values) == pytest.approx(1, abs=1e-3)


def test_the_test_split_is_read_without_text(bench: Workbench, monkeypatch) -> None:
    """After training, whatever touches a tower, a report or a pairing fails the run."""
    wanted = specs.resolve(bench, *CELL, "clip_it", 5)
    original, seen = experiment._predict, []

    def guarded(*arguments: object) -> object:
        def touched(*_: object, **__: object) -> None:
            raise AssertionError("text was touched while predicting")

        with monkeypatch.context() as patch:
            for tower in (bench.clip.text_tower, bench.clip.image_tower):
                patch.setattr(type(tower), "forward", touched)
            patch.setattr(Workbench, "corpus", touched)
            patch.setattr(Workbench, "pairs", touched)
            seen.append(arguments[-1])
            return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "_predict", guarded)
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


def test_what_is_no_run_is_said(tmp_path: Path, capsys) -> None:
    assert main(["predict", str(tmp_path), "x.png"]) == 2
    assert "no finished run here. Name a folder below results/" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_said(bench: Workbench, image: Path, capsys) -> None:
    run = runs.get_or_run(specs.resolve(bench, *CELL, "lora_only", 79), bench)
    checkpoint = run.folder / "model.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert main(["predict", str(run.folder), str(image)]) == 2
    assert "the checkpoint is damaged or missing" in capsys.readouterr().err
