"""The deployed classifier, out of a stored run: an image goes in, class probabilities come out.

This room imports no text encoder, no tokenizer and no report, and reads none (algorithm 3).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import safe_open
from torch import Tensor, nn

from clipit_lib import lora
from clipit_lib import model as variants
from clipit_lib.compute import device, stacked
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry, weights
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.settings import RunSpec

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
            self.model(self.transform(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)
        )
        answers = (block.logits.float().softmax(dim=-1).cpu() for block in blocks)
        return stacked(answers, len(pixels))


def load_classifier(folder: Path) -> ImageClassifier:
    """The image-only classifier of a finished run.

    Raises:
        ClipItError: none is there, a damaged checkpoint, or other backbone weights than the run was
            trained with.
    """
    if not (folder / "done.json").exists():
        fix = "Name a folder below results/<profile>/runs/, or an exported classifier"
        raise ClipItError("no finished run here", folder, fix)
    try:
        spec = RunSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what, fix = "not the specification of a patch classifier", "Name the run of another folder"
        raise ClipItError(what, folder / "spec.json", fix) from error
    with whole(folder / "card.json", TRAIN_AGAIN):
        classes = tuple(json.loads((folder / "card.json").read_text(encoding="utf-8"))["classes"])
    if spec.contrastive is not None or spec.branch == "text_only":
        fix = "Name a run of unimodal, lora_only or clip_it"
        if spec.contrastive is not None:
            fix = "Export it: `python -m companion export` encodes its prompts for good"
        raise ClipItError(f"the run ({spec.setting}) needs text to answer", folder, fix)
    encoder = registry.load_backbone(spec.backbone, weights.sources_of(spec), spec.normalisation)
    weights.require_same(spec, encoder.weights_hash, folder)
    state = _read_state(folder / "model.safetensors", spec)
    adapters = {k.removeprefix("backbone."): v for k, v in state.items() if "lora_" in k}
    if spec.lora is not None:
        lora.merge(encoder.model, adapters, spec.lora)
    rest = {name: value for name, value in state.items() if "lora_" not in name}
    width = variants.text_width_of(rest)
    model = variants.build_model(spec, encoder.model, encoder.width, len(classes), width)
    if unexpected := model.load_state_dict(rest, strict=False).unexpected_keys:
        what = f"unknown weights {', '.join(unexpected[:5])}"
        raise ClipItError(what, folder / "model.safetensors", TRAIN_AGAIN)
    return ImageClassifier(model.to(device()).eval(), encoder.transform, classes)


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
