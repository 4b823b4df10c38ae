"""Memory: of a training step, against counts by hand and by another route; of embeddings, flat."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from benchmarks.step_memory import peak_activations, training_memory
from clipit_lib import lora
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import embeddings, registry, vision
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.settings import Lora

LORA = Lora(rank=16, alpha=8)


def small(depth: int = 4) -> VisionEncoder:
    """A ViT of width 64 on 17 tokens."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(
            "vit_small_patch16_224", num_classes=0, embed_dim=64, depth=depth, num_heads=2,
            img_size=64,
        )  # fmt: skip
    return VisionEncoder(
        "small", model, Transform(64, vision.HALF, vision.HALF), 64, vision.VIT_TARGETS, "none"
    )


def test_two_layers_by_hand() -> None:
    """x [8, 100] -> Linear 100 -> ReLU -> Linear 100, float32, every weight learned.

    At the end of the forward pass x, both layers' outputs and what ReLU keeps are alive: ReLU's
    output is the second layer's input, the first layer's output dies. Backward then makes the
    gradient of the output and, at most, the gradients of both layers beside those of their inputs.
    """
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100))
    row, layer = 8 * 100 * 4, (100 * 100 + 100) * 4
    most = peak_activations(model, (8, 100))
    assert 2 * layer + row <= most <= 2 * layer + 5 * row
    # A larger batch adds its rows and nothing else: between two and five of them.
    assert 2 * row <= peak_activations(model, (16, 100)) - most <= 5 * row


def test_activations_grow_with_the_batch() -> None:
    encoder = small()
    one, two, four = (training_memory(encoder, LORA, batch).activations for batch in (1, 2, 4))
    assert two - one == pytest.approx((four - two) / 2, rel=0.01)  # a straight line,
    assert two == pytest.approx(2 * one, rel=0.1)  # almost through zero
    deep = training_memory(small(depth=8), LORA, 4).activations
    assert deep == pytest.approx(2 * four, rel=0.15)  # and with the depth


def test_activations_are_what_autograd_saves() -> None:
    """PyTorch's own list of saved tensors, on values, is the bulk of the peak found on shapes."""
    model = small(depth=8).model.to_empty(device="cpu").train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    lora.inject(model, vision.VIT_TARGETS, LORA)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(8, 3, 64, 64)).sum()
    counted = sum(storage.nbytes() for storage in saved.values())
    most = peak_activations(model, (8, 3, 64, 64))
    assert counted <= most <= 1.3 * counted  # what only passes by comes on top


def test_adapters_cost_four_numbers_each_and_the_rest_one() -> None:
    encoder = small()
    found = training_memory(encoder, LORA, 1)
    frozen = sum(p.numel() for p in encoder.model.parameters())
    # Rank times (in + out) of qkv, proj, fc1 and fc2, in four blocks.
    adapters = 4 * 16 * ((64 + 192) + (64 + 64) + (64 + 256) + (256 + 64))
    assert (found.weights, found.learned) == (4 * frozen, 16 * adapters)
    assert found.total == found.weights + found.learned + found.activations
    assert all(p.requires_grad for p in encoder.model.parameters())  # left as it was
    assert not hasattr(encoder.model.blocks[0].attn.qkv, "lora_A")


def test_half_precision_and_checkpointing_save_memory() -> None:
    encoder = small(depth=8)
    full = training_memory(encoder, LORA, 8)
    half = training_memory(encoder, LORA, 8, "bf16")
    again = training_memory(encoder, LORA, 8, "bf16", checkpointing=True)
    assert 0.4 * full.activations < half.activations < 0.85 * full.activations
    assert again.activations < 0.4 * half.activations
    assert full.learned == half.learned == again.learned


def test_vit_large_at_the_papers_batch() -> None:
    """Batch 64 of a ViT-L fits a card of 48 GB (the paper's) in float32 and none of 8 GB."""
    with torch.device("meta"):
        encoder = registry.build_backbone("uni", None, None)
    found = training_memory(encoder, LORA, 64)
    # By hand, a block keeps at least the inputs of its four adapted layers and of both norms,
    # query, key and value, and GELU's input: 64 x 197 x 1024 numbers, 14 times.
    assert found.activations > 24 * 14 * 64 * 197 * 1024 * 4 * 0.9
    assert 16e9 < found.total < 48e9
    assert found.weights == 4 * 303_350_784


@pytest.mark.parametrize("count", [1, 64, 200])
def test_streamed_embeddings_are_safetensors(tmp_path: Path, count: int) -> None:
    values = np.random.default_rng(0).standard_normal((count, 24)).astype(np.float32)
    path = tmp_path / "e.safetensors"
    embeddings._stream(path, count, lambda block: torch.from_numpy(values[block]))
    np.testing.assert_array_equal(load_file(path)["embeddings"], values)
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_memory_stays_flat_while_embeddings_stream(tmp_path: Path) -> None:
    width, count = 512, 20_000  # 41 MB on disk

    def embed(block: slice) -> torch.Tensor:
        return torch.full((len(range(count)[block]), width), float(block.start))

    tracemalloc.start()
    embeddings._stream(tmp_path / "e.safetensors", count, embed)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2e6 < 0.05 * 4 * width * count
    assert (tmp_path / "e.safetensors").stat().st_size == pytest.approx(4 * width * count, abs=256)
