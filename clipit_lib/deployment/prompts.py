"""Zero-shot and contrastive runs: their prompts are encoded now, for good."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from clipit_lib import lora
from clipit_lib.contrastive import PromptClassifier
from clipit_lib.data.transforms import Transform
from clipit_lib.deployment.class_embeddings import ClassEmbeddings
from clipit_lib.encoders import backbones, clip, weights
from clipit_lib.outcome import State
from clipit_lib.settings import RunSpec


@torch.no_grad()
def without_text(spec: RunSpec, state: State, folder: Path) -> tuple[ClassEmbeddings, Transform]:
    """The image-only classifier of a run that classifies by prompts, and its input transform.

    Args:
        state: the run's adapters, of both towers.

    Raises:
        ClipItError: other weights of the CLIP than the run was made with.
    """
    settings = spec.contrastive
    assert settings is not None
    sources = weights.sources_of(spec)
    weights.require(spec, backbones.weights_hash(spec.backbone, sources), folder)
    encoder = clip.load(spec.backbone, sources)
    model = PromptClassifier(encoder, settings)
    if spec.lora is not None:
        for name in ("image_tower", "text_tower"):
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(name)}
            lora.merge(model.get_submodule(name), own, spec.lora)
    classes = F.normalize(model.eval().all_prompts().float(), dim=-1).mean(dim=1)  # [c, d]
    if settings.averaging == "embeddings":
        classes = F.normalize(classes, dim=-1)
    return ClassEmbeddings(model.image_tower, classes / settings.temperature), encoder.transform
