"""Classifiers of the ablations (Figure 5), and which classifier a specification asks for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipit_lib.model import ClipIt, Output, VisionClassifier
from clipit_lib.settings import RunSpec


class EarlyFusion(nn.Module):
    """One fully connected layer on [v, h_d(v)]: features are fused instead of logits."""

    def __init__(self, backbone: nn.Module, width: int, classes: int, text_width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.vision_head = nn.Linear(width, classes)
        self.distillation = nn.Linear(width, text_width)
        # The layer's other columns; zero, so that it starts as the probe it takes the first from.
        self.text_columns = nn.Linear(text_width, classes, bias=False)
        nn.init.zeros_(self.text_columns.weight)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        features = self.backbone(images)  # [b, d]
        distilled = self.distillation(features)  # [b, e]
        text = self.text_columns(F.normalize(distilled, dim=-1))
        return Output(self.vision_head(features) + text, distilled)


class Direct(VisionClassifier):
    """No text branch: text features only pull on the backbone, through a map thrown away later."""

    def __init__(self, backbone: nn.Module, width: int, classes: int, text_width: int) -> None:
        super().__init__(backbone, width, classes)
        self.distillation = nn.Linear(width, text_width)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        features = self.backbone(images)
        return Output(self.vision_head(features), self.distillation(features))


def build(
    spec: RunSpec, backbone: nn.Module, width: int, classes: int, text_width: int | None
) -> nn.Module:
    """The classifier of a specification, its heads untrained.

    Args:
        width: of the backbone's features; text_width: of the text features, None without text.
    """
    if spec.branch is None:
        return VisionClassifier(backbone, width, classes)
    assert spec.protocol is not None and text_width is not None
    if spec.branch == "early":
        return EarlyFusion(backbone, width, classes, text_width)
    if spec.branch == "direct":
        return Direct(backbone, width, classes, text_width)
    return ClipIt(
        backbone, width, classes, text_width, spec.protocol.unit_distilled,
        spec.protocol.fusion_start,
    )  # fmt: skip


def takes_text_head(model: nn.Module) -> bool:
    """Whether the classifier goes on with the head h_t of stage one."""
    return isinstance(model, ClipIt)


def text_width_of(state: dict[str, torch.Tensor]) -> int | None:
    """Width of the text features that a checkpoint predicts, None if it predicts none."""
    weight = state.get("distillation.weight")
    return None if weight is None else int(weight.shape[0])
