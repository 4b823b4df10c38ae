"""The method against transcriptions in plain Python and NumPy that share no code with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clipit_lib import lora, pairing
from clipit_lib.compute import device
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry
from clipit_lib.model import ClipIt
from clipit_lib.settings import Lora
from clipit_lib.training import ImageTask, Patches, Targets

# --- Equation 1: pairing -------------------------------------------------------------------------


def exact_vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of length 1, 2 or 4 whose cosines are exact in float32, so that ties are ties."""
    vectors = np.zeros((count, 16), np.float32)
    for row in vectors:
        chosen = rng.choice(16, rng.choice([1, 4, 16]), replace=False)
        row[chosen] = rng.choice([-1, 1], len(chosen))
    return vectors


def paired_by_loops(images: np.ndarray, texts: np.ndarray, k: int) -> list[list[tuple]]:
    """For each image the k reports of highest cosine; of equal ones the lower index."""
    answer = []
    for image in images.tolist():
        left: list[tuple[float, int]] = []
        for index, text in enumerate(texts.tolist()):
            dot = sum(a * b for a, b in zip(image, text, strict=True))
            lengths = math.sqrt(sum(a * a for a in image)) * math.sqrt(sum(b * b for b in text))
            left.append((dot / lengths, index))
        best = []
        for _ in range(k):
            top = left[0]
            for candidate in left:
                if candidate[0] > top[0]:
                    top = candidate
            left.remove(top)
            best.append(top)
        answer.append(best)
    return answer


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 9999), n=st.integers(1, 12), m=st.integers(1, 40), k=st.integers(1, 8),
    block=st.integers(1, 15),
)  # fmt: skip
def test_pairing_is_a_double_loop_with_every_tie(
    seed: int, n: int, m: int, k: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    images, texts = exact_vectors(rng, n), exact_vectors(rng, m)
    found = pairing.top_k(images, texts, min(k, m), block)
    expected = paired_by_loops(images, texts, min(k, m))
    assert found.reports.tolist() == [[index for _, index in row] for row in expected]
    assert found.similarities.tolist() == [[cosine for cosine, _ in row] for row in expected]


def test_the_loops_above_meet_ties_at_the_border() -> None:
    """Without them the test above would prove little."""
    rng = np.random.default_rng(0)
    rows = paired_by_loops(exact_vectors(rng, 20), exact_vectors(rng, 40), 40)
    assert sum(row[2][0] == row[3][0] for row in rows) > 5


# --- Equations 2 to 4: the loss and its gradients ------------------------------------------------

WIDTH, TEXT, CLASSES, SIDE = 6, 5, 3, 4
MEAN, STD = (0.5, 0.4, 0.6), (0.2, 0.3, 0.25)
Weights = dict[str, np.ndarray]


def features(pixels: np.ndarray, weights: Weights) -> np.ndarray:
    """v of one patch: colours as fractions, normalised, channel by channel, into the backbone."""
    values = [
        (pixels[i, j, channel] / 255 - MEAN[channel]) / STD[channel]
        for channel in range(3)
        for i in range(SIDE)
        for j in range(SIDE)
    ]
    return np.tanh(weights["backbone.1.weight"] @ values + weights["backbone.1.bias"])


def loss_by_hand(
    weights: Weights, v: np.ndarray, labels: np.ndarray, texts: np.ndarray, scale: float, unit: bool
) -> tuple[float, float]:
    """Equation 2 of the fused logits and lambda times equation 3, means over the patches.

    Equation 4 is their sum.
    """
    classification, distillation = 0.0, 0.0
    for row, label, text in zip(v, labels, texts, strict=True):
        guess = weights["distillation.weight"] @ row + weights["distillation.bias"]  # h_d
        length = math.sqrt(sum(guess**2))
        given_to_head = guess / length if unit else guess
        hidden = weights["text_head.0.weight"] @ given_to_head + weights["text_head.0.bias"]
        hidden = np.array([h if h > 0 else h / 10 for h in hidden])
        from_text = weights["text_head.2.weight"] @ hidden + weights["text_head.2.bias"]  # h_t
        from_image = weights["vision_head.weight"] @ row + weights["vision_head.bias"]  # h_v
        both = np.array([*from_image, *from_text])
        z = weights["fusion.weight"] @ both + weights["fusion.bias"]  # g
        probability = math.exp(z[label]) / sum(math.exp(value) for value in z)
        classification -= math.log(probability) / len(v)
        cosine = sum(guess * text) / (length * math.sqrt(sum(text**2)))
        distillation += scale * (1 - cosine) / len(v)
    return classification, distillation


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("scale", [0.7, 3.0])
def test_loss_and_gradients_are_those_of_the_equations(unit: bool, scale: float) -> None:
    rng = np.random.default_rng(11)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, WIDTH), nn.Tanh())
        model = ClipIt(backbone, WIDTH, CLASSES, TEXT, unit, fusion_start="random")
    model.requires_grad_(True).to(device())
    pixels = rng.integers(0, 256, (20, SIDE, SIDE, 3)).astype(np.uint8)
    owned = np.array([3, 19, 7, 0, 12, 5, 8])  # rows of the data set in this split
    labels = rng.integers(0, CLASSES, len(owned))
    reports = rng.normal(size=(4, TEXT)).astype(np.float32)
    whose = np.array([2, 0, 2, 3, 1, 0, 0])
    patches = Patches(pixels, owned, torch.tensor(labels), Transform(SIDE, MEAN, STD))
    targets = Targets(torch.tensor(reports), torch.tensor(whose))
    task = ImageTask(model, patches, patches, False, targets=targets, distillation_weight=scale)
    batch = np.array([5, 0, 3, 6])
    parts = task.loss(model, torch.tensor(batch), torch.Generator())
    sum(parts.values(), torch.zeros((), device=device())).backward()

    weights = {n: p.detach().cpu().numpy().astype(float) for n, p in model.named_parameters()}
    v = np.array([features(pixels[owned[row]].astype(float), weights) for row in batch])
    texts = reports[whose[batch]].astype(float)

    def total(changed: Weights) -> float:
        return sum(loss_by_hand(weights | changed, v, labels[batch], texts, scale, unit))

    expected = loss_by_hand(weights, v, labels[batch], texts, scale, unit)
    assert parts["classification"].item() == pytest.approx(expected[0], rel=1e-5)
    assert parts["distillation"].item() == pytest.approx(expected[1], rel=1e-5)
    for name, parameter in model.named_parameters():
        if name.startswith("backbone"):
            continue
        slopes = np.zeros_like(weights[name])
        for at in np.ndindex(*slopes.shape):  # central differences, one number at a time
            step = np.zeros_like(slopes)
            step[at] = 1e-5
            up, down = total({name: weights[name] + step}), total({name: weights[name] - step})
            slopes[at] = (up - down) / 2e-5
        assert np.abs(slopes).max() > 1e-3, name
        np.testing.assert_allclose(
            parameter.grad.cpu().numpy(), slopes, atol=1e-5, rtol=1e-3, err_msg=name
        )


# --- LoRA: merged is unmerged --------------------------------------------------------------------

PHANTOM = [name for name in registry.ENCODERS if name.startswith("phantom_vit")]
ADAPTERS = Lora(rank=4, alpha=6)


@pytest.mark.parametrize("which", ["attention_mlp", "all"])
@pytest.mark.parametrize("name", [*PHANTOM, "phantom_clip"])
def test_merged_and_unmerged_give_the_same_logits(name: str, which: str) -> None:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        plain, adapted = (registry.build_backbone(name, 32, None) for _ in range(2))
        adapted.model.load_state_dict(plain.model.state_dict())
        lora.inject(adapted.model, adapted.lora_targets, ADAPTERS, which)
        for own_name, parameter in adapted.model.named_parameters():
            if "lora_" in own_name:
                parameter.normal_(std=0.05)
        images = torch.randn(5, 3, 32, 32)
        model = ClipIt(adapted.model, adapted.width, 4, 24).eval()
        unmerged = model(images)
        model.backbone = plain.model.eval()  # under the same heads
        without = model(images)
        lora.merge(plain.model, lora.adapters(adapted.model), ADAPTERS)
        merged = model(images)
    torch.testing.assert_close(merged.logits, unmerged.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(merged.distilled, unmerged.distilled, atol=1e-5, rtol=0)
    assert (unmerged.logits - without.logits).abs().max() > 1e-2  # the adapters matter
