"""model.json: what an exported classifier is, and how it is built again. No text anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from clipit_lib.data.transforms import Transform
from clipit_lib.deployment.class_embeddings import ClassEmbeddings
from clipit_lib.encoders import backbones, vision
from clipit_lib.encoders.published import PUBLISHED
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.settings import RunSpec
from clipit_lib.settings.base import Strict
from clipit_lib.variants import EarlyFusion

DESCRIPTION, WEIGHTS, GRAPH, CARD = "model.json", "model.safetensors", "model.onnx", "README.md"
AGAIN = "Export the run again"
PHANTOM = "trained by this project on its phantom"
Head = Literal["linear", "clip_it", "early_fusion", "class_embeddings"]


class Network(Strict):
    """A backbone to build: all that this project's registry knew of it when it was exported.

    Attributes:
        library: `timm` builds `architecture` with `options`; `clipit_lib` the image tower that its
            registry has under `name`.
        projection: width of a linear layer after the network, None for none.
        width: of the features that the head gets.
        origin, licence: of the weights it was trained from.
    """

    name: str
    library: Literal["timm", "clipit_lib"]
    architecture: str
    options: dict[str, Any]
    projection: int | None
    width: int
    origin: str
    licence: str


class ImageInput(Strict):
    """RGB of `size` x `size` pixels; (value in 0..1 - mean) / std is inside the ONNX graph."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]


class Description(Strict):
    """Everything but the weights.

    Attributes:
        text_width: of the text features that the image predicts, None without that branch.
        unit_distilled: whether they are brought to unit length before h_t.
        run: key of the run, the hash of its specification.
        versions: of the libraries that exported it.
    """

    format: Literal[1] = 1
    run: str
    dataset: str
    setting: str
    seed: int
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    input: ImageInput
    network: Network
    head: Head
    text_width: int | None
    unit_distilled: bool | None
    versions: dict[str, str]

    @property
    def transform(self) -> Transform:
        return Transform(**self.input.model_dump())


def network_of(spec: RunSpec, width: int) -> Network:
    """What the registry knows of a run's backbone.

    Args:
        width: of its features.
    """
    name, side = spec.backbone, spec.pretraining.side if spec.pretraining else None
    if name in backbones.IMAGE_TOWERS and name != backbones.STAND_IN:
        phantom = name in backbones.PHANTOM_CLIPS
        return Network(
            name=name, library="clipit_lib", architecture="image tower of a CLIP",
            options={"side": side}, projection=None, width=width,
            origin=PHANTOM if phantom else PUBLISHED[name].page,
            licence="this project's" if phantom else PUBLISHED[name].licence,
        )  # fmt: skip
    projection = None
    if name == backbones.STAND_IN:
        from clipit_lib.encoders import image_tower

        assert spec.stand_in is not None
        name, projection = image_tower.BACKBONE, spec.stand_in.width
    row = vision.entry(name)
    size = {"img_size": side} if row.size is None else {}
    return Network(
        name=spec.backbone, library="timm", architecture=row.architecture,
        options=row.options | size, projection=projection, width=width,
        origin=_origin(name, row.weights), licence=row.licence,
    )  # fmt: skip


def _origin(name: str, weights: str) -> str:
    if weights == "phantom":
        return PHANTOM
    return PUBLISHED[name].page if weights == "published" else f"package {weights}"


def head_of(model: nn.Module) -> Head:
    """Which head a classifier has."""
    if isinstance(model, ClassEmbeddings):
        return "class_embeddings"
    if isinstance(model, EarlyFusion):
        return "early_fusion"
    return "clip_it" if isinstance(model, ClipIt) else "linear"


def build(description: Description) -> nn.Module:
    """The classifier with random weights: [b, 3, size, size] to `Output`."""
    backbone = _build_network(description.network).to(memory_format=torch.channels_last)
    width, classes = description.network.width, len(description.classes)
    if description.head == "class_embeddings":
        return ClassEmbeddings(backbone, torch.zeros(classes, width))
    if description.head == "linear":
        return VisionClassifier(backbone, width, classes)
    assert description.text_width is not None
    if description.head == "early_fusion":
        return EarlyFusion(backbone, width, classes, description.text_width)
    return ClipIt(
        backbone, width, classes, description.text_width, bool(description.unit_distilled)
    )


def _build_network(network: Network) -> nn.Module:
    if network.library == "clipit_lib":
        return backbones.untrained(network.name, network.options["side"], None).model
    model: nn.Module = timm.create_model(
        network.architecture, pretrained=False, num_classes=0, **network.options
    )
    if network.projection is None:
        return model
    from clipit_lib.encoders import image_tower

    return image_tower.ImageTower(model, network.projection)


def read(folder: Path) -> Description:
    """The description of an exported classifier.

    Raises:
        ClipItError: it is no such file, or of another version of the format.
    """
    path = folder / DESCRIPTION
    try:
        return Description.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ClipItError("not the description of an exported classifier", path, AGAIN) from error


def load(folder: Path) -> tuple[Description, nn.Module]:
    """An exported classifier with its weights, in evaluation mode on the CPU.

    Raises:
        ClipItError: a damaged description, or weights that are missing, damaged or another's.
    """
    description, path = read(folder), folder / WEIGHTS
    try:
        state = load_file(path)
    except Exception as error:
        raise ClipItError("the weights are damaged or missing", path, AGAIN) from error
    with whole(folder / DESCRIPTION, AGAIN):
        model = build(description)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ClipItError("the weights do not fit model.json", path, AGAIN) from error
    return description, model.eval()
