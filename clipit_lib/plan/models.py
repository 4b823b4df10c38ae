"""What must be known of a backbone to plan with it; nothing is computed or loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clipit_lib import lora
from clipit_lib.cost.flops import flops_per_image
from clipit_lib.encoders import backbones, vision
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.settings import Profile


@dataclass(frozen=True)
class Facts:
    """Of one backbone: multiply-adds of an image (what the paper calls FLOPs), features, and how
    many numbers its adapters hold."""

    multiply_adds: float
    width: int
    adapters: int


def facts(name: str, profile: Profile) -> Facts:
    """Count on the architecture without weights."""
    with torch.device("meta" if name in vision.VISION else "cpu"):
        encoder = architecture(name, profile)
        cost = flops_per_image(encoder.model.eval(), encoder.transform.size) / 2
        lora.inject(encoder.model, encoder.lora_targets, profile.lora)
    adapters = (p for n, p in encoder.model.named_parameters() if "lora_" in n)
    return Facts(cost, encoder.width, sum(p.numel() for p in adapters))


def architecture(name: str, profile: Profile) -> VisionEncoder:
    """A backbone with random weights."""
    side = profile.pretraining.side if profile.pretraining else None
    return backbones.untrained(name, side, profile.stand_in)
