"""CONCH as a retriever and a backbone; its authors' package builds it and tokenizes for it.

The package comes from its own repository and on its own terms. What it builds has the parts
`visual` (a timm ViT and attention poolers) and `text`; both towers here are made of those.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clipit_lib.data.transforms import Transform
from clipit_lib.encoders import checkpoint
from clipit_lib.encoders.tokens import Tokenizer
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.encoders.vision import OPENAI_CLIP
from clipit_lib.errors import ClipItError

PACKAGE, ARCHITECTURE = "conch", "conch_ViT-B-16"
INSTALL = (
    "Run `pip install git+https://github.com/mahmoodlab/CONCH.git`, whose licence is CC-BY-NC-ND "
    "4.0 for academic use; the weights are asked for apart"
)
SIZE, WIDTH = 448, 512
TOKENS = 127  # with start and end; one more position is the text tower's own CLS
TRANSFORM = Transform(SIZE, *OPENAI_CLIP)
IMAGE_TARGETS = r"visual\.trunk\.blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"
# As `attention.make_attention_explicit` names the projections.
TEXT_TARGETS = (
    r"model\.text\.transformer\.resblocks\.\d+"
    r"\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
)
# The published file lacks the decoder; the package itself brings position embeddings to size.
SPARE = r"(?!visual\.|text\.).*|visual\.trunk\.pos_embed"


class ImageTower(nn.Module):
    """[b, 3, 448, 448] to [b, 512]: `encode_image(x, proj_contrast=True, normalize=False)`.

    The pooler for captions is left out: it would be computed, and adapted, for nothing.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        for unused in ("attn_pool_caption", "ln_caption"):
            setattr(self.visual, unused, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        visual: Any = self.visual
        embedding: Tensor = visual.forward_project(visual.forward_no_head(images))
        return embedding


class TextTower(nn.Module):
    """Ids [b, 127] to [b, 512]: `encode_text(ids, normalize=False)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.model.visual = nn.Identity()
        self.model.text_decoder = nn.Identity()
        self.pad: int = model.pad_id  # type: ignore[assignment]

    def forward(self, ids: Tensor) -> Tensor:
        model: Any = self.model
        slot = F.pad(ids, (0, 1), value=self.pad)  # the package drops it to make room for CLS
        embedding: Tensor = model.encode_text(slot, normalize=False)
        return embedding


def load(path: Path) -> nn.Module:
    """The whole model with the weights of a file.

    Raises:
        ClipItError: the package is not installed; the file is damaged or of another model.
    """
    package, state = _package(), checkpoint.read(path)
    try:
        model: nn.Module = package.create_model_from_pretrained(
            ARCHITECTURE, str(path), return_transform=False
        )
    except (KeyError, RuntimeError) as error:
        raise ClipItError(
            f"the checkpoint does not fit CONCH ({' '.join(str(error).split())[:80]})",
            path,
            "Give the weights of the model that is named",
        ) from error
    checkpoint.check_fit(model, state, path, SPARE)  # the package overlooks what is missing
    return model.eval()


def image_tower(path: Path) -> ImageTower:
    """The image half alone, see `load`."""
    model: Any = load(path)
    return ImageTower(model.visual)


def wrap(model: nn.Module, weights_hash: str) -> ClipEncoder:
    """Split the model into its two towers."""
    visual: Any = model.visual
    return ClipEncoder(
        "conch", ImageTower(visual), TextTower(model), tokenizer(), TRANSFORM, WIDTH,
        IMAGE_TARGETS, TEXT_TARGETS, weights_hash, stand_in=False,
    )  # fmt: skip


def tokenizer() -> Tokenizer:
    """The package's byte-pair tokenizer.

    Raises:
        ClipItError: the package is not installed.
    """
    pieces = _package().get_tokenizer()

    def encode(text: str) -> list[int]:
        ids: list[int] = pieces.encode(text, add_special_tokens=False, verbose=False)
        return ids

    return Tokenizer(
        encode, pieces.bos_token_id, pieces.eos_token_id, pieces.pad_token_id, TOKENS
    )  # fmt: skip


def _package() -> Any:
    try:
        with warnings.catch_warnings():  # it imports timm's layers from where they used to be
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm\..*")
            return importlib.import_module(f"{PACKAGE}.open_clip_custom")
    except ImportError as error:
        raise ClipItError(
            f"the package that builds CONCH is not installed ({error})", PACKAGE, INSTALL
        ) from error
