"""Runs of the store give the logits of the method written out, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import CELL, toy_bench
from whole_method import Whole, pair

from clipit_lib import runs
from clipit_lib.encoders.embeddings import image_embeddings, text_embeddings
from clipit_lib.inputs import choose_labels
from clipit_lib.predict import load_classifier
from clipit_lib.predictions import LOGIT
from clipit_lib.settings import RunSpec
from companion import specs
from companion.profile import Workbench

SEED = 3
SETTINGS = (
    "unimodal",
    "unimodal/label_noise_30",
    "unimodal/pair_noise_30",
    "lora_only",
    "clip_it",
    "clip_it/lambda_3",
    "clip_it/report_rank_2",
    "clip_it/random_reports",
    "clip_it/redrawn_reports",
    "clip_it/redrawn_reports/labels_5",
    "clip_it/constant_report",
    "clip_it/shuffled_pairs",
    "clip_it/shuffled_within_class",
    "clip_it/own_60/corpus_toy-own",
    "clip_it/own_100/corpus_toy-own/labels_5",
    "clip_it/own_class_60/corpus_toy-own",
    "clip_it/own_neighbour_60/corpus_toy-own",
    "clip_it/soft_labels/own_60/corpus_toy-own",
    "clip_it/soft_labels/lambda_3",
    "lora_only/self_distilled/lambda_3",
    "lora_only/smoothing_20",
    "lora_only/mixup_0.4/labels_5",
    "lora_only/averaged_80",
    "lora_only/averaged_80/switch_last_checkpoint",
    "clip_it/noise_target/labels_5",
    "clip_it/image_target",
    "clip_it/image_target/labels_5",
    "clip_it/without_lora",
    "clip_it/word_dropout_30",
    "clip_it/word_dropout_30/labels_5",
    "clip_it/label_noise_30",
    "clip_it/labels_5",
    "clip_it/random_reports/labels_5/passes_9/text_passes_6",
    "clip_it/labels_5/passes_9/unlabelled_100",
    "clip_it/labels_5/unlabelled_100",
    "clip_it/random_reports/lambda_3/labels_5/unlabelled_40",
    "clip_it/image_target/labels_5/unlabelled_60",
    "clip_it/long_text_chunk",
    "clip_it/switch_last_checkpoint",
    "clip_it/switch_double_softmax",
    "clip_it/switch_random_fusion",
    "clip_it/switch_text_stage_ignored",
    "clip_it/switch_imagenet_normalisation",
    "clip_it/switch_tiny_validation",
)
# Those that are held at the phantom's size too, with towers of the real kind.
OF_THE_PHANTOM = ("lora_only", "clip_it/word_dropout_30/labels_5")
# At these rates neither the first look nor the last is the best, in the probe and in both stages:
# which weights are kept shows, and what they learned from after the first epoch.
TRAINING = {
    "epochs": 3, "batch_size": 8, "learning_rate": 0.5, "checks_per_epoch": 2, "augment": True,
}  # fmt: skip
TEXT = {"epochs": 3, "batch_size": 4, "learning_rate": 0.3}
PROBE = {"epochs": 6, "batch_size": 8, "learning_rate": 1.0}


def written_out(spec: RunSpec, bench: Workbench) -> Whole:
    """The same run, with labels, noise and pairs drawn here."""
    data, encoder = bench.dataset(spec.dataset), bench.backbone(spec.backbone, spec.normalisation)
    splits = ("train", "validation")
    rows, rng = {split: data.indices(split) for split in splits}, np.random.default_rng([SEED, 1])

    def some(split: str, count: int, draws: np.random.Generator) -> np.ndarray:
        each = [rows[split][data.labels[rows[split]] == c] for c in range(len(data.classes))]
        return np.sort(np.concatenate([draws.permutation(part)[:count] for part in each]))

    if spec.labels_per_class is not None:
        rows["train"] = some("train", spec.labels_per_class, rng)
    if spec.validation_per_class is not None:
        draws = np.random.default_rng([SEED, 7])
        rows["validation"] = some("validation", spec.validation_per_class, draws)
    labels = {}
    for split in splits:
        true, classes = data.labels[rows[split]], len(data.classes)
        flipped = rng.random(len(true)) < spec.label_noise
        if spec.noise_to == "next":
            other = np.where(true == classes - 1, 0, true + 1)
        else:
            other = (true + rng.integers(1, classes, size=len(true))) % classes
        labels[split] = torch.from_numpy(np.where(flipped, other, true).astype(np.int64))
    at = {s: torch.from_numpy(np.searchsorted(data.indices(s), rows[s])) for s in splits}
    seen_rows, soft = rows["train"], None
    if spec.unlabelled is not None:  # a share of the patches left over, with labels of nothing
        left = np.array([row for row in data.indices("train") if row not in seen_rows])
        left = np.random.default_rng([SEED, 9]).permutation(left)
        seen_rows = np.sort([*seen_rows, *left[: round(spec.unlabelled * len(left))]])
        known = {row: int(label) for row, label in zip(rows["train"], labels["train"], strict=True)}
        soft = torch.zeros(len(seen_rows), len(data.classes))
        for place, row in enumerate(seen_rows):
            if row in known:
                soft[place, known[row]] = len(seen_rows) / len(known)
    wide_at = torch.from_numpy(np.searchsorted(data.indices("train"), seen_rows))
    features = {
        split: torch.from_numpy(
            image_embeddings(encoder.model, encoder.weights_hash, encoder.transform, data, split)
        )[at[split]]
        for split in splits
    }
    if spec.text is None:
        return Whole(spec, data, encoder, features, rows, labels)
    clip, corpus, asked = bench.clip, bench.named_corpus(spec.text.corpus), spec.text.pairing
    images = {s: torch.from_numpy(np.array(bench.retriever_embeddings(spec.dataset, s)))
              for s in splits}  # fmt: skip
    if spec.target in ("image", "noise"):
        noise = np.random.default_rng([SEED, 8]).standard_normal(images["train"].shape, np.float32)
        seen = (images["train"] if spec.target == "image" else torch.from_numpy(noise))[wide_at]
        wide = None if soft is None else (seen_rows, soft, None)
        return Whole(spec, data, encoder, features, rows, labels, clip, images=seen, wide=wide)
    long = spec.text.training.long_text
    texts = torch.from_numpy(np.array(text_embeddings(clip, corpus, long)))
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
    if asked.right is not None:  # psi of an oracle, for a share of the patches
        place = {report: number for number, report in enumerate(corpus.ids)}
        paired = [n for n, split in enumerate(data.samples["split"]) if split != "test"]
        own = {n: place[data.samples["id"][n]] for n in paired}
        for split in splits:
            draws = np.random.default_rng([SEED, 2])
            chosen = draws.integers(len(corpus), size=len(psi[split]))
            right = draws.random(len(chosen)) < asked.right
            for n, row in enumerate(data.indices(split)):
                choice = [own[row]]
                if asked.reports == "own_class":
                    choice = [own[k] for k in paired if data.labels[k] == data.labels[row]]
                if asked.reports == "own_neighbour":
                    unit = F.normalize(texts, dim=-1)
                    close = (unit @ unit.T)[own[row]].argsort(descending=True)
                    choice = [k for k in close.tolist() if k != own[row]][:10]
                report = choice[0] if len(choice) == 1 else draws.choice(choice)
                chosen[n] = report if right[n] else chosen[n]
            psi[split] = torch.from_numpy(chosen)
    drawn_reports = None
    if asked.reports == "redrawn":
        assert spec.training is not None
        shape = (spec.training.epochs, len(images["train"]))
        again = np.random.default_rng([SEED, 6]).integers(len(corpus), size=shape)
        drawn_reports = torch.from_numpy(again)[:, at["train"]]
    wide = None if soft is None else (seen_rows, soft, psi["train"][wide_at])
    psi = {split: psi[split][at[split]] for split in splits}
    return Whole(
        spec, data, encoder, features, rows, labels, clip, corpus.texts, psi, drawn=drawn_reports,
        wide=wide,
    )  # fmt: skip


def hold(desk: Workbench, cell: tuple[str, str], setting: str) -> runs.StoredRun:
    """Run a setting and compare; the run."""
    spec = specs.resolve(desk, *cell, setting, SEED)
    data, whole = desk.dataset(cell[0]), written_out(spec, desk)
    chosen = choose_labels(spec, data)
    for split, rows in whole.rows.items():
        assert chosen[split].rows.tolist() == rows.tolist()
        assert torch.equal(chosen[split].labels, whole.labels[split])
    expected = whole.run()
    run = runs.get_or_run(spec, desk)
    found = torch.from_numpy(run.predictions().filter(like=LOGIT).to_numpy().copy())
    assert found.shape == (len(data.indices("test")), len(data.classes))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if setting == "lora_only":
        looks = run.history()["validation"]
        assert looks.min() < looks.iloc[-1]
    return run


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_is_the_method_written_out(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = toy_bench(monkeypatch, training=TRAINING, text_stage=TEXT, probe=PROBE)
    run, data = hold(desk, CELL, setting), desk.dataset(CELL[0])
    # Deployed, adapters merged, from images alone.
    found = load_classifier(run.folder).probabilities(data.pixels[data.indices("test")])
    logits = torch.from_numpy(run.predictions().filter(like=LOGIT).to_numpy().copy())
    torch.testing.assert_close(found, logits.softmax(dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("setting", OF_THE_PHANTOM)
def test_a_run_of_the_phantom_is_the_method_written_out(setting: str, bench: Workbench) -> None:
    course = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    training = bench.profile.training.model_copy(update=course)
    stage = bench.profile.text_stage.model_copy(update={"epochs": 3, "batch_size": 8})
    changed = bench.profile.model_copy(update={"training": training, "text_stage": stage})
    hold(Workbench(changed), ("phantom-crc", "phantom_vit_s16"), setting)
