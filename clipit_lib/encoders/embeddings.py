"""Embeddings of patches and reports, computed once and kept with what made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from clipit_lib import kernels, paths
from clipit_lib.compute import device
from clipit_lib.data.patches import PatchDataset, Split, Transform
from clipit_lib.data.reports import ReportCorpus
from clipit_lib.encoders.encoder import ClipEncoder, LongText, embed_windows
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, kept, progress, whole, write_text

VERSION = 1
BLOCK = 64


def image_embeddings(
    model: nn.Module, weights: str, transform: Transform, dataset: PatchDataset, split: Split
) -> np.ndarray:
    """Embeddings [m, d] float32 of one split, in the order of `dataset.indices(split)`.

    They are written block by block, and read whole: PCAM's 262,144 of width 1024 are 1 GiB. A
    ClipItError if a kept file was made by another model or transform, or is damaged.
    """
    rows = dataset.indices(split)
    data = {"data": dataset.content_hash, "split": split}
    made_by = {"weights": weights, "transform": repr(transform)} | data

    def embed(block: slice) -> Any:
        return model.to(device()).eval()(transform(dataset.pixels[rows[block]]))

    return _kept(made_by, len(rows), embed)


def text_embeddings(clip: ClipEncoder, corpus: ReportCorpus, long_text: LongText) -> np.ndarray:
    """Unit-length embeddings [m, d] float32 of all reports of a corpus; else the same."""
    read = {"context": clip.tokenizer.context_length, "long_text": long_text}
    made_by = {"weights": clip.weights_hash, **read, "corpus": corpus.content_hash}

    def embed(block: slice) -> Any:
        windows = clip.tokenizer.windows(corpus.texts[block], long_text)
        return embed_windows(clip.text_tower.to(device()).eval(), windows)

    return _kept(made_by, len(corpus), embed)


def _kept(made_by: dict[str, Any], count: int, embed: Callable[[slice], Any]) -> np.ndarray:
    made_by = {"version": VERSION, "kernels": kernels.level()} | made_by
    path = paths.cache() / "embeddings" / f"{digest(canonical_json(made_by))}.safetensors"
    sidecar, fix = path.with_suffix(".json"), "Delete this file and run again"

    def write(beside: Path) -> None:
        write_text(sidecar, json.dumps(made_by, indent=1))
        _stream(beside, count, embed)

    kept(path, write)
    with whole(path, fix):
        if json.loads(sidecar.read_text(encoding="utf-8")) != made_by:
            raise ClipItError("the embeddings were made by another model or transform", path, fix)
        with safe_open(path, framework="numpy") as file:
            values: np.ndarray = file.get_tensor("embeddings")
    if len(values) != count:
        raise ClipItError(f"{len(values)} embeddings, expected {count}", path, fix)
    return values


@torch.inference_mode()
def _stream(path: Path, count: int, embed: Callable[[slice], Any]) -> None:
    """Write blocks as they come, in the layout of safetensors, so that memory does not grow.

    Not mapped: on a full disk a write fails with a message, a map kills the process.
    """
    with path.open("wb") as stream:
        for begin in progress(range(0, count, BLOCK), "embed", "block"):
            block = embed(slice(begin, begin + BLOCK)).float().cpu().numpy()
            if stream.tell() == 0:  # a safetensors file begins with the length of a JSON, and that
                shape, size = [count, block.shape[1]], count * block.shape[1] * 4
                about = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
                text = json.dumps({"embeddings": about}, separators=(",", ":")).encode()
                text += b" " * (-len(text) % 8)  # so that the numbers are aligned
                stream.write(len(text).to_bytes(8, "little") + text)
            stream.write(np.ascontiguousarray(block, np.float32).data)
