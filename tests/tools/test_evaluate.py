"""Predictions against labels: scores worked by hand, intervals over patients, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipit_lib import runs
from clipit_lib.predictions import predictions_frame
from companion import evaluate, specs
from companion.__main__ import main
from companion.profile import Workbench

ANSWERS = """image,prediction,a,b
1.png,b,0.2500,0.7500
2.png,a,0.5000,0.5000
3.png,b,0.1000,0.9000
4.png,,,
"""
LABELS = "path,label\n1.png,b\n2.png,a\n3.png,a\n"
HEAD = "score,value,low,high"


@pytest.fixture(autouse=True)
def few_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "DRAWS", 20)
    monkeypatch.chdir(tmp_path)


def evaluated(answers: str, labels: str, *options: str) -> int:
    Path("answers.csv").write_text(answers, encoding="utf-8")
    Path("labels.csv").write_text(labels, encoding="utf-8")
    return main(["evaluate", "answers.csv", "labels.csv", *options])


def test_scores_worked_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """Of two equal probabilities the prediction says which counts."""
    assert evaluated(ANSWERS + "5.png,a,1,0\n", LABELS) == 0
    shown = capsys.readouterr()
    head, *rows = shown.out.splitlines()
    found = {name: float(value) for name, value, *_ in (row.split(",") for row in rows)}
    assert head == HEAD and found == pytest.approx({
        "balanced accuracy (%)": (50 + 100) / 2,
        "accuracy (%)": 200 / 3,
        "AUROC (%)": 50,  # 3/4 over 1/2, and under 9/10
        "negative log-likelihood (nats)": -np.log([0.75, 0.5, 0.1]).mean(),
        "Brier score (0 to 2)": 2 * np.mean([0.25**2, 0.5**2, 0.9**2]),
        "calibration error (%)": 100 * (0.25 + 0.5 + 0.9) / 3,
    }, rel=1e-3)  # fmt: skip
    assert "1 answers are of images without a label" in shown.err
    assert "3 patches of unknown patients" in shown.err


def test_predictions_alone_have_no_scores_of_probabilities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = "path,label,split,group\n1.png,b,test,p1\n2.png,a,test,p1\n9.png,c,train,p2\n"
    answers = "image,prediction\n1.png,b\n2.png,b\n"
    assert evaluated(answers, labels, "--split", "test", "--output", "scores.csv") == 0
    assert Path("scores.csv").read_text("utf-8").splitlines() == [
        HEAD, "balanced accuracy (%),50,50,50", "accuracy (%),50,50,50",
    ]  # fmt: skip
    assert "2 patches of 1 patients" in capsys.readouterr().err


def test_a_bootstrap_draws_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty patients of ten patches that are all right or all wrong are as good as forty."""
    monkeypatch.setattr(evaluate, "DRAWS", 300)
    rng = np.random.default_rng(5)
    right = np.repeat(rng.random(40) < 0.8, 10)
    logits = np.eye(2)[np.where(right, 0, 1)]
    ids = [str(i) for i in range(400)]
    labels = np.zeros(400, dtype=np.int64)
    for patients, count in (([f"p{i // 10}" for i in range(400)], 40), ([""] * 400, 400)):
        frame = predictions_frame(ids, patients, labels, logits, "test")
        found = evaluate.measured(frame).loc["accuracy"]
        half = 100 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / count)
        assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.2)


def test_draws_without_a_class_have_no_auroc() -> None:
    """Both classes are drawn in half of the draws of two patients, and told apart there."""
    frame = predictions_frame(["1", "2"], ["p", "q"], np.array([0, 1]), np.eye(2), "test")
    assert evaluate.measured(frame).loc["auroc"].tolist() == [100, 100, 100]
    assert np.isnan(evaluate.measured(frame.iloc[:1]).loc["auroc"]).all()


@pytest.mark.parametrize(
    ("answers", "labels", "said"),
    [
        (ANSWERS, LABELS + "4.png,a\n", "answers.csv: no answer for 1 of 4 images"),
        (ANSWERS, LABELS.replace("1.png,b", "1.png,c"), "labels.csv: no class 'c'. Classes of"),
        (ANSWERS, "path,label,split\n1.png,a,train\n2.png,b,test\n", "images of test, train"),
        (ANSWERS + "1.png,b,0,1\n", LABELS, "1.png is there twice"),
        (ANSWERS.replace("1.png,b", "1.png,a"), LABELS, "not those of its prediction"),
        (ANSWERS.replace("0.7500", "7.5"), LABELS, "not those of its prediction"),
        (ANSWERS.replace("0.7500", "high"), LABELS, "not those of its prediction"),
        (ANSWERS.replace("prediction", "said"), LABELS, "no column prediction"),
    ],
)
def test_what_does_not_fit_is_one_line(
    answers: str, labels: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(answers, labels) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and said in error and "\n" not in error


def test_a_classifier_is_scored_as_its_predictions_are(
    bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = "phantom-crc", "phantom_vit_s16", "lora_only", 0
    run, data = runs.get_or_run(specs.resolve(bench, *cell), bench), bench.dataset(cell[0])
    (tmp_path / "images").mkdir()
    rows = []
    for row in data.indices("test")[:30]:
        Image.fromarray(np.array(data.pixels[row])).save(tmp_path / "images" / f"{row}.png")
        sample = data.samples.loc[row]
        rows.append((f"images/{row}.png", data.classes[sample["label"]], sample["group"]))
    table = pd.DataFrame(rows, columns=["path", "label", "group"])
    table.to_csv("labels.csv", index=False)
    assert main(["predict", str(run.folder), "images", "--output", "answers.csv"]) == 0
    for origin in ("answers.csv", str(run.folder)):
        command = ["evaluate", origin, "labels.csv", "--output", f"{Path(origin).stem}.scores"]
        assert main(command) == 0
        assert f"30 patches of {table['group'].nunique()} patients" in capsys.readouterr().err
    texts = [path.read_text("utf-8") for path in Path().glob("*.scores")]
    assert len(texts) == 2 and texts[0] == texts[1] and "AUROC" in texts[0]
    Path("images/broken.png").write_text("no image")
    with Path("labels.csv").open("a") as stream:
        stream.write("images/broken.png,ADI,\n")
    assert main(["evaluate", str(run.folder), "labels.csv"]) == 2
    assert "no answer for 1 of 31 images" in capsys.readouterr().err
