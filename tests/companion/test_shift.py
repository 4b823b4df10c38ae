"""Disturbed patches, and gains under disturbance worked by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from toys import CELL, toy_bench

from clipit_lib import runs
from clipit_lib.data.patches import PatchDataset
from clipit_lib.errors import ClipItError
from clipit_lib.paths import repository
from companion import shift, specs
from companion.profile import Workbench, load_profile
from companion.statistics import correct

SIZE = len(shift.CONDITIONS)


@pytest.mark.parametrize("kind", shift.SHIFTS)
def test_a_stronger_shift_is_farther_from_the_patch(kind: str, bench: Workbench) -> None:
    data = bench.dataset("phantom-pcam")
    patches = data.pixels[data.indices("test")[:8]]
    before = patches.copy()
    far = []
    for strength in shift.STRENGTHS:
        found = shift.shifted(patches, kind, strength)
        assert (found.shape, found.dtype) == (patches.shape, np.uint8)
        far.append(np.abs(found.astype(float) - patches).mean())
    assert far[0] > 0.5 and all(low < high for low, high in pairwise(far))
    np.testing.assert_array_equal(patches, before)


def test_a_blur_keeps_the_mean_colour_and_stain_the_brightness_order(bench: Workbench) -> None:
    data = bench.dataset("phantom-pcam")
    patches = data.pixels[data.indices("test")[:8]]
    blurred, stained = (shift.shifted(patches, kind, 3).astype(float) for kind in ("blur", "stain"))
    np.testing.assert_allclose(blurred.mean((1, 2)), patches.mean((1, 2)), atol=3)
    # A turn of the hue keeps value, the largest of the three channels.
    np.testing.assert_allclose(stained.max(-1), patches.max(-1), atol=2)


def test_without_a_shift_a_checkpoint_is_right_where_its_run_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shift, "SHIFTS", {kind: lambda patches, _: patches for kind in shift.SHIFTS})
        bench = toy_bench(patch)
        stored = [
            runs.get_or_run(specs.resolve(bench, *CELL, name, 0), bench)
            for name in ("unimodal", "lora_only", "clip_it")
        ]
        found = shift.hits(stored, bench)
        for run in stored:
            assert found[run.key].shape == (SIZE, 14)
            assert (found[run.key] == correct(run.predictions())).all()
        table = shift.accuracy_table(stored, found)
        assert len(table) == len(stored) * (SIZE + len(shift.SHIFTS))
        own = table.groupby("setting")["balanced_accuracy"]
        np.testing.assert_allclose(own.min(), own.max())  # with a shift or without

        # Other weights of one key, as another GPU makes them, are asked anew.
        path, state = stored[0].folder / runs.MODEL, load_file(stored[0].folder / runs.MODEL)
        about = {"spec": stored[0].spec.model_dump_json()}
        save_file({name: -value for name, value in state.items()}, path, metadata=about)
        assert (shift.hits(stored[:1], bench)[stored[0].key] != found[stored[0].key]).any()


def test_predictions_alone_cannot_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPIT_PREDICTIONS", str(repository() / "results"))
    with pytest.raises(ClipItError, match="shifts need checkpoints"):
        shift.hits([], Workbench(load_profile("demo")))


def test_gains_worked_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four samples of two classes, each its own patient; under blur CLIP-IT gets two more right."""
    samples = pd.DataFrame({"sample": [*"abcd"], "group": [*"abcd"], "label": [0, 0, 1, 1]})
    monkeypatch.setattr(runs.StoredRun, "predictions", lambda _: samples)
    stored, found = [], {}
    for setting in ("lora_only", "clip_it"):
        right = np.zeros((SIZE, 4), bool)
        right[:, 0] = True
        if setting == "clip_it":
            right[[kind == "blur" for kind, _ in shift.CONDITIONS], 2:] = True
        for seed in (0, 1):
            spec = specs.resolve(toy_bench(monkeypatch), *CELL, setting, seed)
            stored.append(runs.StoredRun(tmp_path / spec.key, spec))
            found[spec.key] = right
    gains = shift.gain_table(stored, found)
    assert set(gains["first"]) == {"lora_only"}  # the other pairs are not there
    by_shift = gains.set_index("shift")["gain"]
    assert by_shift.to_dict() == pytest.approx(
        {"stain": 0, "blur": 50, "JPEG": 0, "resolution": 0, "all": 12.5}
    )
    assert "blur: CLIP-IT over LoRA only +50.0" in shift.words(gains)


def coloured(
    levels: list[int], groups: list[str], labels: list[int], rough: int | None = None
) -> PatchDataset:
    """Test patches of these grey levels, one more uneven, after two of training, of 100 and 110."""
    columns = {
        "id": [f"s{number}" for number in range(len(levels) + 2)],
        "split": ["train", "train", *("test" for _ in levels)],
        "label": [0, 1, *labels],
        "group": ["", "", *groups],
    }
    noise = np.random.default_rng(0).integers(-5, 6, (len(levels) + 2, 4, 4, 3))
    if rough is not None:
        noise[rough + 2] *= 3
    pixels = np.array([100, 110, *levels])[:, None, None, None] + noise
    names, read = ("a", "b"), pixels.astype(np.uint8)
    return PatchDataset("grey", names, names, pd.DataFrame(columns), read, "0" * 16)


def test_the_farthest_stain_is_that_of_whole_patients_class_by_class() -> None:
    levels, labels = [105, 200, 107, 190, 104, 103], [0, 0, 0, 1, 1, 1]
    alone = shift.farthest_stain(coloured(levels, [""] * 6, labels))
    assert alone[alone].index.tolist() == ["s3", "s5"]  # 200 and 190: one of three per class
    # 104 belongs to a patient whose other patch is farther than anybody's.
    patients = shift.farthest_stain(coloured(levels, [*"abcdbe"], labels))
    assert patients[patients].index.tolist() == ["s3", "s5"]
    # Brightness varies in training, evenness hardly: a little of it is farther.
    uneven = shift.farthest_stain(coloured([105, 130, 107], [""] * 3, [0] * 3, rough=2))
    assert uneven[uneven].index.tolist() == ["s4"]
    levels[3] = 120
    patients = shift.farthest_stain(coloured(levels, [*"abcdbe"], labels))
    assert patients[patients].index.tolist() == ["s3", "s6"]


def test_gains_by_stain_worked_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CLIP-IT gets the far sample of class 1 right, and loses one of the two others of class 0."""
    data = coloured([105, 200, 107, 190, 104, 103], [""] * 6, [0, 0, 0, 1, 1, 1])
    bench = toy_bench(monkeypatch)
    monkeypatch.setattr(bench, "dataset", lambda _: data)
    order = [5, 4, 3, 2, 1, 0]  # as an archive may have them
    wrong = {"lora_only": [3], "clip_it": [0]}
    stored, frames = [], {}
    for setting, missed in wrong.items():
        said = np.array([0, 0, 0, 1, 1, 1])
        said[missed] = 1 - said[missed]
        frame = pd.DataFrame({
            "sample": data.samples["id"][2:].to_numpy(), "group": "",
            "label": data.samples["label"][2:].to_numpy(),
            "logit_0": 1.0 - said, "logit_1": said.astype(float),
        })  # fmt: skip
        for seed in (0, 1):
            spec = specs.resolve(toy_bench(monkeypatch), *CELL, setting, seed)
            stored.append(runs.StoredRun(tmp_path / spec.key, spec))
            frames[spec.key] = frame.iloc[order].reset_index(drop=True)
    monkeypatch.setattr(runs.StoredRun, "predictions", lambda run: frames[run.spec.key])
    found = shift.stain_table(stored, bench)
    assert set(found["first"]) == {"lora_only"}
    assert found.set_index("stain")["gain"].to_dict() == {"farthest": 50.0, "other": -25.0}
    assert "toy, farthest stain: CLIP-IT over LoRA only +50.0" in shift.words(found)
    # One sample per class: nothing is left beside the farthest.
    data = coloured([105, 190], [""] * 2, [0, 1])
    frames |= {key: frame[frame["sample"].isin(["s2", "s3"])].assign(label=[1, 0])
               for key, frame in frames.items()}  # fmt: skip
    assert shift.stain_table(stored, bench)["stain"].tolist() == ["farthest"]
