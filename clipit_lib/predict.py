"""An image-only classifier, out of a stored run or an exported folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from clipit_lib import lora
from clipit_lib import model as variants
from clipit_lib.compute import device, stacked
from clipit_lib.data.folder import decode_image
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry, vision, weights
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.model import ClipIt, EarlyFusion, Output, VisionClassifier
from clipit_lib.settings import RunSpec, Strict

# -- A CLIP's image tower and one embedding a class: prompts, without what reads them.


class ClassEmbeddings(nn.Module):
    """Cosines with prompts that were encoded once, over the temperature.

    Args:
        backbone: image tower, [b, 3, h, w] to [b, d].
        classes: [c, d], the mean of each class's prompt embeddings over the temperature.
    """

    def __init__(self, backbone: nn.Module, classes: Float[Tensor, "c d"]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = nn.Parameter(classes, requires_grad=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        return Output(F.normalize(self.backbone(images), dim=-1) @ self.classes.T)


# -- model.json: what an exported classifier is, and how it is built again. No text anywhere.


DESCRIPTION, WEIGHTS, GRAPH, CARD = "model.json", "model.safetensors", "model.onnx", "README.md"
EXPORT_AGAIN = "Export the run again"
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
    side = spec.pretraining.side if spec.pretraining else None
    projection = spec.stand_in.width if spec.stand_in else None
    row = vision.STAND_IN_NETWORK if spec.stand_in else registry.entry(spec.backbone)
    about: dict[str, Any] = {"library": "clipit_lib", "architecture": "image tower of a CLIP",
                             "options": {"side": side}}  # fmt: skip
    if row.library == "timm":
        size = {"img_size": side} if row.size is None else {}
        about = {"library": "timm", "architecture": row.architecture,
                 "options": {**row.options, **size}}  # fmt: skip
    return Network(
        name=spec.backbone, projection=projection, width=width, origin=row.weights.origin,
        licence=row.weights.licence, **about,
    )  # fmt: skip


def head_of(model: nn.Module) -> Head:
    """Which head a classifier has."""
    if isinstance(model, ClassEmbeddings):
        return "class_embeddings"
    if isinstance(model, EarlyFusion):
        return "early_fusion"
    return "clip_it" if isinstance(model, ClipIt) else "linear"


def build_network(description: Description) -> nn.Module:
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
    import timm  # slow to import

    if network.library == "clipit_lib":
        return registry.untrained_backbone(network.name, network.options["side"], None).model
    model: nn.Module = timm.create_model(
        network.architecture, pretrained=False, num_classes=0, **network.options
    )
    if network.projection is None:
        return model
    return vision.StandInImageTower(model, network.projection)


def read_description(folder: Path) -> Description:
    """The description of an exported classifier.

    Raises:
        ClipItError: it is no such file, or of another version of the format.
    """
    path = folder / DESCRIPTION
    try:
        return Description.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ClipItError(
            "not the description of an exported classifier", path, EXPORT_AGAIN
        ) from error


def load_exported(folder: Path) -> tuple[Description, nn.Module]:
    """An exported classifier with its weights, in evaluation mode on the CPU.

    Raises:
        ClipItError: a damaged description, or weights that are missing, damaged or another's.
    """
    description, path = read_description(folder), folder / WEIGHTS
    try:
        state = load_file(path)
    except Exception as error:
        raise ClipItError("the weights are damaged or missing", path, EXPORT_AGAIN) from error
    with whole(folder / DESCRIPTION, EXPORT_AGAIN):
        model = build_network(description)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ClipItError("the weights do not fit model.json", path, EXPORT_AGAIN) from error
    return description, model.eval()


# -- The deployed classifier: an image goes in, class probabilities come out, no text anywhere.
#
# This room imports no text encoder, no tokenizer and no report, and reads none (algorithm 3).


BATCH = 64
TRAIN_AGAIN = "Delete this run and train it again"


@dataclass(frozen=True)
class ImageClassifier:
    """A trained run with its adapters merged: it costs what its backbone costs."""

    model: nn.Module
    transform: Transform
    classes: tuple[str, ...]

    @torch.inference_mode()
    def probabilities(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float[Tensor, "n c"]:
        """Class probabilities of decoded patches."""
        blocks = (
            self.model(self.transform(torch.tensor(pixels[i : i + BATCH])).to(device()))
            for i in range(0, len(pixels), BATCH)
        )
        answers = (block.logits.float().softmax(dim=-1).cpu() for block in blocks)
        return stacked(answers, len(pixels))

    def answers(
        self, images: Sequence[Path], skip_unreadable: bool = False
    ) -> Iterator[tuple[Path, Float[np.ndarray, " c"] | None]]:
        """Each image with its class probabilities, a batch in memory at a time.

        Args:
            skip_unreadable: go on with None where an image cannot be read.

        Raises:
            ClipItError: an image cannot be read.
        """
        for begin in range(0, len(images), BATCH):
            block = images[begin : begin + BATCH]
            decoded = [self._decoded(path, skip_unreadable) for path in block]
            readable = [pixels for pixels in decoded if pixels is not None]
            found = iter(self.probabilities(np.stack(readable)).numpy() if readable else ())
            for path, pixels in zip(block, decoded, strict=True):
                yield path, None if pixels is None else next(found)

    def _decoded(self, path: Path, skip_unreadable: bool) -> UInt8[np.ndarray, "s s 3"] | None:
        try:
            return decode_image(path, self.transform.size)
        except ClipItError:
            if skip_unreadable:
                return None
            raise


def load_classifier(folder: Path) -> ImageClassifier:
    """The image-only classifier of a finished run, or an exported one.

    Raises:
        ClipItError: neither is there, a damaged checkpoint, or other backbone weights than the
            run was trained with.
    """
    if (folder / DESCRIPTION).exists():
        said, model = load_exported(folder)
        return ImageClassifier(model.to(device()), said.transform, said.classes)
    if not (folder / "done.json").exists():
        raise ClipItError(
            "no finished run here",
            folder,
            "Name a folder below results/<profile>/runs/, or an exported classifier",
        )
    return _of_run(folder)


def _of_run(folder: Path) -> ImageClassifier:
    spec = _read_spec(folder / "spec.json")
    with whole(folder / "card.json", TRAIN_AGAIN):
        classes = tuple(json.loads((folder / "card.json").read_text(encoding="utf-8"))["classes"])
    if spec.contrastive is not None:
        raise ClipItError(
            f"the run ({spec.setting}) needs text to answer",
            folder,
            "Export it: `python -m companion export` encodes its prompts for good",
        )
    if spec.text_only:
        raise ClipItError(
            f"the run ({spec.setting}) needs text to answer",
            folder,
            "Name a run of unimodal, lora_only or clip_it",
        )
    encoder = registry.load_backbone(spec.backbone, weights.sources_of(spec), spec.normalisation)
    weights.require_same(spec, encoder.weights_hash, folder)
    state = _read_state(folder / "model.safetensors", spec)
    adapters = {k.removeprefix("backbone."): v for k, v in state.items() if "lora_" in k}
    if spec.lora is not None:
        lora.merge(encoder.model, adapters, spec.lora)
    rest = {name: value for name, value in state.items() if "lora_" not in name}
    model = _build(spec, encoder, len(classes), rest)
    return ImageClassifier(model.to(device()).eval(), encoder.transform, classes)


def _read_spec(path: Path) -> RunSpec:
    try:
        return RunSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClipItError(
            "not the specification of a patch classifier", path, "Name the run of another folder"
        ) from error


def _read_state(path: Path, spec: RunSpec) -> dict[str, Tensor]:
    """The weights of a run; they say which run they are of."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ClipItError("the checkpoint is damaged or missing", path, TRAIN_AGAIN) from error
    if "spec" not in about or RunSpec.model_validate_json(about["spec"]) != spec:
        raise ClipItError("the weights are not those of this run", path, TRAIN_AGAIN)
    return state


def _build(
    spec: RunSpec, encoder: vision.VisionEncoder, classes: int, state: dict[str, Tensor]
) -> nn.Module:
    width = variants.text_width_of(state)
    model = variants.build_model(spec, encoder.model, encoder.width, classes, width)
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise ClipItError(
            f"unknown weights {', '.join(unexpected[:5])}", "checkpoint", "Train the run again"
        )
    return model
