"""The encoders that a profile trains on the spot: the phantom's, and the pilot's stand-in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from clipit_lib import parallel
from clipit_lib.compute import device
from clipit_lib.data.patches import augment
from clipit_lib.encoders import clips, registry, weights
from clipit_lib.encoders.encoder import Tokenizer
from clipit_lib.encoders.weights import Recipe, State
from clipit_lib.files import file_digest, progress, written_beside
from clipit_lib.settings import PhantomPretraining, StandInTraining
from clipit_lib.training import Row, Stage, descend
from companion.crc5 import CLASS_TEXTS, class_captions, retriever_patches
from companion.phantom.reports import pretraining_pairs

History = dict[str, Any]


def train(recipe: Recipe) -> History:
    """Train and keep an encoder unless that is done; return its card (history, weights hash).

    What comes after draws the same random numbers whether it was trained here or is there.
    """
    declared, gpus = json.dumps(recipe.asked["declaration"]), range(torch.cuda.device_count())

    def of_kind() -> tuple[State, History]:
        # Whoever wants it may be embedding, without gradients.
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(gpus):
            if recipe.name == registry.STAND_IN:
                own = StandInTraining.model_validate_json(declared)
                return train_stand_in(own, *retriever_patches(own.side), CLASS_TEXTS)
            train = train_clip if recipe.name in CLIP_PAIRS else train_vision
            return train(recipe.name, PhantomPretraining.model_validate_json(declared))

    return trained_once(recipe, of_kind)


def trained_once(recipe: Recipe, train: Callable[[], tuple[State, History]]) -> History:
    """Train and keep an encoder unless it is there, see `parallel.make_once`; return its card.

    Args:
        train: returns the state dict and a history worth showing.
    """

    def keep(made: tuple[State, History]) -> None:
        with written_beside(recipe.folder) as folder:
            folder.mkdir()
            model = folder / weights.TRAINED_MODEL
            save_file({k: v.contiguous() for k, v in made[0].items()}, model)
            found = {"weights_hash": file_digest(model)[:16], "history": made[1]}
            card = json.dumps({**recipe.asked, **found}, indent=1)
            (folder / weights.TRAINED_CARD).write_text(card, encoding="utf-8")

    parallel.make_once(recipe.folder, train, keep)
    return weights.read_card(recipe)


# -- Losses that they learn from; those of the method are in `clipit_lib`.


def supervised_contrastive(
    images: Float[Tensor, "b d"],
    texts: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    groups: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric image-text contrastive loss of CLIP on unit-length embeddings.

    Pairs of the same group are no negatives of each other: they share the positive mass. Without
    groups only the diagonal is positive, as in CLIP.
    """
    logits = scale * images.float() @ texts.float().T
    groups = torch.arange(len(images), device=logits.device) if groups is None else groups
    same = (groups[:, None] == groups[None, :]).float()
    target = same / same.sum(dim=1, keepdim=True)
    one_way = F.cross_entropy(logits, target)
    return (one_way + F.cross_entropy(logits.T, target)) / 2


def normalised_temperature(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], temperature: float = 0.2
) -> Float[Tensor, ""]:
    """NT-Xent of SimCLR: two views of a patch attract, all other patches repel."""
    both = F.normalize(torch.cat([first, second]).float(), dim=-1)
    logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -1e9)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(logits, partner)


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


SMALLEST = 0.6  # side of the smallest crop as a share of the patch
JITTER = 0.15  # relative spread of each colour channel's optical density


def random_view(
    pixels: UInt8[Tensor, "b s s 3"], generator: torch.Generator
) -> UInt8[Tensor, "b s s 3"]:
    """A rotated, mirrored, zoomed crop of each patch with its own stain strength."""
    count = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale, angle = uniform(SMALLEST, 1.0), uniform(0.0, 2 * math.pi)
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    room = 1 - scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift_x, shift_y = room * uniform(-1.0, 1.0), room * uniform(-1.0, 1.0)
    rows = [mirror * cos, -sin, shift_x, mirror * sin, cos, shift_y]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    images = pixels.permute(0, 3, 1, 2).float().div(255)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    cut = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    strength = 1 + JITTER * torch.randn(count, 3, 1, 1, generator=generator)
    density = -torch.log(cut.clamp(min=1 / 255)) * strength.clamp(0.5, 1.5)
    return torch.exp(-density).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


# -- The phantom's own: its CLIP on captions, its backbones without labels.

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


CLIP_PAIRS: dict[str, Callable[[PhantomPretraining], Pairs]] = {
    "phantom_clip": patches_with_captions,
    "phantom_clip_noisy": patches_with_noisy_captions,
    # Drawings that have nothing to do with tissue.
    "phantom_clip_generic": lambda own: draw_shapes(own.images, own.side, own.seed),
}


def train_clip(name: str, settings: PhantomPretraining) -> tuple[State, History]:
    """CLIP's symmetric contrastive loss on (image, caption) pairs that no data set contains."""
    pixels, captions = CLIP_PAIRS[name](settings)
    torch.manual_seed(settings.seed)
    row = registry.entry(name, clip=True)
    model = clips.build_open_clip(row, settings.side).to(device()).train()
    words = clips.open_clip_tokenizer().windows(captions, "truncate").ids
    transform = row.transform(settings.side)
    generator = torch.Generator().manual_seed(settings.seed)

    def loss(rows: np.ndarray) -> Tensor:
        images = transform(augment(torch.from_numpy(pixels[rows]), generator))
        image = F.normalize(model.encode_image(images), dim=-1)
        text = F.normalize(clips.embed_ids(model, words[rows].to(device())), dim=-1)
        return supervised_contrastive(image, text, model.logit_scale.exp().clamp(max=100.0))

    shuffle, learned = np.random.default_rng(settings.seed), list(model.parameters())
    course = _descend(name, settings, learned, loss, settings.clip_epochs, settings.images, shuffle)
    return model.state_dict(), course


def train_vision(name: str, settings: PhantomPretraining) -> tuple[State, History]:
    """SimCLR on the pretraining patches: two random views of a patch attract."""
    pixels, _ = patches_with_captions(settings)
    torch.manual_seed(settings.seed)
    encoder = registry.build_backbone(name, settings.side, None)
    width, transform = encoder.width, encoder.transform
    projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
    model = nn.Sequential(encoder.model, projector).to(device()).train()
    generator = torch.Generator().manual_seed(settings.seed)

    def loss(rows: np.ndarray) -> Tensor:
        patches = torch.from_numpy(pixels[rows])
        first, second = (model(transform(random_view(patches, generator))) for _ in range(2))
        return normalised_temperature(first, second)

    shuffle, learned = np.random.default_rng(settings.seed), list(model.parameters())
    course = _descend(
        name, settings, learned, loss, settings.vision_epochs, settings.images, shuffle
    )
    return encoder.model.state_dict(), course


def _descend(
    name: str, settings: PhantomPretraining | StandInTraining, learned: Sequence[nn.Parameter],
    loss: Callable[[np.ndarray], Tensor], epochs: int, patches: int, shuffle: np.random.Generator,
) -> History:  # fmt: skip
    """The mean loss of each epoch, and notes on it.

    Pretraining takes whole batches, a one-cycle schedule and a gradient's norm of 1 at most.

    Raises:
        Diverged: a loss, a gradient or a learned weight is not finite.
    """
    steps = max(patches // settings.batch_size, 1)
    rate, taken, clip, section = settings.learning_rate, patches, math.inf, "stand_in"
    optimiser = torch.optim.AdamW(learned, lr=rate, weight_decay=0.05, fused=True)
    if isinstance(settings, PhantomPretraining):
        taken, clip, section = steps * settings.batch_size, 1.0, "pretraining"
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps)
        optimiser.register_step_post_hook(lambda *_: schedule.step())
    values = np.zeros((epochs, steps))

    def batches(_: int) -> list[np.ndarray]:
        return np.array_split(shuffle.permutation(patches)[:taken], steps)

    def after(epoch: int, _: int, losses: list[Row]) -> None:
        values[epoch] = [each["contrastive"] for each in losses]

    stage = Stage("training", section, f"{name}, seed {settings.seed}")
    descend(
        learned, optimiser, epochs, batches, lambda rows: {"contrastive": loss(rows)}, stage, clip,
        after, name=f"train {name}",
    )  # fmt: skip
    history = [float(np.mean(row)) for row in values]
    return {"loss": history, "notes": stage.doubts(history[0], history[-1])}


# -- The pilot's stand-in retriever: two projections, trained contrastively.


def train_stand_in(
    settings: StandInTraining, pixels: np.ndarray, labels: np.ndarray, class_texts: tuple[str, ...]
) -> tuple[State, History]:
    """Fit the projections on the retriever split.

    Args:
        pixels: [n, s, s, 3] uint8; labels: [n]; class_texts: one per class.

    Raises:
        Diverged: a loss or a learned weight is not finite.
    """
    torch.manual_seed(settings.seed)
    image_tower, text_tower = clips.build_stand_in(settings)
    for tower in (image_tower, text_tower):
        tower.to(device()).eval()
    log_scale = nn.Parameter(torch.tensor(2.66, device=device()))  # ln(1 / 0.07), as CLIP starts
    rng = np.random.default_rng(settings.seed)
    captions = [class_captions(text, settings.captions_per_class, rng) for text in class_texts]
    images = _image_states(image_tower.backbone, pixels)
    texts = _text_states(text_tower, clips.stand_in_tokenizer(settings), captions)
    images_to, texts_to = image_tower.projection, text_tower.projection
    learned = [*images_to.parameters(), *texts_to.parameters(), log_scale]

    def loss(rows: np.ndarray) -> Tensor:
        group = torch.from_numpy(labels[rows])
        chosen = texts[group, torch.from_numpy(rng.integers(texts.shape[1], size=len(rows)))]
        image = F.normalize(images_to(images[torch.from_numpy(rows)]), dim=-1)
        text = F.normalize(texts_to(chosen), dim=-1)
        scale = log_scale.exp().clamp(max=100.0)
        return supervised_contrastive(image, text, scale, group.to(image.device))

    course = _descend(registry.STAND_IN, settings, learned, loss, settings.epochs, len(labels), rng)
    state = {f"image.{k}": v.cpu() for k, v in images_to.state_dict().items()}
    state |= {f"text.{k}": v.cpu() for k, v in texts_to.state_dict().items()}
    return state, course


@torch.no_grad()
def _image_states(backbone: nn.Module, pixels: np.ndarray) -> Tensor:
    transform = registry.entry(registry.STAND_IN).transform(None)
    blocks = [
        backbone(transform(pixels[i : i + 64]))
        for i in progress(range(0, len(pixels), 64), "embed retriever split", "batch")
    ]
    return torch.cat(blocks)


@torch.no_grad()
def _text_states(
    tower: clips.StandInTextTower, words: Tokenizer, captions: list[list[str]]
) -> Tensor:
    states = [tower.states(words.windows(each, "truncate").ids.to(device())) for each in captions]
    return torch.stack(states)
