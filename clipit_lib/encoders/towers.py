"""What a retriever is, wherever its weights come from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from clipit_lib.data.transforms import Transform
from clipit_lib.encoders.tokens import Tokenizer


@dataclass(frozen=True)
class ClipEncoder:
    """A loaded retriever.

    Attributes:
        image_tower: [b, 3, size, size] to [b, width].
        text_tower: token ids [b, context] to [b, width].
        text_targets: regular expression of the modules LoRA adapts in the text tower.
        stand_in: True where it replaces a model that cannot be had; said wherever it appears.
    """

    name: str
    image_tower: nn.Module
    text_tower: nn.Module
    tokenizer: Tokenizer
    transform: Transform
    width: int
    image_targets: str
    text_targets: str
    weights_hash: str
    stand_in: bool
