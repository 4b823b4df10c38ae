"""The stand-in retriever's image half: an ImageNet network and a projection, without any text."""

from __future__ import annotations

from torch import Tensor, nn

from clipit_lib.encoders import vision
from clipit_lib.encoders.sources import Sources
from clipit_lib.encoders.store import State

BACKBONE = "efficientnet_lite2"
TARGETS = rf"backbone\.{vision.POINTWISE_TARGETS}"


class ImageTower(nn.Module):
    """[b, 3, s, s] to [b, width]."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(int(backbone.num_features), width)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(images))
        return projected

    def load_projection(self, state: State) -> None:
        """Take the image half out of the stand-in's trained projections."""
        self.projection.load_state_dict(part(state, "image."))


def build(width: int) -> ImageTower:
    """The frozen network with an untrained projection."""
    return ImageTower(vision.load(BACKBONE, Sources()).model, width)


def part(state: State, prefix: str) -> State:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
