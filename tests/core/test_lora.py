"""Adapters: where they go, that each learns, and that merging changes nothing."""

import pytest
import timm
import torch
from torch import nn

from clipit_lib import lora
from clipit_lib.encoders import clips, registry, vision
from clipit_lib.errors import ClipItError
from clipit_lib.lora import ExplicitAttention
from clipit_lib.settings import Lora

SETTINGS = Lora(rank=4, alpha=6)
CLIP = registry.entry("phantom_clip")


def vit() -> nn.Module:
    return timm.create_model(
        "vit_small_patch16_224", num_classes=0, embed_dim=32, depth=2, num_heads=2, img_size=32
    ).eval()


def lite() -> nn.Module:
    return timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()


def text_tower() -> nn.Module:
    return clips.split_open_clip(clips.build_open_clip(CLIP, 32))[1].eval()


CASES = [
    (vit, vision.VIT_TARGETS, lambda: torch.randn(2, 3, 32, 32)),
    (lite, vision.STAND_IN_NETWORK.image_targets, lambda: torch.randn(2, 3, 64, 64)),
    (text_tower, CLIP.text_targets, lambda: torch.randint(1, 900, (2, 77))),
]


@pytest.mark.parametrize(("build", "targets", "inputs"), CASES)
@pytest.mark.parametrize("which", ["attention_mlp", "all"])
def test_every_adapter_learns_and_merging_changes_nothing(build, targets, inputs, which) -> None:
    torch.manual_seed(0)
    plain, adapted = build(), build()
    adapted.load_state_dict(plain.state_dict())
    x = inputs()
    lora.inject(adapted, targets, SETTINGS, which)
    torch.testing.assert_close(adapted(x), plain(x), atol=1e-5, rtol=1e-4)  # B starts at zero
    learned = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    assert learned and all("lora_" in name for name in learned)
    with torch.no_grad():
        for parameter in learned.values():
            parameter.normal_(std=0.05)
    changed = adapted(x)
    changed.square().sum().backward()
    dead = [n for n, p in learned.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead
    assert (changed - plain(x)).abs().max() > 1e-3
    lora.merge(plain, lora.adapters(adapted), SETTINGS)
    torch.testing.assert_close(plain(x), changed, atol=1e-4, rtol=1e-3)


def test_nothing_to_adapt_is_an_error() -> None:
    with pytest.raises(ClipItError, match="no module to adapt"):
        lora.inject(vit(), r"no\.such", SETTINGS)


def test_adapters_of_another_backbone_are_refused() -> None:
    adapted = vit()
    lora.inject(adapted, vision.VIT_TARGETS, SETTINGS)
    with pytest.raises(ClipItError, match="no layer for blocks"):
        lora.merge(lite(), lora.adapters(adapted), SETTINGS)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", [None, "float", "bool", "of each head"])
def test_explicit_attention_is_pytorchs(batch_first: bool, mask: str | None) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, dropout=0.5, batch_first=batch_first).eval()
    nn.init.normal_(theirs.in_proj_bias)
    hidden = torch.ones(5, 5).triu(1).bool()
    each = (torch.rand(2 * 3, 5, 5) < 0.5) & ~torch.eye(5, dtype=torch.bool)
    filled = torch.zeros(5, 5).masked_fill(hidden, -torch.inf)
    masks = {"bool": hidden, "float": filled, "of each head": each}
    chosen = None if mask is None else masks[mask]
    x = torch.randn(2, 5, 12) if batch_first else torch.randn(5, 2, 12)
    expected = theirs(x, x, x, need_weights=False, attn_mask=chosen)[0]
    ours = ExplicitAttention(theirs).eval()(x, x, x, attn_mask=chosen)[0]
    torch.testing.assert_close(ours, expected)


def test_adapters_have_the_rank_and_the_dropout_that_is_asked_for() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5)), torch.randn(4, 6)
    lora.inject(model, "0", Lora(rank=3, alpha=3, dropout=0.5))
    found = lora.adapters(model)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "0.lora_A.default.weight": (3, 6), "0.lora_B.default.weight": (5, 3),
    }  # fmt: skip
    nn.init.normal_(model[0].lora_B.default.weight)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
