"""Runs of the store give the logits of the method written out, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from whole_method import Whole, pair

from clipit_lib import run
from clipit_lib.encoders.embeddings import image_embeddings, text_embeddings
from clipit_lib.predictions import LOGIT
from clipit_lib.settings import RunSpec
from companion import specs
from companion.profile import Workbench

CELL, SEED = ("phantom-crc", "phantom_vit_s16"), 3
SETTINGS = (
    "unimodal",
    "lora_only",
    "clip_it",
    "clip_it/lambda_3",
    "clip_it/report_rank_2",
    "clip_it/random_reports",
    "clip_it/redrawn_reports",
    "clip_it/constant_report",
    "clip_it/shuffled_pairs",
    "clip_it/shuffled_within_class",
    "clip_it/word_dropout_30",
    "clip_it/label_noise_30",
    "clip_it/labels_5",
    "clip_it/switch_last_checkpoint",
)


def written_out(spec: RunSpec, bench: Workbench) -> Whole:
    """The same run, with labels, noise and pairs drawn here."""
    data, encoder = bench.dataset(spec.dataset), bench.backbone(spec.backbone)
    splits = ("train", "validation")
    rows, rng = {split: data.indices(split) for split in splits}, np.random.default_rng([SEED, 1])
    if spec.labels_per_class is not None:
        some = [rows["train"][data.labels[rows["train"]] == c] for c in range(len(data.classes))]
        rows["train"] = np.sort(
            np.concatenate([rng.permutation(part)[: spec.labels_per_class] for part in some])
        )
    labels = {}
    for split in splits:
        true, classes = data.labels[rows[split]], len(data.classes)
        flipped = rng.random(len(true)) < spec.label_noise
        other = (true + rng.integers(1, classes, size=len(true))) % classes
        labels[split] = torch.from_numpy(np.where(flipped, other, true).astype(np.int64))
    at = {s: torch.from_numpy(np.searchsorted(data.indices(s), rows[s])) for s in splits}
    features = {
        split: torch.from_numpy(
            image_embeddings(encoder.model, encoder.weights_hash, encoder.transform, data, split)
        )[at[split]]
        for split in splits
    }
    if spec.text is None:
        return Whole(spec, data, encoder, features, rows, labels)
    clip, corpus, asked = bench.clip, bench.corpus(spec.dataset), spec.text.pairing
    texts = torch.from_numpy(np.array(text_embeddings(clip, corpus, "truncate")))
    images = {s: torch.from_numpy(np.array(bench.retriever_embeddings(spec.dataset, s)))
              for s in splits}  # fmt: skip
    psi = {split: pair(images[split], texts, asked.rank) for split in splits}
    if asked.reports in ("random", "redrawn"):
        for split in splits:
            drawn = np.random.default_rng([SEED, 2]).integers(len(corpus), size=len(psi[split]))
            psi[split] = torch.from_numpy(drawn)
    if asked.reports == "constant":
        most_used = psi["train"].bincount().argmax()
        psi = {split: torch.full_like(psi[split], int(most_used)) for split in splits}
    if asked.reports.startswith("shuffled"):
        for split in splits:
            draws, before = np.random.default_rng([SEED, 5]), psi[split].clone()
            group = data.labels[data.indices(split)] * (asked.reports != "shuffled")
            for each in np.unique(group):
                where = np.flatnonzero(group == each)
                psi[split][where] = before[draws.permutation(where)]
    drawn_reports = None
    if asked.reports == "redrawn":
        assert spec.training is not None
        shape = (spec.training.epochs, len(images["train"]))
        again = np.random.default_rng([SEED, 6]).integers(len(corpus), size=shape)
        drawn_reports = torch.from_numpy(again)[:, at["train"]]
    psi = {split: psi[split][at[split]] for split in splits}
    return Whole(
        spec, data, encoder, features, rows, labels, clip, corpus.texts, psi, drawn_reports
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_is_the_method_written_out(setting: str, bench: Workbench) -> None:
    # At this rate the best look of LoRA only is not its last: which weights are kept shows.
    course = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    training = bench.profile.training.model_copy(update=course)
    stage = bench.profile.text_stage.model_copy(update={"epochs": 3, "batch_size": 8})
    changed = bench.profile.model_copy(update={"training": training, "text_stage": stage})
    desk = Workbench(changed)
    spec = specs.resolve(desk, *CELL, setting, SEED)
    expected = written_out(spec, desk).run()
    outcome = run.perform(spec, desk)
    if setting == "lora_only":
        looks = [row["validation"] for row in outcome.history]
        assert min(looks) < looks[-1]
    predictions = outcome.predictions
    test = predictions[predictions["split"] == "test"]
    found = torch.from_numpy(test.filter(like=LOGIT).to_numpy().copy())
    assert found.shape == (len(desk.dataset(CELL[0]).indices("test")), 9)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
