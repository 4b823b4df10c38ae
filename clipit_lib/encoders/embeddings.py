"""Embeddings of patches and reports, computed once and kept with what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from clipit_lib.files import (
    canonical_json,
    digest,
    locked,
    progress,
    whole,
    write_text,
    written_beside,
)

VERSION = 1
BLOCK = 64
Blocks = Iterator[np.ndarray]


def image_embeddings(
    model: nn.Module, weights: str, transform: Transform, dataset: PatchDataset, split: Split
) -> np.ndarray:
    """Embeddings [m, d] float32 of one split, in the order of `dataset.indices(split)`.

    They are written block by block, and read whole: PCAM's 262,144 of width 1024 are 1 GiB.

    Raises:
        ClipItError: a kept file was made by another model or transform, or is damaged.
    """
    rows = dataset.indices(split)
    made_by = {
        "weights": weights,
        "transform": repr(transform),
        "data": dataset.content_hash,
        "split": split,
    }

    def blocks() -> Blocks:
        tower = model.to(device()).eval()
        for begin in range(0, len(rows), BLOCK):
            patches = torch.from_numpy(dataset.pixels[rows[begin : begin + BLOCK]])
            yield tower(transform(patches).to(device())).float().cpu().numpy()

    return _kept(made_by, len(rows), blocks())


def text_embeddings(clip: ClipEncoder, corpus: ReportCorpus, long_text: LongText) -> np.ndarray:
    """Unit-length embeddings [m, d] float32 of all reports of a corpus.

    Raises:
        ClipItError: as `image_embeddings`.
    """
    made_by = {
        "weights": clip.weights_hash,
        "context": clip.tokenizer.context_length,
        "long_text": long_text,
        "corpus": corpus.content_hash,
    }

    def blocks() -> Blocks:
        tower = clip.text_tower.to(device()).eval()
        for begin in range(0, len(corpus), BLOCK):
            windows = clip.tokenizer.windows(corpus.texts[begin : begin + BLOCK], long_text)
            yield embed_windows(tower, windows).float().cpu().numpy()

    return _kept(made_by, len(corpus), blocks())


def _kept(made_by: dict[str, Any], count: int, blocks: Blocks) -> np.ndarray:
    made_by = {"version": VERSION, "kernels": kernels.level()} | made_by
    path = paths.cache() / "embeddings" / f"{digest(canonical_json(made_by))}.safetensors"
    if not path.exists():
        with locked(path):
            if not path.exists():
                write_text(path.with_suffix(".json"), json.dumps(made_by, indent=1))
                _stream(path, count, blocks)
    return _read(path, made_by, count)


def _read(path: Path, made_by: dict[str, Any], count: int) -> np.ndarray:
    fix = "Delete this file and run again"
    sidecar = path.with_suffix(".json")
    with whole(path, fix):
        if json.loads(sidecar.read_text(encoding="utf-8")) != made_by:
            raise ClipItError("the embeddings were made by another model or transform", path, fix)
        with safe_open(path, framework="numpy") as file:
            values: np.ndarray = file.get_tensor("embeddings")
    if len(values) != count:
        raise ClipItError(f"{len(values)} embeddings, expected {count}", path, fix)
    return values


@torch.inference_mode()
def _stream(path: Path, count: int, blocks: Blocks) -> None:
    """Write blocks as they come, in the layout of safetensors, so that memory does not grow.

    Written, not mapped: on a full disk a write fails with a message, a map kills the process.
    """
    with written_beside(path) as temporary, temporary.open("wb") as stream:
        for block in progress(blocks, "embed", "block", -(-count // BLOCK)):
            if stream.tell() == 0:
                stream.write(_header(count, block.shape[1]))
            stream.write(np.ascontiguousarray(block, np.float32).data)


def _header(count: int, width: int) -> bytes:
    """What a safetensors file begins with: the length of a JSON text, and the text."""
    ends = [0, count * width * np.dtype(np.float32).itemsize]
    about = {"embeddings": {"dtype": "F32", "shape": [count, width], "data_offsets": ends}}
    text = json.dumps(about, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text
