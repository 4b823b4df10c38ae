"""Embeddings of a data set's patches, computed once and kept with what made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn
from tqdm import tqdm

from clipit_lib import paths
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.transforms import Transform
from clipit_lib.encoders.clip import device
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, write_text, written_beside

VERSION = 1


def image_embeddings(
    model: nn.Module,
    weights_hash: str,
    transform: Transform,
    dataset: PatchDataset,
    split: str,
    batch_size: int = 64,
) -> np.ndarray:
    """Embeddings [m, d] float32 of one split, in the order of `dataset.indices(split)`.

    They are streamed to a file by blocks, so memory does not grow with the number of patches.

    Raises:
        ClipItError: a kept file was made by another model or transform, or is damaged.
    """
    made_by = {
        "version": VERSION,
        "weights": weights_hash,
        "transform": repr(transform),
        "data": dataset.content_hash,
        "split": split,
    }
    path = paths.cache() / "embeddings" / f"{digest(canonical_json(made_by))}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = dataset.indices(split)  # type: ignore[arg-type]
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write_text(path.with_suffix(".json"), json.dumps(made_by, indent=1))
            _compute(path, model, transform, dataset, rows, batch_size)
    return _read(path, made_by, len(rows))


def _read(path: Path, made_by: dict[str, object], count: int) -> np.ndarray:
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
        raise ClipItError(f"{len(values)} embeddings for {count} patches", path, fix)
    return values


@torch.inference_mode()
def _compute(
    path: Path,
    model: nn.Module,
    transform: Transform,
    dataset: PatchDataset,
    rows: np.ndarray,
    batch_size: int,
) -> None:
    model = model.to(device()).eval()
    stream = path.with_suffix(".npy.part")
    try:
        values: np.memmap | None = None
        for begin in tqdm(range(0, len(rows), batch_size), desc="embed patches", unit="batch"):
            chosen = rows[begin : begin + batch_size]
            images = transform(torch.from_numpy(dataset.pixels[chosen]))
            block = model(images.to(device())).float().cpu().numpy()
            if values is None:
                shape = (len(rows), block.shape[1])
                values = np.lib.format.open_memmap(stream, "w+", np.float32, shape)
            values[begin : begin + len(chosen)] = block
        assert values is not None
        with written_beside(path) as temporary:
            save_file({"embeddings": values}, temporary)
    finally:
        stream.unlink(missing_ok=True)
