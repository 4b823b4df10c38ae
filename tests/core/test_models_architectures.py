"""The paper's architectures with random weights: counts, shapes, and that each adapter learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from torch import nn

from clipit_lib import lora
from clipit_lib.encoders import clips, registry, vision
from clipit_lib.encoders.vision import checkpoint_gradients
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Lora
from companion import paper, paths
from companion.conch import Conch, untrained_backbone
from companion.cost import count_parameters, flops_per_image
from companion.tables import namesake

STATISTICS = {
    vision.HALF: "0.5 / 0.5", vision.IMAGENET[0]: "ImageNet", vision.OPENAI_CLIP[0]: "OpenAI CLIP",
    vision.OPTIMUS[0]: "H-optimus",
}  # fmt: skip
SETTINGS = Lora(rank=4, alpha=6)
QUILTNET = registry.entry("quiltnet")
VITS = [name for name in registry.published() if not registry.entry(name).text_targets]


WHOLE, SIZED_VISION, USED = "whole", "image half", "image half as used"
# Rows of Table 5: what it calls a model, ours, and which part of it is meant.
TABLE5 = {
    "CONCH": ("conch", WHOLE), "UNI": ("uni", USED), "DINO_ViT-L14": ("kaiko_vitl14", USED),
    "QUILTNet": ("quiltnet", WHOLE), "CONCH_vision": ("conch", SIZED_VISION),
    "QUILTNet_vision": ("quiltnet", USED), "ViT-B16": ("kaiko_vitb16", USED),
    "ViT-B8": ("kaiko_vitb8", USED), "ViT-S16": ("kaiko_vits16", USED),
    "ViT-S8": ("kaiko_vits8", USED),
}  # fmt: skip


Sizes = dict[tuple[str, str], dict[str, float]]


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    """By model and part, on shapes alone: millions of parameters, input size, and multiply-adds in
    10^9 at that size and at 224 pixels; of whole CLIPs none, which depend on what is encoded."""
    rows: Sizes = {}
    for name in registry.published():
        with torch.device("meta"):
            encoder, entry = untrained_backbone(name, None, None), registry.entry(name)
            parts: dict[str, nn.Module] = {USED: encoder.model}  # without CONCH's caption pooler
            if entry.text_targets:
                library = clips.LIBRARIES[entry.library]
                parts[WHOLE] = Conch() if name == "conch" else library.build(entry, None, None)
            if name == "conch":
                parts[SIZED_VISION] = Conch().visual
        for part, model in parts.items():
            size = encoder.transform.size
            row = {"parameters_M": count_parameters(model) / 1e6, "size": size}
            for key, side in () if part == WHOLE else (("gmacs", size), ("gmacs_224", 224)):
                row[key] = flops_per_image(model.eval(), side) / 2e9
            rows[name, part] = row
    return rows


@pytest.mark.slow
def test_parameters_are_those_of_table_5(sizes: Sizes) -> None:
    table5 = paper.printed("table5").set_index("backbone")["parameters_M"]
    # Every row of Table 5 has a model here, and agrees in whole millions, as it is printed.
    printed = {name: sizes[which] for name, which in TABLE5.items()}
    assert {name: round(each["parameters_M"]) for name, each in printed.items()} == dict(table5)
    # Section 5: a vision tower of 17 to 17.6, and CONCH's at 224 pixels among them; ours counts
    # attention products and the pooler for captions too, which together make 5%.
    conch = printed["CONCH_vision"]
    assert conch["gmacs_224"] == pytest.approx(17.6, rel=0.05)
    assert conch["gmacs"] > 4 * conch["gmacs_224"]  # 448 pixels have four times the patches
    assert printed["ViT-B16"]["gmacs"] == pytest.approx(17.6, abs=0.05)


@pytest.mark.slow
def test_stated_facts_are_the_counted_ones(sizes: Sizes) -> None:
    for name, model in registry.published().items():
        used = sizes[name, USED]
        counted = sizes.get((name, WHOLE), used)["parameters_M"]
        assert model.parameters == round(1e6 * counted), name
        assert model.gmacs == pytest.approx(used["gmacs"], abs=0.051), name


DOCS = (paths.repository() / "docs" / "models.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_the_page_on_models_states_what_is_counted(sizes: Sizes) -> None:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOCS]
    rows = {tuple(cells[:2]): cells for cells in lines if tuple(cells[:2]) in sizes}
    assert list(rows) == list(sizes)
    called = {which: name for name, which in TABLE5.items()}
    for which, (*_, millions, table5, _, size, gmacs, gmacs_224) in rows.items():
        counted = sizes[which]
        said = [f"{counted['parameters_M']:.1f}", called.get(which, ""), f"{counted['size']}"]
        assert [millions, table5, size] == said
        for key, cell in (("gmacs", gmacs), ("gmacs_224", gmacs_224)):
            assert (float(cell) if cell else None) == pytest.approx(counted.get(key), abs=0.0051)


def test_every_published_model_is_registered_and_printed() -> None:
    for name, model in registry.published().items():
        transform = registry.entry(name).transform(None)
        stated = [
            name, f"{model.repo}, {model.file}", model.revision[:12], model.licence, model.terms,
            "on request" if model.gated else "open", str(transform.size),
            STATISTICS[transform.mean], f"{model.parameters / 1e6:.1f} M", f"{model.gmacs:.1f}",
            model.doubt or "none",
        ]  # fmt: skip
        assert f"| {' | '.join(stated)} |" in DOCS and model.licence
        assert not name.startswith("kaiko") or transform.mean == vision.HALF
    # Every vision backbone of Table 1 has one that stands for it.
    assert set(paper.printed("table1")["backbone"]) == {*map(namesake, VITS)} - {None}
    assert not any(namesake(name) for name in ("conch", "phantom_clip", "uni2_h"))
    with pytest.raises(ClipItError, match=r"unknown backbone 'uni3'.*Known: clip, conch"):
        registry.entry("uni3")


def short(name: str, **changed: int) -> nn.Module:
    """One of the registry's ViTs at its real width and options, two blocks deep."""
    row = registry.entry(name)
    options = {"img_size": 64, **row.options, "depth": 2, **changed}
    return timm.create_model(row.architecture, num_classes=0, **options)


# How others build them, by timm's architecture and by arguments that are written out.
SWIGLU = {"init_values": 1e-5, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "img_size": 224}
ELSEWHERE = {
    "uni2_h": ("vit_giant_patch14_224", SWIGLU | {
        "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8}),
    "virchow2": ("vit_huge_patch14_224", SWIGLU | {"reg_tokens": 4, "mlp_ratio": 5.3375}),
    "h_optimus_1": ("vit_giant_patch14_224", SWIGLU | {
        "patch_size": 14, "depth": 40, "num_heads": 24, "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 4}),
    "h0_mini": ("vit_base_patch14_reg4_dinov2", SWIGLU | {
        "mlp_ratio": 5.33334, "reg_tokens": 4, "dynamic_img_size": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.slow
def test_newer_models_are_those_of_other_builds(name: str) -> None:
    """The same weights by name and shape; two blocks deep, the same answer."""
    architecture, options = ELSEWHERE[name]
    with torch.device("meta"):
        theirs = timm.create_model(architecture, num_classes=0, **options)
        ours = registry.build_backbone(name, None, None).model
    shapes = [{k: v.shape for k, v in each.state_dict().items()} for each in (theirs, ours)]
    assert shapes[0] == shapes[1]
    theirs = timm.create_model(architecture, num_classes=0, **options | {"depth": 2}).eval()
    ours, images = short(name).eval(), torch.randn(1, 3, 224, 224)
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


def text(name: str, depth: int | None) -> Callable[[], nn.Module]:
    row = registry.entry(name, True, depth)
    library = clips.LIBRARIES[row.library]
    return lambda: library.split(library.build(row, None, None))[1]


def half(name: str, depth: int | None) -> Callable[[], nn.Module]:
    return lambda: registry.build_backbone(name, None, None, depth=depth).model


# How it is built, which layers are adapted, what it reads, and how many adapters there are.
Case = tuple[Callable[[], nn.Module], str, tuple[int, ...], int]


def clip_halves(depth: int | None) -> dict[str, Case]:
    """Towers of the CLIPs at their real width, of so many blocks; None: all 12."""
    plip, blocks = registry.entry("plip"), depth or 12
    quilt, images, ids = QUILTNET, (1, 3, 224, 224), (1, 77)
    return {
        "quiltnet image": (half("quiltnet", depth), quilt.image_targets, images, blocks * 4),
        "quiltnet text": (text("quiltnet", depth), quilt.text_targets, ids, blocks * 4),
        "plip image": (half("plip", depth), plip.image_targets, images, blocks * 6),
        "pathgen text": (text("pathgen_clip", depth), quilt.text_targets, ids, blocks * 4),
        "plip text": (text("plip", depth), plip.text_targets, ids, blocks * 6),
    }


WHOLE_CLIPS = clip_halves(None)
CASES: dict[str, Case] = {
    **{
        name: (lambda name=name: short(name), vision.VIT_TARGETS, (1, 3, 64, 64), 2 * 4)
        for name in VITS if "patch16" in registry.entry(name).architecture and name != "uni"
    },
    **{
        name: (lambda name=name: short(name), vision.VIT_TARGETS, (1, 3, side, side), 2 * 4)
        for name, side in {"kaiko_vits8": 64, "kaiko_vitb8": 64, "kaiko_vitl14": 56, "uni2_h": 56,
                           "virchow2": 56, "h0_mini": 56, "midnight": 56}.items()
    },
    "h_optimus_1": (lambda: short("h_optimus_1", img_size=56), vision.VIT_TARGETS, (1, 3, 56, 56),
                    2 * 4),
    **clip_halves(2),
    "keep image": (half("keep", 2), registry.entry("keep").image_targets, (1, 3, 224, 224), 2 * 4),
    "keep text": (text("keep", 2), registry.entry("keep").text_targets, (1, 256), 2 * 6),
}  # fmt: skip


def sample(shape: tuple[int, ...]) -> torch.Tensor:
    ids = torch.randint(1, 900, shape)
    if len(shape) == 2:
        # The end of a text, where it is pooled; of word pieces, the padding after it.
        ids[:, -1] = 49407 if shape[1] == 77 else 0
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


@pytest.mark.parametrize("name", WHOLE_CLIPS)
@pytest.mark.slow
def test_every_adapter_of_a_whole_clip_learns(name: str) -> None:
    build, targets, shape, adapted = WHOLE_CLIPS[name]
    torch.manual_seed(0)
    check_adapters(build().eval(), targets, sample(shape), adapted)


@pytest.mark.slow
def test_the_whole_of_uni_learns() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = registry.build_backbone("uni", None, None).model
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.uniform_(-0.03, 0.03)
    assert "blocks.0.ls1.gamma" in model.state_dict()  # layer scale: `init_values` was passed on
    check_adapters(model.eval(), vision.VIT_TARGETS, torch.randn(1, 3, 224, 224), 24 * 4)


@pytest.mark.slow
def test_merging_ours_is_the_adapted_model() -> None:
    for name in ("quiltnet image", "plip text"):
        build, targets, shape, _ = WHOLE_CLIPS[name]
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


@pytest.mark.parametrize("name", ["kaiko_vits16", "quiltnet image", "plip image", "keep image"])
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
