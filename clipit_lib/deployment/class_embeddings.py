"""A CLIP's image tower and one embedding a class: prompts, without what reads them."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipit_lib.model import Output


class ClassEmbeddings(nn.Module):
    """Cosines with prompts that were encoded once, over the temperature.

    Args:
        backbone: image tower, [b, 3, h, w] to [b, d].
        classes: [c, d], the mean of each class's prompt embeddings over the temperature.
    """

    def __init__(self, backbone: nn.Module, classes: Float[Tensor, "c d"]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = nn.Parameter(classes, requires_grad=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        return Output(F.normalize(self.backbone(images), dim=-1) @ self.classes.T)
