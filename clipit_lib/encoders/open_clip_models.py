"""open_clip models as retrievers."""

from __future__ import annotations

import logging
from pathlib import Path

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.data.transforms import Transform
from clipit_lib.encoders import checkpoint
from clipit_lib.encoders.tokens import Tokenizer
from clipit_lib.encoders.towers import ClipEncoder

CONFIGS = Path(__file__).with_name("configs")
# As `attention.make_attention_explicit` names the projections.
TEXT_TARGETS = (
    r"model\.transformer\.resblocks\.\d+\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
)
IMAGE_TARGETS = (
    r"visual\.transformer\.resblocks\.\d+\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
)

# Published CLIPs: open_clip's name of the architecture, and whether its activation is QuickGELU.
PUBLISHED = {"quiltnet": ("ViT-B-32", False), "clip": ("ViT-B-16", True)}
PUBLISHED_SIZE = 224
OTHER_HALF = r"(?!visual\.).*"  # of a checkpoint, to the image tower


class TextTower(nn.Module):
    """The text half of an open_clip model: ids [b, context] to embeddings [b, d]."""

    def __init__(self, model: open_clip.CLIP) -> None:
        super().__init__()
        self.model = model
        self.model.visual = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        return embed_ids(self.model, ids)


def embed_ids(model: open_clip.CLIP, ids: Int[Tensor, "b context"]) -> Float[Tensor, "b d"]:
    """`encode_text` without the positions that come after the end of every text of a batch.

    Attention is causal and the end is what is read, so they change nothing but the time.
    """
    ends = ids.argmax(dim=1)  # the end has the highest id
    length = ids.shape[1] if ids.is_meta else int(ends.max()) + 1  # none is read to count
    states = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    embedding: Tensor = states[torch.arange(len(ids), device=ids.device), ends]
    return embedding @ model.text_projection


class ImageTower(nn.Module):
    """The image half of an open_clip model: [b, 3, s, s] to embeddings [b, d]."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.visual(images)
        return embedding


def build_phantom_clip(side: int) -> open_clip.CLIP:
    """The phantom's CLIP with random weights for patches of `side` pixels."""
    open_clip.add_model_config(CONFIGS / "phantom_clip.json")
    logging.disable(logging.WARNING)  # it warns of random weights, which are what is wanted
    try:
        model: open_clip.CLIP = open_clip.create_model(
            "phantom_clip", pretrained=None, force_image_size=side
        )
    finally:
        logging.disable(logging.NOTSET)
    return model


def build_published(name: str) -> open_clip.CLIP:
    """A published CLIP with random weights and the image statistics of OpenAI's."""
    architecture, quick = PUBLISHED[name]
    config = open_clip.get_model_config(architecture)
    model = open_clip.CLIP(**config, quick_gelu=quick)
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.set_model_preprocess_cfg(model, statistics)
    return model.eval()


def load_published(name: str, path: Path) -> open_clip.CLIP:
    """A published CLIP with the weights of a file.

    Raises:
        ClipItError: the file is damaged or of another model.
    """
    model = build_published(name)
    checkpoint.fill(model, checkpoint.read(path), path)
    return model


def published_image_tower(name: str, path: Path) -> ImageTower:
    """The image half alone: the text half is never built in memory."""
    with torch.device("meta"):
        tower = ImageTower(build_published(name).visual)
    checkpoint.fill(tower, checkpoint.read(path), path, OTHER_HALF)
    return tower


def tokenizer(context_length: int) -> Tokenizer:
    """open_clip's byte-pair tokenizer, which ships with its package."""
    bpe = open_clip.SimpleTokenizer(context_length=context_length)
    return Tokenizer(bpe.encode, bpe.sot_token_id, bpe.eot_token_id, 0, context_length)


def wrap(name: str, model: open_clip.CLIP, weights_hash: str) -> ClipEncoder:
    """Split a CLIP into its two towers."""
    visual = model.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    mean, std = visual.image_mean, visual.image_std
    width = model.text_projection.shape[1]
    return ClipEncoder(
        name, ImageTower(visual), TextTower(model), tokenizer(model.context_length),
        Transform(size, tuple(mean), tuple(std)), width, IMAGE_TARGETS, TEXT_TARGETS,
        weights_hash, stand_in=False,
    )  # fmt: skip
