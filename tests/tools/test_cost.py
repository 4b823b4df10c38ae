"""Counts against formulas written from the architecture, and costs of what is deployed."""

import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from clipit_lib import runs
from clipit_lib.data.reports import TEMPLATES, prompts
from clipit_lib.errors import ClipItError
from clipit_lib.model import ClipIt, VisionClassifier
from companion import cost, paper, specs
from companion.cost import (
    CACHED,
    ENCODED,
    MERGED,
    UNIMODAL,
    UNMERGED,
    Variant,
    cost_columns,
    count_flops,
    count_parameters,
    deployed_cost,
    flops_per_image,
)
from companion.figures.accuracy import inference_cost_figure
from companion.profile import Workbench


def vit_macs(side: int, patch: int, width: int, depth: int) -> int:
    """Multiply-adds of a ViT without head: patches, then qkv, scores, mixing, projection, MLP."""
    patches = (side // patch) ** 2
    n = patches + 1  # the class token
    block = 3 * n * width**2 + 2 * n**2 * width + n * width**2 + 8 * n * width**2
    return patches * 3 * patch**2 * width + depth * block


def vit_parameters(side: int, patch: int, width: int, depth: int) -> int:
    """Weights and biases of the same, with positions, the class token and normalisations."""
    tokens = (side // patch) ** 2 + 1
    block = 12 * width**2 + (3 + 1 + 4 + 1) * width + 4 * width
    return 3 * patch**2 * width + width + tokens * width + width + depth * block + 2 * width


def heads_macs(width: int, text: int, classes: int) -> int:
    """h_v, h_d, both layers of h_t, g."""
    return width * classes + width * text + text * text + text * classes + 2 * classes**2


def heads_parameters(width: int, text: int, classes: int) -> int:
    biases = classes + text + (text + classes) + classes
    return heads_macs(width, text, classes) + biases


def small_vit(side: int = 32, patch: int = 8, width: int = 64, depth: int = 2) -> nn.Module:
    model: nn.Module = timm.create_model(
        "vit_small_patch16_224", num_classes=0, img_size=side, patch_size=patch,
        embed_dim=width, depth=depth, num_heads=2,
    )  # fmt: skip
    return model.eval()


def test_attention_is_counted_on_this_machine() -> None:
    """The counter alone misses the fused kernel of a CPU."""
    q = torch.randn(1, 3, 17, 32)
    products = 2 * 17 * 17 * 32 * 3  # scores and mixing, three heads
    for mask in (None, torch.zeros(17, 17)):
        flops = count_flops(lambda mask=mask: F.scaled_dot_product_attention(q, q, q, mask))
        assert flops == 2 * products


def test_grouped_convolutions_are_counted_by_group() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=4)
    flops = count_flops(lambda: layer(torch.zeros(2, 8, 10, 10)))
    assert flops == 2 * 2 * 10 * 10 * 16 * (8 // 4) * 9


@pytest.mark.parametrize(
    ("side", "patch", "width", "depth"), [(32, 8, 64, 2), (48, 16, 96, 3), (64, 8, 32, 1)]
)
def test_vit_by_hand(side: int, patch: int, width: int, depth: int) -> None:
    model = VisionClassifier(small_vit(side, patch, width, depth), width, 4).eval()
    macs = vit_macs(side, patch, width, depth) + width * 4
    assert flops_per_image(model, side) == pytest.approx(2 * macs, rel=1e-3)
    held = vit_parameters(side, patch, width, depth) + width * 4 + 4
    assert count_parameters(model) == held


def test_heads_of_clip_it_by_hand() -> None:
    backbone = small_vit()
    model = ClipIt(backbone, 64, 4, 48).eval()
    added = flops_per_image(model, 32) - flops_per_image(backbone, 32)
    assert added == 2 * heads_macs(64, 48, 4)
    held = count_parameters(model) - count_parameters(backbone)
    assert held == heads_parameters(64, 48, 4)


def test_published_models_are_those_of_the_paper() -> None:
    """ViT-B/16 at 224 pixels, LoRA of rank 16, and 44 prompts of 128 tokens, all by hand."""
    counts = cost.cost_table(cost.published_variants(), batches=(1,))
    macs = dict(zip(counts["variant"], counts["flops"] / 2, strict=True))
    vit = vit_macs(224, 16, 768, 12)
    adapters = 12 * 197 * 16 * sum((768 + 3 * 768, 768 + 768, 768 + 3072, 3072 + 768))
    prompt = 12 * (12 * 768**2 * 128 + 2 * 128**2 * 768) + 768 * 512
    assert macs[UNIMODAL] == pytest.approx(vit + 768 * 2, rel=1e-3)
    assert macs[MERGED] == pytest.approx(vit + heads_macs(768, 512, 2), rel=1e-3)
    assert macs[UNMERGED] - macs[MERGED] == pytest.approx(adapters, rel=1e-3)
    assert (macs[ENCODED] - macs[CACHED]) / 44 == pytest.approx(prompt, rel=1e-3)
    assert macs[ENCODED] == pytest.approx(505e9, rel=0.01)  # what the paper prints
    said = cost.paper_sentence(counts)
    assert "44 prompts of 11.17" in said and "29% above" in said and "(printed: 0.001)" in said


def test_printed_overheads_follow_from_the_printed_times() -> None:
    times = paper.printed("compute").set_index("variant")["latency_ms"] / 33.3
    assert times["clip_it"] == pytest.approx(1.29, abs=0.01)
    assert times["clip"] == pytest.approx(4.76, abs=0.01)


@pytest.fixture(scope="module")
def models(bench: Workbench) -> dict[str, Variant]:
    stored = [
        runs.get_or_run(specs.resolve(bench, "phantom-pcam", "phantom_vit_s16", name, 0), bench)
        for name in ("unimodal", "clip_it")
    ]
    return cost.variants(*stored, bench)


def test_two_ways_to_deploy_one_model_give_the_same_answers(models: dict[str, Variant]) -> None:
    table = cost.largest_differences(models)
    assert (table["largest_difference"] < 1e-4 * table["largest_answer"]).all()


def test_merged_and_cached_hold_nothing_more_than_they_need(
    models: dict[str, Variant], bench: Workbench
) -> None:
    held = {name: count_parameters(variant.model) for name, variant in models.items()}
    trained = {name: count_parameters(each.model, trainable=True) for name, each in models.items()}
    backbone = vit_parameters(32, 16, 64, 4)
    text = bench.clip.width
    adapters = 4 * 4 * sum((64 + 192, 64 + 64, 64 + 256, 256 + 64))  # blocks x rank x sides
    assert held[UNIMODAL] == backbone + 64 * 2 + 2
    assert trained[UNIMODAL] == 64 * 2 + 2
    assert held[MERGED] == backbone + heads_parameters(64, text, 2)
    assert held[UNMERGED] == held[MERGED] + adapters
    assert trained[UNMERGED] == adapters + heads_parameters(64, text, 2)
    tower = count_parameters(bench.clip.image_tower)
    assert held[CACHED] == tower + 2 * text
    assert held[ENCODED] == tower + count_parameters(bench.clip.text_tower)


def test_a_batch_shares_its_prompts(models: dict[str, Variant]) -> None:
    flops = cost.cost_table(models, batches=(1, 4)).pivot(
        index="variant", columns="batch", values="flops"
    )
    image = flops.loc[CACHED, 1] - 2 * 64 * 2  # the tower alone
    prompts = flops.loc[ENCODED, 1] - image
    assert flops.loc[ENCODED, 4] - image == pytest.approx(prompts / 4, rel=1e-3)
    others = flops.drop(index=ENCODED)
    assert (others[1] == others[4]).all()


@pytest.mark.parametrize("setting", ["unimodal", "lora_only", "clip_it", "clip_it/early_fusion",
                                     "clip_it/direct_distillation"])  # fmt: skip
def test_deployed_cost_of_what_needs_no_text(bench: Workbench, setting: str) -> None:
    spec = specs.resolve(bench, "phantom-crc", "phantom_vit_s16", setting, 0)
    text, classes = bench.clip.width, 9
    vit, weights = vit_macs(32, 16, 64, 4), vit_parameters(32, 16, 64, 4)
    probe = 64 * classes
    extra = {
        "clip_it": (heads_macs(64, text, classes), heads_parameters(64, text, classes)),
        "clip_it/early_fusion": (
            probe + 64 * text + text * classes, probe + classes + 64 * text + text + text * classes
        ),
    }.get(setting, (probe, probe + classes))  # fmt: skip
    cost = deployed_cost(spec, bench)
    assert cost.flops == pytest.approx(2 * (vit + extra[0]), rel=1e-3)
    assert cost.parameters == weights + extra[1]


@pytest.mark.parametrize("setting", ["contrastive", "zero_shot"])
def test_deployed_cost_of_prompts(bench: Workbench, setting: str) -> None:
    spec = specs.resolve(bench, "phantom-crc", bench.profile.retriever, setting, 0)
    clip = bench.clip
    image, text = (count_parameters(t) for t in (clip.image_tower, clip.text_tower))
    kept, both = deployed_cost(spec, bench), deployed_cost(spec, bench, "encoded")
    assert (kept.parameters, both.parameters) == (image + 9 * clip.width, image + text)
    filled = prompts(bench.dataset("phantom-crc").class_texts, TEMPLATES["conch"])
    # What is padding in every prompt is not computed.
    context = max(clip.tokenizer.lengths([text for of_class in filled for text in of_class]))
    width, layers = 96, 3  # of the phantom's text tower
    prompt = layers * (12 * width**2 * context + 2 * context**2 * width) + width * clip.width
    assert both.flops - kept.flops == pytest.approx(2 * 9 * 22 * prompt, rel=1e-3)


def test_a_text_classifier_has_no_cost_for_an_image(bench: Workbench) -> None:
    spec = specs.resolve(bench, "phantom-pcam", bench.profile.retriever, "text", 0)
    with pytest.raises(ClipItError, match="no image"):
        deployed_cost(spec, bench)


def test_seeds_of_a_cell_cost_the_same_and_keep_their_names(bench: Workbench) -> None:
    chosen = [
        specs.resolve(bench, "phantom-pcam", "phantom_vit_s16", "clip_it", seed) for seed in (0, 1)
    ]
    table = cost_columns(chosen, bench)
    assert table["run"].tolist() == [spec.key for spec in chosen]
    assert table.drop(columns="run").nunique().eq(1).all()
    assert (table["gflops"] == table["flops"] / 1e9).all()
    assert (table["parameters_deployed"] == table["parameters_encoded"]).all()


def test_every_call_is_timed_once_a_round_after_a_call_that_is_not() -> None:
    made: list[str] = []
    calls = {name: lambda name=name: made.append(name) for name in "abc"}
    times = cost.interleaved(calls, rounds=5)
    assert times.shape == (5, 3) and list(times.columns) == ["a", "b", "c"]
    rounds = [made[i : i + 6] for i in range(0, len(made), 6)]
    assert len(rounds) == 5 + cost.WARM_UP
    assert all(one[::2] == one[1::2] and sorted(one[::2]) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_summary_by_hand() -> None:
    times = pd.DataFrame({"base": [2.0, 2.0, 2.0, 2.0, 10.0], "other": [1.0, 3.0, 5.0, 7.0, 9.0]})
    table = cost.latency_summary(times, "base").set_index("variant")
    assert table.loc["other", ["low_ms", "median_ms", "high_ms"]].tolist() == [3, 5, 7]
    assert table.loc["other", ["ratio_low", "ratio", "ratio_high"]].tolist() == [1.5, 2.5, 3.5]
    assert table["rounds"].eq(5).all() and table.loc["base", "ratio"] == 1


def test_words_and_figure_say_what_the_tables_hold() -> None:
    costs = pd.DataFrame(
        {
            "variant": [UNIMODAL, UNMERGED, MERGED, ENCODED, CACHED], "batch": 1,
            "flops": [1000, 1100, 1010, 9000, 900], "parameters": [50, 70, 60, 300, 100],
        }
    ).assign(flops_ratio=lambda frame: frame["flops"] / 1000)  # fmt: skip
    said = cost.count_sentences(costs)
    assert "runs 1.0% more" in said and "holds 10 more" in said and "10.0% more operations" in said
    assert "10.0 times the operations" in said and "holds 200 more" in said
    times = pd.DataFrame(
        dict(zip(costs["variant"], [[4.0], [6.0], [4.0], [40.0], [3.0]], strict=True))
    )
    table = cost.latency_summary(times, UNIMODAL)
    table.insert(1, "batch", 1)
    said = cost.time_sentence(table, "A processor, 1 thread, PyTorch 2.0")
    assert "1 interleaved rounds on A processor, 1 thread, PyTorch 2.0" in said
    assert "unmerged 1.50" in said and "encoded 10.00" in said
    figure = inference_cost_figure(costs, table)
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert {"1.50", "10.00", "9.00", "0.90"} <= labels
    assert {"1.29", "4.76", "29.71"} <= {text.get_text() for text in figure.axes[1].texts}
