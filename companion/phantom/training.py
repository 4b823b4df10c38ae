"""The phantom's own encoders, trained on the spot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from clipit_lib.compute import device
from clipit_lib.data.patches import augment
from clipit_lib.encoders import clips, registry
from clipit_lib.encoders.weights import State
from clipit_lib.losses import normalised_temperature, supervised_contrastive
from clipit_lib.settings import PhantomPretraining
from clipit_lib.training import Stage, descend
from companion.phantom.reports import pretraining_pairs

# -- Drawings of coloured shapes with captions: what a CLIP learns from that never saw tissue.


COLOURS = {
    "red": (210, 50, 45), "green": (60, 160, 75), "blue": (50, 90, 200), "yellow": (235, 205, 60),
    "white": (245, 245, 245), "black": (25, 25, 25), "orange": (235, 140, 40),
    "purple": (130, 60, 160), "pink": (240, 150, 190), "grey": (128, 128, 128),
}  # fmt: skip
SHAPES = ("circle", "square", "stripe", "ring", "triangle")
SIZES = {"small": 0.12, "large": 0.26}
COUNTS = {1: "one", 2: "two", 3: "three"}
FRAMES = ("{}", "a drawing of {}", "a picture with {}", "this image shows {}")
SHAPES_KEY = 5000  # first spawn key of a seed stream that no data set, caption or report uses


def draw_shapes(images: int, side: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Pixels [images, side, side, 3] uint8 and one caption each."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SHAPES_KEY,)))
    pixels, captions = zip(*(_drawing(side, rng) for _ in range(images)), strict=True)
    return np.stack(pixels), list(captions)


def _drawing(side: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    ground, colour = rng.choice(list(COLOURS), 2, replace=False)
    shape, size = str(rng.choice(SHAPES)), str(rng.choice(list(SIZES)))
    count = int(rng.integers(1, 4))
    image = np.tile(np.array(COLOURS[ground], np.float64), (side, side, 1))
    for _ in range(count):
        image[_mask(shape, SIZES[size], side, rng)] = COLOURS[colour]
    image += rng.normal(0, 8, image.shape)
    plural = "" if count == 1 else "s"
    what = f"{COUNTS[count]} {size} {colour} {shape}{plural} on a {ground} ground"
    caption = str(rng.choice(FRAMES)).format(what)
    return np.clip(image, 0, 255).astype(np.uint8), caption


def _mask(shape: str, radius: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """[side, side] bool of one shape at a random place; `radius` is a share of the side."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    middle = rng.uniform(0.2, 0.8, 2)
    y, x = rows - middle[0], columns - middle[1]
    distance = np.hypot(x, y)
    masks = {
        "circle": distance < radius,
        "square": np.maximum(abs(x), abs(y)) < radius,
        "stripe": abs(x) < radius / 3,
        "ring": (distance < radius) & (distance > 0.6 * radius),
        "triangle": (y < radius) & (y > 2 * abs(x) - radius),
    }
    return np.asarray(masks[shape])


# -- Random views of patches for training without labels.


def random_view(
    pixels: UInt8[Tensor, "b s s 3"],
    generator: torch.Generator,
    smallest: float = 0.6,
    jitter: float = 0.15,
) -> UInt8[Tensor, "b s s 3"]:
    """A rotated, mirrored, zoomed crop of each patch with its own stain strength.

    Args:
        smallest: side of the smallest crop as a share of the patch.
        jitter: relative spread of each colour channel's optical density.
    """
    count = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale, angle = uniform(smallest, 1.0), uniform(0.0, 2 * math.pi)
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    room = 1 - scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift_x, shift_y = room * uniform(-1.0, 1.0), room * uniform(-1.0, 1.0)
    rows = [mirror * cos, -sin, shift_x, mirror * sin, cos, shift_y]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    images = pixels.permute(0, 3, 1, 2).float().div(255)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    cut = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    strength = 1 + jitter * torch.randn(count, 3, 1, 1, generator=generator)
    density = -torch.log(cut.clamp(min=1 / 255)) * strength.clamp(0.5, 1.5)
    return torch.exp(-density).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


# -- Train the phantom's own encoders: its CLIP on captions, its backbones without labels.


History = dict[str, Any]
Pairs = tuple[np.ndarray, list[str]]
NOISE = 0.5


def patches_with_captions(settings: PhantomPretraining) -> Pairs:
    """What a histology CLIP learns from, in miniature."""
    return pretraining_pairs(settings.images, settings.side, settings.seed)[:2]


def patches_with_noisy_captions(settings: PhantomPretraining) -> Pairs:
    """The same patches; a share NOISE of them has the caption of another patch."""
    pixels, captions = patches_with_captions(settings)
    rng = np.random.default_rng([settings.seed, 3])
    moved = rng.permutation(len(captions))[: round(NOISE * len(captions))]
    noisy = list(captions)
    for row, other in zip(moved, np.roll(moved, 1), strict=True):
        noisy[row] = captions[other]
    return pixels, noisy


def shapes_with_captions(settings: PhantomPretraining) -> Pairs:
    """Drawings that have nothing to do with tissue."""
    return draw_shapes(settings.images, settings.side, settings.seed)


CLIP_PAIRS: dict[str, Callable[[PhantomPretraining], Pairs]] = {
    "phantom_clip": patches_with_captions,
    "phantom_clip_noisy": patches_with_noisy_captions,
    "phantom_clip_generic": shapes_with_captions,
}


def train_clip(name: str, settings: PhantomPretraining) -> tuple[State, History]:
    """CLIP's symmetric contrastive loss on (image, caption) pairs that no data set contains.

    Returns the state dict of an open_clip model and the mean loss of each epoch.
    """
    pixels, captions = CLIP_PAIRS[name](settings)
    torch.manual_seed(settings.seed)
    row = registry.clip_entry(name)
    model = clips.build_open_clip(row, settings.side).to(device())
    words = clips.open_clip_tokenizer().windows(captions, "truncate").ids
    transform = row.transform(settings.side)

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        images = transform(augment(torch.from_numpy(pixels[rows]), generator))
        image = F.normalize(model.encode_image(images.to(device())), dim=-1)
        text = F.normalize(clips.embed_ids(model, words[rows].to(device())), dim=-1)
        return supervised_contrastive(image, text, model.logit_scale.exp().clamp(max=100.0))

    course = _descend(model, loss, settings, settings.clip_epochs, name)
    return model.state_dict(), course


def train_vision(name: str, settings: PhantomPretraining) -> tuple[State, History]:
    """SimCLR on the pretraining patches: two random views of a patch attract.

    Returns the backbone's state dict (the projector is thrown away) and the loss of each epoch.
    """
    pixels, _, _ = pretraining_pairs(settings.images, settings.side, settings.seed)
    torch.manual_seed(settings.seed)
    encoder = registry.untrained_backbone(name, settings.side, None)
    width, transform = encoder.width, encoder.transform
    projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
    model = nn.Sequential(encoder.model, projector).to(device())

    def loss(rows: np.ndarray, generator: torch.Generator) -> Tensor:
        patches = torch.from_numpy(pixels[rows])
        first, second = (
            model(transform(random_view(patches, generator)).to(device())) for _ in range(2)
        )
        return normalised_temperature(first, second)

    course = _descend(model, loss, settings, settings.vision_epochs, name)
    return encoder.model.state_dict(), course


def _descend(
    model: nn.Module, loss: Any, settings: PhantomPretraining, epochs: int, name: str
) -> History:
    """AdamW with a one-cycle schedule; returns the mean loss of each epoch, and notes on it.

    Raises:
        Diverged: a loss, a gradient or a learned weight is not finite.
    """
    stage = Stage("training", "pretraining", f"{name}, seed {settings.seed}")
    steps = max(settings.images // settings.batch_size, 1)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=epochs * steps
    )
    shuffle = np.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    model.train()
    values = np.zeros((epochs, steps))

    def batches(_: int) -> list[np.ndarray]:
        order = shuffle.permutation(settings.images)[: steps * settings.batch_size]
        return np.array_split(order, steps)

    def after(epoch: int, step: int, _: int, losses: dict[str, float]) -> None:
        schedule.step()
        values[epoch, step - 1] = losses["contrastive"]

    def parts(rows: np.ndarray) -> dict[str, Tensor]:
        return {"contrastive": loss(rows, generator)}

    learned = list(model.parameters())
    descend(learned, optimiser, epochs, batches, parts, stage, 1.0, after, f"train {name}")
    history = [float(np.mean(row)) for row in values]
    return {"loss": history, "notes": stage.doubts(history[0], history[-1])}
