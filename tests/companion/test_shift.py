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
