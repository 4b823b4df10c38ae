"""Weight files of published models, a byte a number and without a number in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from clipit_lib.encoders import clips, registry
from companion.conch import Conch


def hollow(path: Path, name: str, changed: Mapping[str, tuple[int, ...]] | None = None) -> Path:
    """A safetensors file of a model's layout: its header, and a hole where numbers would be.

    Args:
        changed: other shapes of some weights.
    """
    row = registry.entry(name)
    with torch.device("meta"):
        if name == "conch":
            model: torch.nn.Module = Conch()
        elif row.text_targets:
            model = clips.LIBRARIES[row.library].build(row, None, None)
        else:
            model = registry.build_backbone(name, None, None).model
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()} | dict(changed or {})
    if row.library == "plip":  # both of its models in one file
        shapes = {k.partition(".")[2]: shape for k, shape in shapes.items()}
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + torch.Size(shape).numel()
        header[key] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(stream.tell() + end)
    return path
