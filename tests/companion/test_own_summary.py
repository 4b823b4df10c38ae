"""What the text contributed to a study of the user, against gains that were planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipit_lib.errors import ClipItError
from clipit_lib.predictions import predictions_frame
from clipit_lib.runs import StoredRun
from companion import paths, specs
from companion.figures.accuracy import own_figure
from companion.own import (
    ADDED,
    POOLED,
    candidate_table,
    choice_words,
    choose,
    command,
    summary,
    summary_table,
    summary_words,
)
from companion.profile import Workbench

CELL = ("phantom-pcam", "phantom_vit_s16")


class Answered(StoredRun):
    """A run that answers a known share of its patches; others answer the same patches."""

    notes = ()

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
        for dataset in ("phantom-pcam", "phantom-crc") for name in test for seed in (0, 1)
    ]  # fmt: skip


ALL = {"unimodal": 0.5, "lora_only": 0.6, "architecture_only": 0.6, "random_reports": 0.7,
       "shuffled_pairs": 0.75}  # fmt: skip


def test_the_summary_has_the_gains_that_were_planted(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = summary(answered(bench, monkeypatch, ALL | {"clip_it": 0.9}))
    pooled = found[found["dataset"] == POOLED].set_index("first")
    assert list(pooled.index) == list(ADDED)
    expected = {"unimodal": 40, "lora_only": 30, "clip_it/architecture_only": 30,
                "clip_it/random_reports": 20, "clip_it/shuffled_pairs": 15}  # fmt: skip
    for first, gain in expected.items():
        assert pooled.loc[first, "gain"] == pytest.approx(gain)
        assert 0 < pooled.loc[first, "low"] < gain < pooled.loc[first, "high"]
    assert len(found) == 5 * 3 and set(found["word"]) == {"helps"}
    words = summary_words(found)
    assert words.startswith("**The text helps here**: over every control")
    assert "Matched text adds, over random reports: +20.0 [" in words
    assert len(summary_table(found)) == 15
    (axis,) = own_figure(found, "title").axes
    assert [text.get_text() for text in axis.texts][3].startswith("+20.0 [")
    dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "."]
    np.testing.assert_allclose(dots, np.repeat([[40], [30], [30], [20], [15]], 2, axis=1))


@pytest.mark.parametrize(
    ("clip_it", "verdicts", "said"),
    [
        # Equal to random reports: the gain over the probe is not the text's.
        (0.7, ["helps", "helps", "helps", "equivalent", "hurts"], "**Only a part is shown**"),
        (
            0.6,
            ["helps", "equivalent", "equivalent", "hurts", "hurts"],
            "**The text is worth less than 1 point",
        ),
    ],
)
def test_text_is_not_credited_with_what_a_control_does_as_well(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, clip_it: float, verdicts: list[str],
    said: str,
) -> None:  # fmt: skip
    found = summary(answered(bench, monkeypatch, ALL | {"clip_it": clip_it}))
    pooled = found[found["dataset"] == POOLED]
    assert pooled["word"].tolist() == verdicts
    words = summary_words(found)
    assert words.startswith(said)
    assert "**equivalent**: " in words and "**hurts**: " in words


def test_a_summary_says_which_controls_were_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = answered(bench, monkeypatch, {"unimodal": 0.5, "lora_only": 0.6, "clip_it": 0.9})
    assert "over the controls run (LoRA only)" in summary_words(summary(few))
    probe = answered(bench, monkeypatch, {"unimodal": 0.5, "clip_it": 0.9})
    assert summary_words(summary(probe)).startswith("**No control of the text was run")
    with pytest.raises(ClipItError, match="no runs of clip_it beside a control"):
        summary(answered(bench, monkeypatch, {"unimodal": 0.5}))
    with pytest.raises(ClipItError, match="they share no seeds"):
        summary([r for r in few if r.spec.setting == "clip_it" or r.spec.seed == 0])


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
    assert "seeds this one (80.0%; as the best of" in choice_words(choice)
    assert set(candidate_table(choice)["setting"]) == {"unimodal", "lora_only", "clip_it"}
    words = choice_words(choice)
    assert "80.0%" in words and "it has 60.0%" in words and str(choice.run.folder) in words
    with pytest.raises(ClipItError, match="no run of other to deploy"):
        choose(stored, "other")


def test_the_command_names_no_folder_of_this_machine_unless_it_must(bench: Workbench) -> None:
    spec = specs.resolve(bench, *CELL, "clip_it", 0)
    inside = StoredRun(paths.repository() / "results" / "my own" / "runs" / "key", spec)
    outside = StoredRun(paths.repository().parent / "elsewhere" / "key", spec)
    assert "predict 'results/my own/runs/key' image" in command(inside)
    assert f"predict {outside.folder} image" in command(outside)
