"""CLIP-IT and the models it is compared with (section 3.2, algorithms 2 and 3; Figure 5).

Shapes: b patches, d backbone width, e text width, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipit_lib.settings import RunSpec


@dataclass(frozen=True)
class Output:
    """Logits of an image-only forward pass, and the text features h_d(v) of a text branch."""

    logits: Float[Tensor, "b c"]
    distilled: Float[Tensor, "b e"] | None = None


class TextHead(nn.Sequential):
    """h_t: [b, e] text features to [b, c] logits, one hidden layer."""

    def __init__(self, text_width: int, classes: int) -> None:
        super().__init__(
            nn.Linear(text_width, text_width), nn.LeakyReLU(0.1), nn.Linear(text_width, classes)
        )


class VisionClassifier(nn.Module):
    """Backbone f'_v and linear head h_v: the unimodal baseline and the LoRA-only control."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.vision_head = nn.Linear(width, classes)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        return Output(self.vision_head(self.backbone(images)))


class TextBranch(VisionClassifier):
    """A backbone that predicts text features too: h_d. How they count is a subclass's `answer`; as
    it is (direct distillation) they only pull on the backbone, through a map thrown away later.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int, text_width: int) -> None:
        super().__init__(backbone, width, classes)
        self.distillation = nn.Linear(width, text_width)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        features = self.backbone(images)  # [b, d]
        distilled = self.distillation(features)  # [b, e]
        return Output(self.answer(features, distilled), distilled)

    def answer(self, features: Float[Tensor, "b d"], distilled: Float[Tensor, "b e"]) -> Tensor:
        """Logits [b, c] of a patch's features and of the text features that they predict."""
        logits: Tensor = self.vision_head(features)
        return logits


class EarlyFusion(TextBranch):
    """One fully connected layer on [v, h_d(v)]: features are fused instead of logits."""

    def __init__(self, backbone: nn.Module, width: int, classes: int, text_width: int) -> None:
        super().__init__(backbone, width, classes, text_width)
        # The layer's other columns; zero, so that it starts as the probe it takes the first from.
        self.text_columns = nn.Linear(text_width, classes, bias=False)
        nn.init.zeros_(self.text_columns.weight)

    def answer(self, features: Float[Tensor, "b d"], distilled: Float[Tensor, "b e"]) -> Tensor:
        logits = super().answer(features, distilled)
        return logits + self.text_columns(F.normalize(distilled, dim=-1))


class ClipIt(TextBranch):
    """z = g([h_v(v), h_t(h_d(v))]) with v = f'_v(image): no text enters the forward pass.

    Args:
        normalise: bring h_d(v) to unit length before h_t, which was trained on such features.
        fusion_start: `average` starts g as the mean of both logits, `random` as PyTorch does.
    """

    def __init__(
        self, backbone: nn.Module, width: int, classes: int, text_width: int,
        normalise: bool = True, fusion_start: Literal["average", "random"] = "average",
    ) -> None:  # fmt: skip
        super().__init__(backbone, width, classes, text_width)
        self.text_head = TextHead(text_width, classes)
        self.fusion = nn.Linear(2 * classes, classes)
        self.normalise = normalise
        if fusion_start == "average":
            half = torch.eye(classes) / 2
            with torch.no_grad():
                self.fusion.weight.copy_(torch.cat([half, half], dim=1))
                self.fusion.bias.zero_()

    def answer(self, features: Float[Tensor, "b d"], distilled: Float[Tensor, "b e"]) -> Tensor:
        text = F.normalize(distilled, dim=-1) if self.normalise else distilled
        both = [super().answer(features, distilled), self.text_head(text)]
        fused: Tensor = self.fusion(torch.cat(both, dim=-1))  # of [b, 2c]
        return fused


def train_mode(model: nn.Module) -> None:
    """Training mode, except that batch normalisation keeps the statistics it came with.

    A backbone of which only adapters learn must not drift through its running averages.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def build_model(
    spec: RunSpec, backbone: nn.Module, width: int, classes: int, text_width: int | None
) -> nn.Module:
    """The classifier of a specification, its heads untrained, on features of these widths."""
    if spec.branch is None:
        return VisionClassifier(backbone, width, classes)
    assert spec.protocol is not None and text_width is not None
    if spec.branch in ("early", "direct"):
        kind = EarlyFusion if spec.branch == "early" else TextBranch
        return kind(backbone, width, classes, text_width)
    return ClipIt(
        backbone, width, classes, text_width, spec.protocol.unit_distilled,
        spec.protocol.fusion_start,
    )  # fmt: skip


def text_width_of(state: dict[str, torch.Tensor]) -> int | None:
    """Width of the text features that a checkpoint predicts, None if it predicts none."""
    weight = state.get("distillation.weight")
    return None if weight is None else int(weight.shape[0])
