"""The deployed classifier: an image goes in, class probabilities come out, no text anywhere.

This room imports no text encoder, no tokenizer and no report, and reads none (algorithm 3).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from clipit_lib import lora, variants
from clipit_lib.compute import device
from clipit_lib.data.folder import decode_image
from clipit_lib.data.transforms import Transform
from clipit_lib.encoders import backbones, vision
from clipit_lib.errors import ClipItError
from clipit_lib.settings import RunSpec

BATCH = 64


@dataclass(frozen=True)
class ImageClassifier:
    """A trained run with its adapters merged: it costs what its backbone costs."""

    model: nn.Module
    transform: Transform
    classes: tuple[str, ...]

    @torch.inference_mode()
    def probabilities(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float[Tensor, "n c"]:
        """Class probabilities of decoded patches."""
        blocks = [
            self.model(self.transform(torch.tensor(pixels[i : i + BATCH])).to(device()))
            for i in range(0, len(pixels), BATCH)
        ]
        return torch.cat([block.logits.float().softmax(dim=-1).cpu() for block in blocks])


def load_classifier(folder: Path) -> ImageClassifier:
    """Rebuild the image-only classifier of a finished run.

    Raises:
        ClipItError: no finished run, a damaged checkpoint, or other backbone weights than the
            run was trained with.
    """
    if not (folder / "done.json").exists():
        raise ClipItError(
            "no finished run here", folder, "Name a folder below results/<profile>/runs/"
        )
    spec = RunSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    classes = tuple(json.loads((folder / "card.json").read_text(encoding="utf-8"))["classes"])
    if spec.contrastive is not None or spec.text_only:
        raise ClipItError(
            f"the run ({spec.setting}) needs text to answer",
            folder,
            "Name a run of unimodal, lora_only or clip_it",
        )
    encoder = backbones.load(spec.backbone, spec.pretraining, spec.stand_in, spec.normalisation)
    if encoder.weights_hash != spec.backbone_hash:
        raise ClipItError(
            f"the weights of {spec.backbone} are not those it was trained with "
            f"({encoder.weights_hash}, not {spec.backbone_hash})",
            folder,
            "Train the run again, or bring back the cache it was trained with",
        )
    state = _read_state(folder / "model.safetensors")
    adapters = {k.removeprefix("backbone."): v for k, v in state.items() if "lora_" in k}
    if spec.lora is not None:
        lora.merge(encoder.model, adapters, spec.lora)
    rest = {name: value for name, value in state.items() if "lora_" not in name}
    model = _build(spec, encoder, len(classes), rest)
    return ImageClassifier(model.to(device()).eval(), encoder.transform, classes)


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise ClipItError(
            "the checkpoint is damaged or missing", path, "Delete this run and train it again"
        ) from error


def _build(
    spec: RunSpec, encoder: vision.VisionEncoder, classes: int, state: dict[str, Tensor]
) -> nn.Module:
    width = variants.text_width_of(state)
    model = variants.build(spec, encoder.model, encoder.width, classes, width)
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise ClipItError(
            f"unknown weights {', '.join(unexpected[:5])}", "checkpoint", "Train the run again"
        )
    return model


def main(arguments: list[str]) -> None:
    """`predict RUN_DIR image [image ...]`: print class probabilities as csv."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib predict", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("images", type=Path, nargs="+", metavar="image")
    given = parser.parse_args(arguments)
    classifier = load_classifier(given.run)
    pixels = np.stack([decode_image(path, classifier.transform.size) for path in given.images])
    print(",".join(["image", "prediction", *classifier.classes]))
    for path, row in zip(given.images, classifier.probabilities(pixels).numpy(), strict=True):
        best = classifier.classes[int(row.argmax())]
        print(",".join([str(path), best, *(f"{value:.4f}" for value in row)]))
