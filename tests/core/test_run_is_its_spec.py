"""A run is a function of its specification: nothing else that a profile says can change it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import toy_encoders

from clipit_lib import text as text_stage
from clipit_lib.data.folder import FolderData
from clipit_lib.errors import ClipItError
from clipit_lib.inputs import Inputs, paired_reports
from clipit_lib.run import perform
from clipit_lib.runs import get_or_run
from clipit_lib.settings import Lora, Probe, RunSpec, StandInTraining, TextStage, Training
from companion import specs, train_encoders
from companion.phantom.reports import PhantomCorpus
from companion.profile import Profile, Study, Workbench

DATASET, BACKBONE, CLIP = "phantom-pcam", "phantom_vit_s16", "phantom_clip"
BY_PROMPTS = [s for s in specs.SETTINGS if s.startswith(("zero_shot", "contrastive"))]
BY_IMAGE = [s for s in specs.SETTINGS if not s.startswith(("zero_shot", "contrastive", "text"))]
CHANGED = [
    "clip_it/lambda_3", "clip_it/report_rank_2", "clip_it/word_dropout_30", "clip_it/lora_rank_2",
    "clip_it/retriever_phantom_clip_noisy", "clip_it/corpus_phantom-colon", "clip_it/labels_5",
    "clip_it/label_noise_30", "clip_it/long_text_chunk", "clip_it/switch_class_text",
    "clip_it/switch_letters_lost", "clip_it/switch_tiny_validation", "clip_it/protocol_released",
    "lora_only/mixup_0.2", "lora_only/averaged_90", "clip_it/pair_noise_30",
    "clip_it/labels_5/unlabelled_50", "clip_it/labels_5/passes_9/text_passes_3",
]  # fmt: skip
EVERY = [*specs.SETTINGS, *CHANGED]
# One of each way that code takes below a run.
WAYS = [
    "unimodal", "lora_only", "clip_it", "clip_it/redrawn_reports", "clip_it/constant_report",
    "clip_it/class_prompts", "clip_it/image_centroids", "clip_it/without_lora",
    "clip_it/early_fusion", "text/prompts", "text/terms", "contrastive", "clip_it/word_dropout_30",
    "clip_it/long_text_chunk", "clip_it/switch_class_text", "clip_it/switch_moving_target",
    "clip_it/protocol_released", "clip_it/noise_target", "lora_only/self_distilled",
    "lora_only/smoothing_10", "lora_only/mixup_0.2", "lora_only/averaged_90",
    "clip_it/labels_5/unlabelled_50",
]  # fmt: skip


def resolved(bench: Workbench, setting: str) -> RunSpec:
    prompted = setting.startswith(("zero_shot", "contrastive", "text"))
    return specs.resolve(bench, DATASET, CLIP if prompted else BACKBONE, setting, 0)


def like(bench: Workbench, **changes: Any) -> Workbench:
    return Workbench(bench.profile.model_copy(update=changes))


def bits(spec: RunSpec, inputs: Inputs) -> bytes:
    return perform(spec, inputs).predictions.filter(like="logit_").to_numpy().tobytes()


@pytest.fixture
def bench(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """The smoke profile with the smallest encoders: what a run reads does not depend on them."""
    toy_encoders(monkeypatch, side=32)
    return Workbench(bench.profile)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where stage one is kept: a folder that is replaced by the test."""
    folder = [tmp_path / "first"]
    monkeypatch.setattr(text_stage, "paths", SimpleNamespace(cache=lambda: folder[0]))
    return folder


def poisoned(profile: Profile) -> Profile:
    """Every field changed but those that data, reports and encoders are opened from."""
    opened = {"data", "corpora", "pretraining", "stand_in", "weights", "depth"}
    poison: dict[str, Any] = {
        "name": "poisoned",
        "summary": "",
        "backbones": ("phantom_vit_b8",),
        "retriever": "phantom_clip_noisy",
        "settings": (),
        "seeds": (9,),
        "protocol": "released",
        "lora": Lora(rank=1, alpha=3, dropout=0.5),
        "probe": Probe(epochs=1, learning_rate=0.5),
        "text_stage": TextStage(epochs=2, long_text="chunk", learning_rate=0.5),
        "training": Training(epochs=2, augment=True, learning_rate=0.5),
        "training_for": {DATASET: Training(epochs=3)},
        "distillation_weight": 7.0,
        "survival": None,
        "bootstrap_draws": 1,
        "clips": (),
        "templates": "quiltnet",
        "synthetic": {},
        "studies": {},
        "cells": {},
    }
    assert set(poison) | opened == set(Profile.model_fields)
    return profile.model_copy(update=poison)


@pytest.mark.parametrize("setting", WAYS)
def test_a_run_reads_nothing_but_its_specification(
    bench: Workbench, stages: list[Path], tmp_path: Path, setting: str
) -> None:
    spec = resolved(like(bench, lora=Lora(rank=2, alpha=4, dropout=0.5)), setting)
    first = bits(spec, Inputs(bench.profile.data, bench.profile.corpora, bench.sources, bench.runs))
    stages[0] = tmp_path / "second"
    torch.rand(1)  # dropout has PyTorch's own generator, which what ran before may have drawn from
    assert bits(spec, Workbench(poisoned(bench.profile))) == first


def one_change(profile: Profile) -> dict[str, dict[str, Any]]:
    """Each field of a profile changed alone, in each way that could matter to a run."""
    data, corpora = profile.data, profile.corpora
    assert profile.pretraining is not None and profile.survival is not None

    def of_data(**changes: Any) -> dict[str, Any]:
        return {"data": data | {DATASET: data[DATASET].model_copy(update=changes)}}

    breast = corpora["phantom-breast"]
    changes: dict[str, dict[str, Any]] = {
        "data: another corpus": of_data(corpus="phantom-colon"),
        "data: fewer patches": of_data(train=50),
        "data: other draws": of_data(seed=5),
        "corpora: fewer reports": {
            "corpora": corpora | {"phantom-breast": breast.model_copy(update={"reports": 30})}
        },
        "pretraining": {"pretraining": profile.pretraining.model_copy(update={"images": 128})},
        "stand_in": {"stand_in": StandInTraining(dataset=DATASET)},
        "weights": {"weights": {"clip": "/nowhere"}},
    }
    poison = poisoned(profile)
    changes |= {
        name: {name: getattr(poison, name)}
        for name in Profile.model_fields
        if name not in {key.split(":")[0] for key in changes}
    }
    return changes


@pytest.mark.slow
def test_each_field_of_a_profile_changes_a_key_or_nothing(
    bench: Workbench, stages: list[Path], tmp_path: Path
) -> None:
    before = {setting: resolved(bench, setting) for setting in EVERY}
    known: dict[str, bytes] = {}
    moved: dict[str, set[str]] = {}
    for number, (change, values) in enumerate(one_change(bench.profile).items()):
        other, opened = like(bench, **values), change.split(":")[0] in ("data", "corpora")
        stages[0] = tmp_path / str(number)
        moved[change] = set()
        for setting, spec in before.items():
            after = resolved(other, setting)
            if after.key != spec.key:
                moved[change].add(setting)
                continue
            assert after == spec
            if opened:  # the name of a set or corpus stands for other settings: numbers must agree
                if setting not in known:
                    known[setting] = bits(spec, bench)
                assert bits(after, other) == known[setting], (change, setting)
    texts = {s for s in EVERY if before[s].text is not None}
    trained = {s for s in EVERY if before[s].training is not None}
    named = {"text/prompts", "clip_it/class_prompts", *BY_PROMPTS}
    assert moved["templates"] == named
    read = {setting: spec.text.corpus for setting, spec in before.items() if spec.text}
    assert moved["data: another corpus"] == {s for s in read if read[s] == "phantom-breast"}
    assert moved["corpora: fewer reports"] == moved["data: another corpus"]
    assert moved["data: fewer patches"] == moved["data: other draws"] == set(EVERY)
    assert moved["pretraining"] == set(EVERY)
    assert moved["text_stage"] == texts
    assert moved["retriever"] == texts - {"clip_it/retriever_phantom_clip_noisy"}
    assert moved["training_for"] == trained == moved["training"]
    assert moved["lora"] == {s for s in EVERY if before[s].lora is not None}
    nothing = (
        "name", "summary", "backbones", "settings", "seeds", "survival", "bootstrap_draws", "clips",
        "synthetic", "studies", "cells", "stand_in", "weights",
    )  # fmt: skip
    assert {change: moved[change] for change in nothing} == {each: set() for each in nothing}


@pytest.fixture
def own(bench: Workbench, tmp_path: Path) -> Workbench:
    """A folder of the user with two classes, three patches of each in each split."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for number, name in enumerate(("calm", "wild")):
            folder = tmp_path / "own" / split / name
            folder.mkdir(parents=True)
            for patch in range(3):
                pixels = rng.integers(0, 128 + 127 * number, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{patch}.png")
    return said(bench, tmp_path / "own", ("calm tissue", "wild tissue"))


def said(bench: Workbench, folder: Path, class_texts: tuple[str, str]) -> Workbench:
    data = FolderData(
        source="folder", folder=str(folder), class_texts=class_texts, side=32,
        corpus="phantom-breast",
    )  # fmt: skip
    return like(bench, data={"own": data})


@pytest.mark.parametrize("setting", ["zero_shot", "contrastive", "text/prompts"])
def test_other_class_texts_are_another_run(
    bench: Workbench, own: Workbench, tmp_path: Path, setting: str
) -> None:
    edited = said(bench, tmp_path / "own", ("benign breast tissue", "invasive carcinoma"))
    first, second = (specs.resolve(each, "own", CLIP, setting, 0) for each in (own, edited))
    assert first.key != second.key
    assert bits(first, own) != bits(second, edited)


def test_class_texts_rename_no_run_that_does_not_read_them(
    bench: Workbench, own: Workbench, tmp_path: Path
) -> None:
    edited = said(bench, tmp_path / "own", ("benign breast tissue", "invasive carcinoma"))
    moved = {
        setting
        for setting in BY_IMAGE
        if specs.resolve(own, "own", BACKBONE, setting, 0).key
        != specs.resolve(edited, "own", BACKBONE, setting, 0).key
    }
    assert moved == {"clip_it/class_prompts"}


def test_a_run_that_reads_long_texts_is_paired_by_long_texts(bench: Workbench) -> None:
    asked = "clip_it/long_text_chunk"
    chunking = like(bench, text_stage=bench.profile.text_stage.model_copy(
        update={"long_text": "chunk"}
    ))  # fmt: skip
    one, other = resolved(bench, asked), resolved(chunking, asked)
    assert one.key == other.key and one.text is not None
    pairs = [paired_reports(one.text, each, "train") for each in (bench, chunking)]
    assert (pairs[0] == pairs[1]).all()
    assert (pairs[0] == chunking.pairs(DATASET, "train", 1).reports[:, 0]).all()
    assert (pairs[0] != bench.pairs(DATASET, "train", 1).reports[:, 0]).any()


def test_runs_share_stage_one_only_where_all_it_reads_is_the_same(bench: Workbench) -> None:
    texts = {setting: resolved(bench, setting).text for setting in EVERY}
    keys = {setting: text.key for setting, text in texts.items() if text is not None}
    assert (
        keys["clip_it"] == keys["clip_it/lambda_3"] == keys["clip_it/early_fusion"] == keys["text"]
    )
    apart = [
        "clip_it", "clip_it/random_reports", "clip_it/shuffled_pairs", "clip_it/class_prompts",
        "clip_it/lora_vision_only", "clip_it/long_text_chunk", "clip_it/labels_5",
        "clip_it/label_noise_30", "clip_it/word_dropout_30", "clip_it/lora_rank_2",
        "clip_it/switch_class_text", "clip_it/switch_letters_lost",
        "clip_it/switch_tiny_validation", "clip_it/retriever_phantom_clip_noisy",
        "clip_it/corpus_phantom-colon", "text/prompts", "text/terms",
    ]  # fmt: skip
    assert len({keys[setting] for setting in apart}) == len(apart)


def test_inputs_that_are_not_those_of_the_specification_are_refused(bench: Workbench) -> None:
    spec = resolved(bench, "clip_it")
    assert isinstance(bench.profile.corpora["phantom-breast"], PhantomCorpus)
    others = {
        "data set": one_change(bench.profile)["data: fewer patches"],
        "corpus": one_change(bench.profile)["corpora: fewer reports"],
    }
    for what, changes in others.items():
        with pytest.raises(ClipItError, match=f"the {what} .* as the run was specified"):
            perform(spec, like(bench, **changes))
    changed = bench.profile.model_copy(update=one_change(bench.profile)["pretraining"])
    untrained = Workbench(changed, download=False)
    new = resolved(untrained, "clip_it")
    with pytest.raises(ClipItError, match="has not been trained yet"):
        get_or_run(new, untrained)


def test_the_stand_in_reads_its_patches_as_its_own_settings_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def patches(side: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append(side)
        raise ClipItError("enough", "here", "stop")

    monkeypatch.setattr(train_encoders, "retriever_patches", patches)
    pilot = specs_of_pilot()
    with pytest.raises(ClipItError, match="enough"):
        Workbench(pilot).retriever("stand_in")
    assert asked == [96]


def specs_of_pilot() -> Profile:
    from companion.profile import load_profile

    pilot = load_profile("pilot")
    data = {"crc5": pilot.data["crc5"].model_copy(update={"side": 64})}
    return pilot.model_copy(
        update={"data": data, "stand_in": StandInTraining(dataset="crc5", side=96), "studies": {
            "own": Study()
        }}
    )  # fmt: skip
