"""The paper's architectures with random weights: counts, shapes, and that each adapter learns."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import timm
import torch
from torch import nn

from clipit_lib import lora
from clipit_lib.encoders import clips, registry, vision
from clipit_lib.encoders.vision import checkpoint_gradients
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Lora
from companion import paper
from companion.cost import models
from companion.paper import table1

SETTINGS = Lora(rank=4, alpha=6)
VITS = [name for name in registry.published() if not registry.entry(name).text_targets]


@pytest.fixture(scope="module")
def sizes() -> pd.DataFrame:
    return models.size_table()


def test_parameters_are_those_of_table_5(sizes: pd.DataFrame) -> None:
    printed = sizes[sizes["table5"] != ""].set_index("table5")
    # Every row of Table 5 has a model here, and agrees in whole millions, as it is printed.
    assert set(printed.index) == set(paper.parameters()["backbone"])
    assert (printed["parameters_M"].round() == printed["table5_M"]).all()
    # Section 5: a vision tower of 17 to 17.6, and CONCH's at 224 pixels among them; ours counts
    # attention products and the pooler for captions too, which together make 5%.
    conch = printed.loc["CONCH_vision"]
    assert conch["gmacs_224"] == pytest.approx(17.6, rel=0.05)
    assert conch["gmacs"] > 4 * conch["gmacs_224"]  # 448 pixels have four times the patches
    assert printed.loc["ViT-B16", "gmacs"] == pytest.approx(17.6, abs=0.05)


def test_stated_facts_are_the_counted_ones(sizes: pd.DataFrame) -> None:
    whole = sizes[sizes["part"] == models.WHOLE].set_index("model")["parameters_M"]
    used = sizes[sizes["part"] == models.USED].set_index("model")
    for name, model in registry.published().items():
        counted = whole.get(name, used.loc[name, "parameters_M"])
        assert model.parameters == round(1e6 * counted), name
        assert model.gmacs == pytest.approx(used.loc[name, "gmacs"], abs=0.051), name


def test_every_published_model_is_registered_and_printed() -> None:
    table = models.source_table().set_index("model")
    assert list(table.index) == list(registry.published())
    assert table.loc["uni", "normalisation"] == "ImageNet" and table.loc["uni", "size"] == 224
    assert set(table.loc[VITS[1:], "normalisation"]) == {"0.5 / 0.5"}
    assert table.loc["conch", "size"] == 448 and table.loc["conch", "access"] == "on request"
    assert (table["licence"] != "").all()
    # Every vision backbone of Table 1 has one that stands for it.
    assert set(table1()["backbone"]) == {registry.namesake(name) for name in VITS}
    assert not any(registry.namesake(name) for name in ("conch", "phantom_clip"))
    with pytest.raises(ClipItError, match=r"unknown backbone 'uni3'.*Known: clip, conch"):
        registry.entry("uni3")


def short(name: str) -> nn.Module:
    """One of the registry's ViTs at its real width and options, two blocks deep."""
    row = registry.entry(name)
    size = {} if "img_size" in row.options else {"img_size": 64}
    return timm.create_model(row.architecture, num_classes=0, depth=2, **row.options, **size)


def text(name: str) -> Callable[[], nn.Module]:
    row = registry.clip_entry(name)
    library = clips.LIBRARIES[row.library]
    return lambda: library.split(library.build(row, None, None)).text


def half(name: str) -> Callable[[], nn.Module]:
    return lambda: registry.untrained_backbone(name, None, None).model


CASES = {
    **{
        name: (lambda name=name: short(name), vision.VIT_TARGETS, (1, 3, 64, 64), 2 * 4)
        for name in VITS if name not in ("uni", "kaiko_vitl14")
    },
    "kaiko_vitl14": (lambda: short("kaiko_vitl14"), vision.VIT_TARGETS, (1, 3, 56, 56), 2 * 4),
    "quiltnet image": (half("quiltnet"), registry.OPEN_CLIP_TARGETS[0], (1, 3, 224, 224), 12 * 4),
    "quiltnet text": (text("quiltnet"), registry.OPEN_CLIP_TARGETS[1], (1, 77), 12 * 4),
    "plip image": (half("plip"), registry.entry("plip").image_targets, (1, 3, 224, 224), 12 * 6),
    "plip text": (text("plip"), registry.entry("plip").text_targets, (1, 77), 12 * 6),
}  # fmt: skip


def sample(shape: tuple[int, ...]) -> torch.Tensor:
    ids = torch.randint(1, 900, shape)
    if len(shape) == 2:
        ids[:, -1] = 49407  # the end of a text, where it is pooled
        return ids
    return torch.randn(shape)


def check_adapters(model: nn.Module, targets: str, x: torch.Tensor, adapted: int) -> None:
    """Every adapter is where it should be and learns; merged, the model answers the same."""
    width = model(x).shape[1]
    lora.inject(model, targets, SETTINGS)
    layers = {n for n, m in model.named_modules() if hasattr(m, "lora_A") and "lora_" not in n}
    assert len(layers) == adapted
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(learned) == 2 * adapted and all("lora_" in name for name in learned)
    optimiser = torch.optim.SGD(learned.values(), lr=1.0)
    model(x).square().sum().backward()
    silent = [n for n, p in learned.items() if "lora_B" in n and not p.grad.abs().sum() > 0]
    assert not silent  # by name: which adapter's B the first step leaves at zero
    optimiser.step()
    state = lora.adapters(model)
    with torch.inference_mode():
        changed = model(x)
    assert changed.shape == (1, width)
    for module in model.modules():  # peft's own merge is the second opinion on ours
        if hasattr(module, "lora_A") and hasattr(module, "merge"):
            module.merge()
    with torch.inference_mode():
        torch.testing.assert_close(model(x), changed, atol=1e-4, rtol=1e-3)
    assert state.keys() == learned.keys()


@pytest.mark.parametrize("name", CASES)
def test_every_adapter_of_a_real_architecture_learns(name: str) -> None:
    build, targets, shape, adapted = CASES[name]
    torch.manual_seed(0)
    model = build().eval()
    if name == "kaiko_vitl14":  # four registers and CLS before the patches of 224 pixels
        assert model.num_prefix_tokens == 5 and model.patch_embed.num_patches == 256
    check_adapters(model, targets, sample(shape), adapted)


def test_the_whole_of_uni_learns() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = registry.untrained_backbone("uni", None, None).model
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.uniform_(-0.03, 0.03)
    assert "blocks.0.ls1.gamma" in model.state_dict()  # layer scale: `init_values` was passed on
    check_adapters(model.eval(), vision.VIT_TARGETS, torch.randn(1, 3, 224, 224), 24 * 4)


def test_merging_ours_is_the_adapted_model() -> None:
    for name in ("quiltnet image", "plip text"):
        build, targets, shape, _ = CASES[name]
        torch.manual_seed(0)
        plain, adapted, x = build().eval(), build().eval(), sample(shape)
        adapted.load_state_dict(plain.state_dict())
        lora.inject(adapted, targets, SETTINGS)
        with torch.no_grad():
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_" in parameter_name:
                    parameter.normal_(std=0.03)
            expected = adapted(x)
            lora.merge(plain, lora.adapters(adapted), SETTINGS)
            torch.testing.assert_close(plain(x), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["kaiko_vits16", "quiltnet image", "plip image"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    build, targets, shape, _ = CASES[name]
    torch.manual_seed(0)
    model, x = build(), sample(shape)
    lora.inject(model.train(), targets, SETTINGS)
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in learned.values():
            parameter.normal_(std=0.05)
    gradients = []
    for again in (False, True):
        if again:
            checkpoint_gradients(model)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in learned.items()})
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


def test_a_model_without_checkpointing_says_so() -> None:
    with pytest.raises(ClipItError, match=r"no gradient checkpointing.*without"):
        checkpoint_gradients(nn.Sequential(nn.Linear(2, 2)))
