"""What the ablations change: the classifier, the words, the prompts; nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from clipit_lib import losses, prompts, runs
from clipit_lib import model as variants
from clipit_lib import text as text_stage
from clipit_lib.data.reports import TEMPLATES, drop_from_all, drop_words
from clipit_lib.encoders.encoder import embed_texts
from clipit_lib.inputs import choose_labels, paired_texts
from clipit_lib.settings import Contrastive, PhantomPretraining, TextSpec
from clipit_lib.training import Patches
from companion import specs
from companion import train_encoders as training
from companion.profile import Workbench
from companion.train_encoders import COLOURS, draw_shapes, supervised_contrastive

CELL = ("phantom-pcam", "phantom_vit_s16")


@given(st.lists(st.text("abc", min_size=1), min_size=1, max_size=40), st.floats(0, 0.99))
def test_dropping_words_keeps_order_and_the_right_number(words: list[str], share: float) -> None:
    left = drop_words(" ".join(words), share, np.random.default_rng(0)).split()
    assert len(left) == max(1, len(words) - round(share * len(words)))
    rest = iter(words)
    assert all(word in rest for word in left)  # a subsequence


def test_words_are_dropped_anew_each_epoch() -> None:
    texts = (" ".join(map(str, range(50))),) * 2
    first, again, later = (drop_from_all(texts, 0.3, 0, epoch) for epoch in (0, 0, 1))
    assert first == again != later
    assert first[0] != first[1] and len(first[0].split()) == 35


def text_spec(bench: Workbench, setting: str, backbone: str = CELL[1]) -> TextSpec:
    spec = specs.resolve(bench, CELL[0], backbone, setting, 0).text
    assert spec is not None
    return spec


def test_dropped_targets_differ_by_epoch_and_undropped_are_the_stage_ones(bench: Workbench) -> None:
    spec = text_spec(bench, "clip_it/word_dropout_50")
    labels = choose_labels(spec, bench.dataset(CELL[0]))
    paired, stage = text_stage.stage_one(spec, bench, labels)
    tower = text_stage.tuned_tower(spec, bench.clip, stage).eval()
    asked, rows = (bench.clip, tower, paired.texts), torch.arange(5)
    two = [text_stage.dropped_features(spec, *asked, rows, epoch) for epoch in (0, 1)]
    assert two[0].shape == (5, bench.clip.width)
    assert (two[0] - two[1]).abs().max() > 1e-3
    whole = spec.model_copy(update={"word_dropout": 0.0})
    kept = text_stage.dropped_features(whole, *asked, rows, 0)
    torch.testing.assert_close(kept, stage.features[:5], atol=1e-4, rtol=1e-4)


def built(bench: Workbench, setting: str) -> nn.Module:
    spec = specs.resolve(bench, *CELL, setting, 0)
    torch.manual_seed(0)
    return variants.build_model(spec, nn.Flatten(), 12, 2, 7)


def test_early_fusion_is_one_linear_layer_on_both_features(bench: Workbench) -> None:
    model = built(bench, "clip_it/early_fusion")
    nn.init.normal_(model.text_columns.weight)
    images = torch.randn(5, 3, 2, 2)
    features = images.flatten(1)
    text = F.normalize(features @ model.distillation.weight.T + model.distillation.bias, dim=-1)
    whole = torch.cat([model.vision_head.weight, model.text_columns.weight], dim=1)
    expected = torch.cat([features, text], dim=1) @ whole.T + model.vision_head.bias
    torch.testing.assert_close(model(images).logits, expected)


def test_direct_distillation_answers_from_vision_alone(bench: Workbench) -> None:
    model = built(bench, "clip_it/direct_distillation")
    images = torch.randn(5, 3, 2, 2)
    before = model(images)
    nn.init.normal_(model.distillation.weight)
    after = model(images)
    torch.testing.assert_close(before.logits, after.logits)
    assert (before.distilled - after.distilled).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("setting", "vision", "text"),
    [
        ("clip_it/without_lora", False, False),
        ("clip_it/lora_vision_only", True, False),
        ("clip_it/lora_text_only", False, True),
        ("clip_it", True, True),
    ],
)
def test_adapters_are_where_the_setting_puts_them(
    bench: Workbench, setting: str, vision: bool, text: bool
) -> None:
    spec = specs.resolve(bench, *CELL, setting, 0)
    state = load_file(runs.get_or_run(spec, bench).folder / "model.safetensors")
    assert any("lora_" in name for name in state) == vision
    assert spec.text is not None
    _, stage = text_stage.stage_one(spec.text, bench, choose_labels(spec, bench.dataset(CELL[0])))
    assert bool(stage.adapters) == text
    untouched = not text
    own = bench.clip
    plain = embed_texts(own.text_tower, own.tokenizer, bench.corpus(CELL[0]).texts, "truncate")
    assert torch.allclose(plain, stage.features, atol=1e-5) == untouched


def test_text_runs_answer_from_the_paired_text_alone(bench: Workbench) -> None:
    spec = specs.resolve(bench, CELL[0], "phantom_clip", "text", 0)
    run = runs.get_or_run(spec, bench)
    logits = run.predictions().filter(like="logit_").to_numpy()
    chosen = bench.pairs(CELL[0], "test", 1).reports[:, 0]
    for report in np.unique(chosen):
        rows = logits[chosen == report]
        assert (rows == rows[0]).all()
    assert len(np.unique(logits, axis=0)) == len(np.unique(chosen))


def test_the_nearest_prompt_is_the_zero_shot_answer_in_words(bench: Workbench) -> None:
    spec = text_spec(bench, "text/prompts", "phantom_clip")
    paired = paired_texts(spec, bench, ["test"])
    names = bench.dataset(CELL[0]).class_texts
    assert len(paired.texts) == 22 * len(names)
    assert paired.texts[0] == TEMPLATES["conch"][0].format(names[0])
    assert paired.texts[22] == TEMPLATES["conch"][0].format(names[1])
    assert paired.chosen["test"].max() < len(paired.texts)


def test_classes_of_prompts_follow_the_data_set(bench: Workbench) -> None:
    texts = bench.dataset("phantom-crc").class_texts
    images = bench.retriever_embeddings("phantom-crc", "test")
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    forward, backward = (
        prompts.PromptClassifier(bench.clip, Contrastive(class_texts=each)).eval()
        for each in (texts, texts[::-1])
    )
    with torch.inference_mode():
        np.testing.assert_allclose(
            forward.scores(images)[:, ::-1], backward.scores(images), atol=1e-4
        )


@pytest.mark.parametrize("same_class", ["left_out", "negatives"])
def test_contrastive_loss_is_the_plain_sum_over_pairs(bench: Workbench, same_class: str) -> None:
    data = bench.dataset(CELL[0])
    settings = Contrastive(same_class=same_class, class_texts=data.class_texts)
    model = prompts.PromptClassifier(bench.clip, settings).eval()
    rows = data.indices("train")
    labels = torch.from_numpy(data.labels[rows])
    patches = Patches(data.pixels, rows, labels, bench.clip.transform)
    task = prompts.ContrastiveTask(model, patches, patches, augmented=False)
    few = torch.arange(8)
    with torch.inference_mode():
        ours = float(task.loss(model, few, torch.Generator())["contrastive"])
        image, text = model(patches.batch(few))
    y = labels[few]
    scores = (image @ text[y].T / 0.07).double()
    total = 0.0
    for table in (scores, scores.T):
        for i in range(8):
            rivals = [j for j in range(8) if j == i or same_class == "negatives" or y[j] != y[i]]
            total -= float(table[i, i] - torch.logsumexp(table[i, rivals], 0)) / 8
    assert ours == pytest.approx(total / 2, rel=1e-4)


def test_same_class_negatives_put_a_floor_under_the_loss() -> None:
    """With identical prompts a patch cannot be told from its class mates."""
    groups = torch.tensor([0, 0, 0, 1])
    perfect = torch.eye(2)[groups]
    taken = float(losses.contrastive(perfect, perfect, 100.0))
    assert taken == pytest.approx(0.75 * np.log(3), abs=1e-4)
    assert float(losses.contrastive(perfect, perfect, 100.0, groups)) == pytest.approx(0, abs=1e-4)


def test_sharing_the_positive_mass_would_change_nothing() -> None:
    """Why same-class pairs are left out and not made positives: the sum would be the same."""
    rng = torch.Generator().manual_seed(0)
    groups = torch.tensor([0, 1, 0, 1, 1])
    images = F.normalize(torch.randn(5, 3, generator=rng), dim=-1)
    texts = F.normalize(torch.randn(2, 3, generator=rng), dim=-1)[groups]
    shared = supervised_contrastive(images, texts, 5.0, groups)
    torch.testing.assert_close(shared, losses.contrastive(images, texts, 5.0))
    assert losses.contrastive(images, texts, 5.0, groups) < shared


def test_shapes_have_captions_that_say_what_is_drawn() -> None:
    pixels, captions = draw_shapes(40, 32, 0)
    again, same = draw_shapes(10, 32, 0)
    assert (pixels[:10] == again).all() and captions[:10] == same
    assert pixels.shape == (40, 32, 32, 3) and pixels.std() > 20
    for image, caption in zip(pixels, captions, strict=True):
        what, ground = caption.rsplit(" on a ", 1)
        colour = next(name for name in COLOURS if f" {name} " in what)
        for name in (ground.split()[0], colour):
            near = np.linalg.norm(image - np.array(COLOURS[name], float), axis=-1) < 45
            assert near.mean() > 0.01, (caption, name)


def test_noisy_captions_move_half_and_keep_all() -> None:
    settings = PhantomPretraining(images=64, clip_epochs=1, vision_epochs=1, side=16)
    pixels, clean = training.patches_with_captions(settings)
    same, noisy = training.patches_with_noisy_captions(settings)
    assert (pixels == same).all() and sorted(noisy) == sorted(clean)
    moved = sum(a != b for a, b in zip(clean, noisy, strict=True))
    assert 24 <= moved <= 32
