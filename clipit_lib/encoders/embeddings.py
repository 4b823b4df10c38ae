"""Embeddings of patches and reports, computed once and kept with what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn
from tqdm import tqdm

from clipit_lib import paths
from clipit_lib.compute import device
from clipit_lib.data.contract import PatchDataset, Split
from clipit_lib.data.transforms import Transform
from clipit_lib.encoders.tokens import LongText, embed_windows
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, write_text, written_beside
from clipit_lib.reports.corpus import ReportCorpus

VERSION = 1
BLOCK = 64
Blocks = Iterator[np.ndarray]


def image_embeddings(
    model: nn.Module, weights: str, transform: Transform, dataset: PatchDataset, split: Split
) -> np.ndarray:
    """Embeddings [m, d] float32 of one split, in the order of `dataset.indices(split)`.

    Raises:
        ClipItError: a kept file was made by another model or transform, or is damaged.
    """
    rows = dataset.indices(split)
    made_by = {
        "version": VERSION,
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
        "version": VERSION,
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
    path = paths.cache() / "embeddings" / f"{digest(canonical_json(made_by))}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write_text(path.with_suffix(".json"), json.dumps(made_by, indent=1))
            _stream(path, count, blocks)
    return _read(path, made_by, count)


def _read(path: Path, made_by: dict[str, Any], count: int) -> np.ndarray:
    fix = "Delete this file and run again"
    sidecar = path.with_suffix(".json")
    if not sidecar.exists() or json.loads(sidecar.read_text(encoding="utf-8")) != made_by:
        raise ClipItError("the embeddings were made by another model or transform", path, fix)
    try:
        with safe_open(path, framework="numpy") as file:
            values: np.ndarray = file.get_tensor("embeddings")
    except Exception as error:
        raise ClipItError("the embeddings are damaged", path, fix) from error
    if len(values) != count:
        raise ClipItError(f"{len(values)} embeddings, expected {count}", path, fix)
    return values


@torch.inference_mode()
def _stream(path: Path, count: int, blocks: Blocks) -> None:
    """Write blocks through a memory map, so that memory does not grow with `count`."""
    stream = path.with_suffix(".npy.part")
    try:
        values: np.memmap | None = None
        begin = 0
        for block in tqdm(blocks, total=-(-count // BLOCK), desc="embed", leave=False):
            if values is None:
                shape = (count, block.shape[1])
                values = np.lib.format.open_memmap(stream, "w+", np.float32, shape)
            values[begin : begin + len(block)] = block
            begin += len(block)
        assert values is not None
        with written_beside(path) as temporary:
            save_file({"embeddings": values}, temporary)
    finally:
        stream.unlink(missing_ok=True)
