"""What the classifier of a run costs where it is deployed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from torch import nn

from clipit_lib.cost.flops import flops_per_image
from clipit_lib.cost.parameters import count_parameters
from clipit_lib.cost.prompted import CachedPrompts, EncodedPrompts, prompt_ids
from clipit_lib.errors import ClipItError
from clipit_lib.experiment import TEXT_WIDTH_WITHOUT_TEXT
from clipit_lib.model import VisionClassifier
from clipit_lib.pareto import COST_COLUMNS
from clipit_lib.reports.prompts import TEMPLATES
from clipit_lib.settings import RunSpec
from clipit_lib.variants import build
from clipit_lib.workbench import Workbench

Prompts = Literal["cached", "encoded"]


@dataclass(frozen=True)
class Cost:
    """Numbers held and operations for one image (two a multiply-add)."""

    parameters: int
    flops: int

    @property
    def gflops(self) -> float:
        return self.flops / 1e9


def deployed_cost(spec: RunSpec, bench: Workbench, prompts: Prompts = "cached") -> Cost:
    """Cost of a run's classifier with its adapters merged, one image at a time.

    Weights do not matter, so none of the run's are loaded.

    Args:
        prompts: what `contrastive` and `zero_shot` deploy: the image tower and one embedding a
            class, or both towers with every prompt encoded again for each image.

    Raises:
        ClipItError: the run classifies texts, not images.
    """
    if spec.text_only:
        raise ClipItError(f"{spec.setting} sees no image", "deployed cost", "Leave this run out")
    if spec.contrastive is not None:
        model, size = _by_prompts(spec, bench, prompts)
    else:
        model, size = _by_heads(spec, bench)
    return Cost(count_parameters(model).total, round(flops_per_image(model.eval(), size)))


def _by_heads(spec: RunSpec, bench: Workbench) -> tuple[nn.Module, int]:
    encoder = bench.backbone(spec.backbone)
    classes, size = len(bench.dataset(spec.dataset).classes), encoder.transform.size
    if spec.branch == "direct":  # its map to text features is thrown away after training
        return VisionClassifier(encoder.model, encoder.width, classes), size
    text_width = TEXT_WIDTH_WITHOUT_TEXT
    if spec.text is not None:
        text_width = bench.retriever(spec.text.retriever).width
    return build(spec, encoder.model, encoder.width, classes, text_width), size


def _by_prompts(spec: RunSpec, bench: Workbench, prompts: Prompts) -> tuple[nn.Module, int]:
    assert spec.contrastive is not None
    clip, texts = bench.retriever(spec.backbone), bench.dataset(spec.dataset).class_texts
    size = clip.transform.size
    if prompts == "cached":
        return CachedPrompts(clip.image_tower, torch.zeros(len(texts), clip.width)), size
    ids = prompt_ids(clip.tokenizer, texts, TEMPLATES[spec.contrastive.templates])
    return EncodedPrompts(clip.image_tower, clip.text_tower, ids), size


def cost_columns(specs: Iterable[RunSpec], bench: Workbench) -> pd.DataFrame:
    """One row a run: run, parameters_deployed, flops, gflops, parameters_encoded, flops_encoded.

    The last two are of prompts encoded again for each image; without prompts nothing changes.
    """
    known: dict[str, tuple[Cost, Cost]] = {}
    rows = []
    for spec in specs:
        cell = spec.model_copy(update={"seed": 0}).key  # a seed changes no shape
        if cell not in known:
            known[cell] = (deployed_cost(spec, bench), deployed_cost(spec, bench, "encoded"))
        one, other = known[cell]
        rows.append(
            [spec.key, one.parameters, one.flops, one.gflops, other.parameters, other.flops]
        )
    return pd.DataFrame(rows, columns=["run", *COST_COLUMNS])
