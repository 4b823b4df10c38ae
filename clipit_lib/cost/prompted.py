"""A CLIP as a classifier by prompts, with its text tower at hand or left behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.encoders.tokens import Tokenizer
from clipit_lib.reports.prompts import prompts


def prompt_ids(
    tokenizer: Tokenizer, class_texts: Sequence[str], templates: Sequence[str]
) -> Int[Tensor, "classes templates context"]:
    """Token ids of every class text in every template."""
    filled = prompts(class_texts, templates)
    ids = tokenizer.windows([text for of_class in filled for text in of_class], "truncate").ids
    return ids.unflatten(0, (len(class_texts), len(templates)))


class EncodedPrompts(nn.Module):
    """All prompts are encoded again in each call, as in the released code that counts FLOPs."""

    ids: Tensor

    def __init__(
        self,
        image_tower: nn.Module,
        text_tower: nn.Module,
        ids: Int[Tensor, "classes templates context"],
    ) -> None:
        super().__init__()
        self.image_tower, self.text_tower = image_tower, text_tower
        self.register_buffer("ids", ids)

    def class_embeddings(self) -> Float[Tensor, "classes d"]:
        """Mean over templates of the unit-length prompt embeddings."""
        texts = F.normalize(self.text_tower(self.ids.flatten(0, 1)), dim=-1)
        return texts.unflatten(0, self.ids.shape[:2]).mean(dim=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Cosine similarities averaged over templates: the product with their mean."""
        image = F.normalize(self.image_tower(images), dim=-1)
        return image @ self.class_embeddings().T


class CachedPrompts(nn.Module):
    """The same answers from [classes, d] numbers computed once; no text tower is deployed."""

    def __init__(self, image_tower: nn.Module, classes: Float[Tensor, "classes d"]) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.classes = nn.Parameter(classes, requires_grad=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return F.normalize(self.image_tower(images), dim=-1) @ self.classes.T


@torch.no_grad()
def cached(model: EncodedPrompts) -> CachedPrompts:
    """Encode the prompts now, for good."""
    return CachedPrompts(model.image_tower, model.class_embeddings())
