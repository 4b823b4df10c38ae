"""An exported classifier: config.json says what it is and how it is built again, without text."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub import ModelHubMixin, snapshot_download
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from clipit_lib import predict
from clipit_lib.compute import device
from clipit_lib.data.images import decode_image
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry, vision
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.model import ClipIt, EarlyFusion, Output, VisionClassifier
from clipit_lib.predict import ImageClassifier
from clipit_lib.settings import RunSpec, Strict

DESCRIPTION, WEIGHTS, GRAPH, CARD = "config.json", "model.safetensors", "model.onnx", "README.md"
INT8 = "model.int8.onnx"
INPUT, OUTPUTS = "images", ("logits", "probabilities")  # of both graphs
EXPORT_AGAIN = "Export the run again"
Head = Literal["linear", "clip_it", "early_fusion", "class_embeddings"]


class ClassEmbeddings(nn.Module):
    """A CLIP with prompts encoded once: cosines with one embedding a class, over the temperature.

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


class Description(Strict):
    """Everything but the weights.

    Attributes:
        input: of RGB images; (value in 0..1 - mean) / std is inside the ONNX graph.
        licence: of the data.
        retriever: whose text features were distilled, None without text.
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
    licence: str
    input: Transform
    network: Network
    head: Head
    retriever: str | None
    text_width: int | None
    unit_distilled: bool | None
    versions: dict[str, str]


def network_of(spec: RunSpec, width: int) -> Network:
    """What the registry knows of a run's backbone, whose features have this width."""
    side = spec.pretraining.side if spec.pretraining else None
    projection = spec.stand_in.width if spec.stand_in else None
    row = vision.STAND_IN_NETWORK if spec.stand_in else registry.entry(spec.backbone)
    own: dict[str, Any] = {"depth": spec.depth} if spec.depth else {}
    about: dict[str, Any] = {"library": "clipit_lib", "architecture": "image tower of a CLIP",
                             "options": {"side": side, **own}}  # fmt: skip
    if row.library == "timm":
        own |= {"img_size": side} if row.size is None else {}
        about = {"library": "timm", "architecture": row.architecture,
                 "options": {**row.options, **own}}  # fmt: skip
    return Network(
        name=spec.backbone, projection=projection, width=width, origin=row.weights.origin,
        licence=row.weights.licence, **about,
    )  # fmt: skip


HEADS: dict[type[nn.Module], Head] = {
    ClassEmbeddings: "class_embeddings",
    EarlyFusion: "early_fusion",
    ClipIt: "clip_it",
    VisionClassifier: "linear",
}


def build_network(said: Description) -> nn.Module:
    """The classifier with random weights: [b, 3, size, size] to `Output`."""
    backbone = _build_network(said.network).to(memory_format=torch.channels_last)
    width, classes = said.network.width, len(said.classes)
    if said.head == "class_embeddings":
        return ClassEmbeddings(backbone, torch.zeros(classes, width))
    if said.head == "linear":
        return VisionClassifier(backbone, width, classes)
    assert said.text_width is not None
    if said.head == "early_fusion":
        return EarlyFusion(backbone, width, classes, said.text_width)
    return ClipIt(backbone, width, classes, said.text_width, bool(said.unit_distilled))


def _build_network(network: Network) -> nn.Module:
    import timm  # slow to import

    if network.library == "clipit_lib":
        from companion.conch import untrained_backbone  # slow to import, too

        depth = network.options.get("depth")
        return untrained_backbone(network.name, network.options["side"], None, depth=depth).model
    model: nn.Module = timm.create_model(
        network.architecture, pretrained=False, num_classes=0, **network.options
    )
    if network.projection is None:
        return model
    return vision.StandInImageTower(model, network.projection)


def read_description(folder: Path) -> Description:
    """That of an exported classifier; a ClipItError says that there is none, or a damaged one."""
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
        return Description.model_validate_json(text)
    except (OSError, ValueError) as error:
        what = "not the description of an exported classifier"
        raise ClipItError(what, folder / DESCRIPTION, EXPORT_AGAIN) from error


def load_classifier(folder: Path) -> ImageClassifier:
    """The image-only classifier of a finished run, or an exported one.

    Raises:
        ClipItError: neither is there, a damaged description, or weights that are missing, damaged
            or another's; see also `clipit_lib.predict.load_classifier`.
    """
    if not (folder / DESCRIPTION).exists():
        return predict.load_classifier(folder)
    description = read_description(folder)
    path = folder / WEIGHTS
    try:
        state = load_file(path)
    except Exception as error:
        raise ClipItError("the weights are damaged or missing", path, EXPORT_AGAIN) from error
    with whole(folder / DESCRIPTION, EXPORT_AGAIN):
        model = build_network(description)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ClipItError("the weights do not fit config.json", path, EXPORT_AGAIN) from error
    return ImageClassifier(model.eval().to(device()), description.input, description.classes)


class Graph(nn.Module):
    """An ONNX graph in a network's place: RGB from 0 to 1, [b, 3, size, size], to `Output`."""

    def __init__(self, path: Path) -> None:
        import onnxruntime  # needed by no one else who loads a classifier

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        found = self.session.run([OUTPUTS[0]], {INPUT: images.cpu().numpy()})
        return Output(torch.from_numpy(found[0]))


def load_graph(folder: Path, name: str = INT8) -> ImageClassifier:
    """An exported classifier as its ONNX graph of that name, on the CPU.

    Raises:
        ClipItError: it has none, or no package reads it.
    """
    description, path = read_description(folder), folder / name
    if not path.exists():
        raise ClipItError("no such graph was exported", path, "Export the run with --int8 PROFILE")
    with whole(path, EXPORT_AGAIN):
        model = Graph(path)
    unchanged = replace(description.input, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return ImageClassifier(model.eval(), unchanged, description.classes)


class Classifier(ModelHubMixin):
    """An exported classifier by the interface of the Hugging Face hub.

    `Classifier.from_pretrained` takes a folder or a repository, `save_pretrained` copies it, and
    `push_to_hub` uploads it without a question: the command `push` asks for licences.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hub_mixin_config = read_description(folder).model_dump(mode="json")
        self.classifier = load_classifier(folder)

    def __call__(self, image: Path) -> dict[str, float]:
        """Each class's probability for the patch in an image file.

        Raises:
            ClipItError: it cannot be read.
        """
        pixels = decode_image(image, self.classifier.transform.size)
        found = self.classifier.probabilities(pixels[None])[0]
        return dict(zip(self.classifier.classes, found.tolist(), strict=True))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **asked: Any) -> Classifier:
        folder = Path(model_id)
        return cls(folder if folder.is_dir() else Path(snapshot_download(model_id, **asked)))

    def _save_pretrained(self, save_directory: Path) -> None:
        for name in (WEIGHTS, GRAPH, INT8, CARD):  # the mixin writes its config.json
            source, target = self.folder / name, save_directory / name
            if source.exists() and source.resolve() != target.resolve():
                shutil.copy(source, target)
