"""The paper's own models under our accounting: shapes without weights, nothing is computed.

ViT-B/16 at 224 pixels stands for CONCH's image tower, whose attention poolers are left out, and 12
blocks of width 768 over 128 tokens for its text tower; two classes in 22 templates are 44 prompts.
"""

from __future__ import annotations

import copy

import open_clip
import pandas as pd
import timm
import torch

from clipit_lib import lora
from clipit_lib.cost.inference import (
    CACHED,
    ENCODED,
    MERGED,
    UNIMODAL,
    UNMERGED,
    Variant,
)
from clipit_lib.cost.prompted import CachedPrompts, EncodedPrompts
from clipit_lib.encoders.open_clip_models import ImageTower, TextTower
from clipit_lib.encoders.vision import VIT_TARGETS
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.paper import cost as paper
from clipit_lib.settings import Lora

SIZE, WIDTH, TEXT_WIDTH, CONTEXT, VOCABULARY = 224, 768, 512, 128, 32007
CLASSES, TEMPLATES = 2, 22
VISION = {"image_size": SIZE, "layers": 12, "width": WIDTH, "patch_size": 16}
TEXT = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 12,
        "layers": 12}  # fmt: skip


def published_variants() -> dict[str, Variant]:
    """The five variants at the paper's scale, on PyTorch's `meta` device."""
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0).requires_grad_(False)
        adapted = copy.deepcopy(vit)
        lora.inject(adapted, VIT_TARGETS, Lora())
        clip = open_clip.CLIP(TEXT_WIDTH, VISION, TEXT).requires_grad_(False)
        image, text = ImageTower(clip.visual), TextTower(clip)
        ids = torch.zeros(CLASSES, TEMPLATES, CONTEXT, dtype=torch.long)
        merged = ClipIt(vit, WIDTH, CLASSES, TEXT_WIDTH).requires_grad_(False)
        models = {
            UNIMODAL: VisionClassifier(vit, WIDTH, CLASSES),
            UNMERGED: ClipIt(adapted, WIDTH, CLASSES, TEXT_WIDTH),
            MERGED: merged,
            ENCODED: EncodedPrompts(image, text, ids),
            CACHED: CachedPrompts(image, torch.zeros(CLASSES, TEXT_WIDTH)),
        }
    return {name: Variant(model.eval(), SIZE) for name, model in models.items()}


def beside_printed(counted: pd.DataFrame) -> pd.DataFrame:
    """Multiply-adds and parameters of `published_variants` (see `cost_table`), the first beside
    what the paper prints: variant, gmacs, printed, parameters_M."""
    printed = paper.compute().set_index("variant")["gflops"]
    table = counted[["variant", "gmacs"]].assign(
        printed=counted["variant"].map(
            {UNIMODAL: printed["unimodal"], MERGED: printed["clip_it"], ENCODED: printed["clip"]}
        ),
        parameters_M=counted["parameters"] / 1e6,
    )
    return table.round(4)


def prompt_gmacs(counted: pd.DataFrame) -> float:
    """Multiply-adds of one encoded prompt, in units of 10^9."""
    gmacs = counted.set_index("variant")["gmacs"]
    return float(gmacs[ENCODED] - gmacs[CACHED]) / (CLASSES * TEMPLATES)
