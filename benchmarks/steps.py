"""Tasks whose training steps are timed: LoRA on vision alone, CLIP-IT, and the released way."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.released import EveryReport
from clipit_lib import lora
from clipit_lib.compute import seeded
from clipit_lib.encoders.encoder import ClipEncoder, TokenWindows
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.settings import Lora, Training
from clipit_lib.training import ImageTask, MovingTargets, Patches, Targets, fit

CLASSES = 2
LORA = Lora()


class Steps(ImageTask):
    """Training steps and nothing else: no look at validation is timed."""

    def validate(self) -> float:
        return 0.0


def noise(encoder: VisionEncoder, count: int) -> Patches:
    """Patches of uniform noise at the size that the backbone takes."""
    side = encoder.transform.size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Patches(pixels, np.arange(count), torch.arange(count) % CLASSES, encoder.transform)


def adapted(model: nn.Module, targets: str, which: lora.Targets = "attention_mlp") -> nn.Module:
    """A copy with adapters."""
    own = copy.deepcopy(model)
    with seeded(0):
        lora.inject(own, targets, LORA, which)
    return own


def vision_only(encoder: VisionEncoder, data: Patches) -> Steps:
    """The LoRA-only control: no text, no text branch."""
    backbone = adapted(encoder.model, encoder.lora_targets)
    return Steps(VisionClassifier(backbone, encoder.width, CLASSES), data, data, False)


def clip_it(
    encoder: VisionEncoder, clip: ClipEncoder, data: Patches, targets: Targets | MovingTargets
) -> Steps:
    """CLIP-IT by the paper's protocol, with some targets."""
    backbone = adapted(encoder.model, encoder.lora_targets)
    with seeded(0):
        model = ClipIt(backbone, encoder.width, CLASSES, clip.width)
    return Steps(model, data, data, False, False, targets, 1.0)


def released(
    encoder: VisionEncoder, clip: ClipEncoder, data: Patches, windows: TokenWindows, report: Tensor
) -> Steps:
    """Every module adapted in both towers, a frozen vision head that only adapters move."""
    backbone = adapted(encoder.model, encoder.lora_targets, "all")
    model = ClipIt(backbone, encoder.width, CLASSES, clip.width, False, "random")
    lora.adapt_head(model, LORA)
    targets = EveryReport(adapted(clip.text_tower, clip.text_targets, "all"), windows, report)
    return Steps(model, data, data, False, True, targets, 1.0)


def fitted(task: Steps, batch: int) -> Callable[[], object]:
    """A call that trains for one epoch, as the library does."""
    settings = Training(batch_size=batch)
    tower = task.targets.tower if isinstance(task.targets, MovingTargets) else None
    return lambda: fit(task, settings, 0, "last", tower)


@torch.no_grad()
def difference(one: Steps, other: Steps) -> float:
    """How far apart two losses of the first batch are, with equal weights."""
    rows, rng = torch.arange(min(64, one.rows)), torch.Generator()
    first, second = (sum(task.loss(task.model, rows, rng).values()) for task in (one, other))
    return abs(float(first) - float(second))
