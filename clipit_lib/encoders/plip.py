"""PLIP as a retriever and a backbone: a CLIP ViT-B/32 in the layout of transformers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from clipit_lib.data.transforms import Transform
from clipit_lib.encoders import checkpoint
from clipit_lib.encoders.open_clip_models import tokenizer
from clipit_lib.encoders.store import State
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.encoders.vision import OPENAI_CLIP

SIZE, WIDTH, CONTEXT = 224, 512, 77
TRANSFORM = Transform(SIZE, *OPENAI_CLIP)
LAYERS = r"encoder\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"
IMAGE_TARGETS, TEXT_TARGETS = rf"model\.vision_model\.{LAYERS}", rf"model\.text_model\.{LAYERS}"
# Both halves are in one file; positions are numbers that older versions kept as weights.
POSITIONS = r".*\.position_ids|logit_scale"


class ImageTower(nn.Module):
    """[b, 3, 224, 224] to [b, 512]; the defaults of its configuration are ViT-B/32's."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CLIPVisionModelWithProjection(CLIPVisionConfig())

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.model(pixel_values=images).image_embeds
        return embedding


class TextTower(nn.Module):
    """Ids [b, 77] to [b, 512]; what follows the end token is never looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CLIPTextModelWithProjection(CLIPTextConfig())

    def forward(self, ids: Tensor) -> Tensor:
        embedding: Tensor = self.model(input_ids=ids).text_embeds
        return embedding


def image_tower(path: Path) -> ImageTower:
    """The image half alone with the weights of a file."""
    return _filled_image(checkpoint.read(path), path)


def load(path: Path, weights_hash: str) -> ClipEncoder:
    """Both halves with the weights of a file.

    Raises:
        ClipItError: the file is damaged or of another model.
    """
    state = checkpoint.read(path)
    text = TextTower()
    spare = rf"{POSITIONS}|vision_model\..*|visual_projection\..*"
    checkpoint.fill(text.model, state, path, spare)
    return wrap(_filled_image(state, path), text, weights_hash)


def _filled_image(state: State, path: Path) -> ImageTower:
    image = ImageTower()
    spare = rf"{POSITIONS}|text_model\..*|text_projection\..*"
    checkpoint.fill(image.model, state, path, spare)
    return image.eval()


def wrap(image: ImageTower, text: TextTower, weights_hash: str) -> ClipEncoder:
    """Two towers as a retriever."""
    return ClipEncoder(
        "plip", image, text.eval(), tokenizer(CONTEXT), TRANSFORM, WIDTH, IMAGE_TARGETS,
        TEXT_TARGETS, weights_hash, stand_in=False,
    )  # fmt: skip
