"""Image encoders: a row of the registry, what it loads as, and how timm builds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import weights
from clipit_lib.encoders.weights import Held, Packaged, Published, Sources, State, Trained
from clipit_lib.errors import ClipItError

HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
STATISTICS = {"half": (HALF, HALF), "imagenet": IMAGENET, "clip": OPENAI_CLIP, "optimus": OPTIMUS}

# Full matches of module names; timm fuses query, key and value into `attn.qkv`.
VIT_TARGETS = r"blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"


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
        resized: whether its position embeddings are published for another size.
        renamed: what its file calls parts of a weight's name, and what `library` does.
        statistics: mean and standard deviation of each channel that the input is brought to.
        interpolation: how its authors resize an image.
        templates: whose class prompts it is asked with, see `reports.TEMPLATES`.
        namesake: the paper's model that it stands for, if any.
        caveat: what a reader of any result that rests on it as a retriever must know.
    """

    library: Literal["timm", "open_clip", "conch", "plip", "keep", "stand_in"]
    weights: Published | Packaged | Trained
    image_targets: str
    text_targets: str = ""
    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    resized: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]] = OPENAI_CLIP
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    templates: Literal["conch", "quiltnet"] = "conch"
    namesake: str | None = None
    caveat: str = ""

    def transform(self, side: int | None, normalisation: str = "own") -> Transform:
        """Its input transform, `side` being that of the phantom's patches in pixels."""
        mean, deviation = STATISTICS.get(normalisation, self.statistics)
        return Transform(self.size or side or 224, mean, deviation, self.interpolation)


def _entry(name: str, said: dict[str, Any]) -> Entry:
    """A row of encoders.yaml, which states what is not a ViT of timm trained here."""
    made: Published | Packaged | Trained
    origin: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in said.pop("weights", {}).items()
    }
    if "repo" in origin:
        origin.setdefault("terms", f"{weights.HUB}/{origin['repo']}")
        made = Published(name=name, gated=origin.pop("gated", False), **origin)
    else:
        made = Packaged(**origin) if "packages" in origin else Trained(**origin)
    statistics = STATISTICS[said.pop("statistics", "clip")]
    row = {"library": "timm", "image_targets": VIT_TARGETS, "statistics": statistics} | said
    return Entry(weights=made, **row)


TABLE = yaml.safe_load(Path(__file__).with_name("encoders.yaml").read_text(encoding="utf-8"))
ENCODERS: dict[str, Entry] = {name: _entry(name, said) for name, said in TABLE.items()}
STAND_IN_NETWORK = ENCODERS["efficientnet_lite2"]


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

    For an image tower of timm, open_clip, CONCH or transformers (docs/models.md), without
    re-entrance: the first block's input requires no gradient under LoRA. A ClipItError if no part
    of the model knows how.
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
    what, fix = "this model has no gradient checkpointing", "Train it without, with a smaller batch"
    raise ClipItError(what, type(model).__name__, fix)


def timm_tower(row: Entry, side: int | None, held: Held | None = None) -> nn.Module:
    """timm's network of a row without head, with random weights unless others are given: a
    ClipItError if they are of another model.
    """
    import timm  # slow to import, and what reads results needs no network
    from timm.models.vision_transformer import checkpoint_filter_fn

    size: dict[str, Any] = {"img_size": side} if row.size is None else {}
    # No random weights are drawn where others are at hand.
    with nullcontext() if held is None else torch.device("meta"):
        tower: nn.Module = timm.create_model(
            row.architecture, pretrained=False, num_classes=0, **row.options, **size
        )
    if held is not None and isinstance(row.weights, Packaged):
        weights.fill_model(tower, weights.named_by_position(held, tower))
        return tower.to(memory_format=torch.channels_last)
    if held is not None:
        held = replace(held, state=named_anew(held.state, row.renamed))
        # What follows would bring to shape, or to other names, the weights of any other model too.
        spare = "pos_embed" if row.resized else ""
        spare = r"(?!patch_embed\.).*" if "mask_token" in held.state else spare
        weights.check_fit(tower, held, spare)
        # Renames what DINOv2 calls otherwise; brings the position embedding to our size.
        state = checkpoint_filter_fn(held.state, tower)  # type: ignore[arg-type]
        weights.fill_model(tower, replace(held, state=state))
    return tower


def named_anew(state: State, renamed: Mapping[str, str]) -> State:
    """A state with parts of its names replaced; what comes to have one name is joined."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for name in sorted(state, key=lambda name: (".query." not in name, name)):  # then key, value
        ours = reduce(lambda name, pair: name.replace(*pair), renamed.items(), name)
        parts[ours].append(state[name])
    return {name: torch.cat(each) if each[1:] else each[0] for name, each in parts.items()}


class StandInImageTower(nn.Module):
    """The stand-in's half without text, [b, 3, s, s] to [b, width]: a network, and a projection."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone, self.num_features = backbone, width
        self.projection = nn.Linear(int(backbone.num_features), width)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Any:
        return self.projection(self.backbone(images))


def stand_in_tower(width: int, trained: Held | None = None) -> StandInImageTower:
    """With random weights, or the trained projection's and those of the network's package: a
    ClipItError if that is not installed.
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
