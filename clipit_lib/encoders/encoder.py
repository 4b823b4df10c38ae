"""What every CLIP model is here: two towers and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipit_lib.data.patches import Transform

# -- Texts as token windows: what a text tower can read of a report, and how windows are pooled.

LongText = Literal["truncate", "chunk"]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer reduced to what pairing and training need.

    Attributes:
        encode: text to token ids, without start and end tokens, not truncated.
        context_length: positions of the text tower, start and end tokens included.
    """

    encode: Callable[[str], list[int]]
    start: int
    end: int
    pad: int
    context_length: int

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, start and end included."""
        return [len(self.encode(text)) + 2 for text in texts]

    def windows(self, texts: Sequence[str], long_text: LongText) -> TokenWindows:
        """Cut texts to the context window: the first only, or all of them."""
        room, rows, owners = self.context_length - 2, [], []
        for owner, text in enumerate(texts):
            ids = self.encode(text)
            last = len(ids) if long_text == "chunk" else 1
            for begin in range(0, max(last, 1), room):
                window = [self.start, *ids[begin : begin + room], self.end]
                rows.append(window + [self.pad] * (self.context_length - len(window)))
                owners.append(owner)
        return TokenWindows(torch.tensor(rows), torch.tensor(owners), len(texts))


@dataclass(frozen=True)
class TokenWindows:
    """`ids` [w, context], the text each window came from [w], and the number of texts."""

    ids: Int[Tensor, "w context"]
    owners: Int[Tensor, " w"]
    texts: int

    def select(self, rows: Int[Tensor, " m"]) -> TokenWindows:
        """The windows of some texts, renumbered in the order of `rows`."""
        order = torch.full((self.texts,), -1)
        order[rows] = torch.arange(len(rows))
        kept = order[self.owners] >= 0
        return TokenWindows(self.ids[kept], order[self.owners[kept]], len(rows))


def embed_windows(tower: nn.Module, windows: TokenWindows) -> Float[Tensor, "texts d"]:
    """Unit-length text embeddings: the mean of a text's unit-length window embeddings."""
    device = next(tower.parameters()).device
    each = F.normalize(tower(windows.ids.to(device)), dim=-1)
    if len(windows.owners) == windows.texts:
        return each[torch.argsort(windows.owners).to(device)]
    total = torch.zeros(windows.texts, each.shape[1], dtype=each.dtype, device=device)
    return F.normalize(total.index_add(0, windows.owners.to(device), each), dim=-1)


@torch.inference_mode()
def embed_texts(
    tower: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], long_text: LongText,
    batch_size: int = 64,
) -> Float[Tensor, "n d"]:  # fmt: skip
    """Unit-length embeddings of texts on the CPU, in blocks of `batch_size` texts."""
    blocks = (texts[i : i + batch_size] for i in range(0, len(texts), batch_size))
    parts = (embed_windows(tower, tokenizer.windows(block, long_text)) for block in blocks)
    return torch.cat([part.cpu() for part in parts])


@dataclass(frozen=True)
class ClipEncoder:
    """A loaded retriever: images [b, 3, size, size] or token ids [b, context] to [b, width].

    Targets are regular expressions of the modules that LoRA adapts; `stand_in`, said wherever it
    appears, is True where it replaces a model that cannot be had.
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
