"""model.onnx: images from 0 to 1 go in, normalisation is inside, any number at a time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipit_lib.data.transforms import Transform
from clipit_lib.deployment.description import GRAPH, Description
from clipit_lib.errors import ClipItError

INPUT, OUTPUTS = "images", ("logits", "probabilities")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
BATCHES = (1, 5)


class Normalised(nn.Module):
    """A classifier that normalises by itself: nobody can give it the wrong statistics."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(transform.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(transform.std).view(3, 1, 1))

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, Tensor]:
        """Logits and probabilities [b, c] of RGB from 0 to 1."""
        logits = self.model((images - self.mean) / self.std).logits
        return logits, logits.softmax(dim=-1)


def require_packages() -> None:
    """Raises ClipItError if ONNX cannot be written or checked here."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ClipItError(
                f"ONNX needs the package {name}",
                "export",
                f"Run `pip install {' '.join(PACKAGES)}`, or leave ONNX out with --no-onnx",
            ) from error


def write(model: nn.Module, description: Description, folder: Path) -> tuple[int, float]:
    """Write model.onnx; return its opset and how far it is from torch.

    Args:
        model: in evaluation mode, on the CPU.

    Raises:
        ClipItError: a package is missing, or the two differ by more than 1e-4.
    """
    require_packages()
    whole, size = Normalised(model, description.transform).eval(), description.input.size
    program = torch.onnx.export(
        whole,
        (torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)),),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(description.classes)
    program.model.metadata_props["run"] = description.run
    program.save(folder / GRAPH, external_data=False)
    return program.model.opset_imports[""], checked(folder / GRAPH, whole, size)


@torch.inference_mode()
def checked(path: Path, whole: nn.Module, size: int) -> float:
    """Largest difference of a graph from torch, in logits and probabilities of random images.

    Args:
        whole: `Normalised`, in evaluation mode.

    Raises:
        ClipItError: it is more than 1e-4.
    """
    rng, largest = torch.Generator().manual_seed(1), 0.0
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, generator=rng)
        for ours, theirs in zip(whole(images), run(path, images.numpy()), strict=True):
            largest = max(largest, float(np.abs(ours.numpy() - theirs).max()))
    if not largest <= TOLERANCE:
        raise ClipItError(
            f"ONNX differs from torch by {largest:.1g}", path, "Leave it out with --no-onnx"
        )
    return largest


def run(path: Path, images: Float[np.ndarray, "b 3 s s"]) -> list[Float[np.ndarray, "b c"]]:
    """Logits and probabilities of images (0..1) by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(list(OUTPUTS), {INPUT: images})
    return found
