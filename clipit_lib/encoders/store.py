"""Encoders trained on the spot: one folder each, found and named by what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from clipit_lib import paths
from clipit_lib.data.phantom import VERSION as PHANTOM_VERSION
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, file_digest, locked, whole, written_beside

State = dict[str, torch.Tensor]
VERSION = 2
MODEL, CARD = "model.safetensors", "encoder.json"
AGAIN = "Delete the folder that it is in and run again"


@dataclass(frozen=True)
class Recipe:
    """What an encoder is trained from: this names it, not the bytes that training gives.

    Raises:
        ClipItError: when used, if there is no declaration.
    """

    name: str
    declaration: BaseModel | None
    kernels: str  # see `kernels.level`

    @property
    def asked(self) -> dict[str, Any]:
        if self.declaration is None:
            raise ClipItError(
                f"{self.name} is trained here but the profile does not say how",
                "pretraining",
                "Add a `pretraining` section to the profile or choose another encoder",
            )
        return {
            "version": [VERSION, PHANTOM_VERSION],
            "name": self.name,
            "declaration": self.declaration.model_dump(mode="json"),
            "kernels": self.kernels,
        }

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        return digest(canonical_json(self.asked))

    @property
    def folder(self) -> Path:
        return paths.cache() / "encoders" / f"{self.name}-{self.key}"

    @property
    def trained(self) -> bool:
        return (self.folder / CARD).exists()


def get_or_train(
    recipe: Recipe, train: Callable[[], tuple[State, dict[str, Any]]]
) -> dict[str, Any]:
    """Train and keep an encoder unless it is there; return its card.

    Args:
        train: returns the state dict and a history worth showing.
    """
    if not recipe.trained:
        with locked(recipe.folder):
            if not recipe.trained:
                _keep(recipe, *train())
    return read_card(recipe)


def _keep(recipe: Recipe, state: State, history: dict[str, Any]) -> None:
    with written_beside(recipe.folder) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in state.items()}, temporary / MODEL)
        weights = file_digest(temporary / MODEL)[:16]
        card = recipe.asked | {"weights_hash": weights, "history": history}
        (temporary / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")


def read_card(recipe: Recipe) -> dict[str, Any]:
    """What is known of a trained encoder; `weights_hash` names the bytes that training gave.

    Raises:
        ClipItError: it has not been trained, or its card is damaged.
    """
    path = recipe.folder / CARD
    if not recipe.trained:
        raise ClipItError(
            f"the encoder {recipe.name} has not been trained yet",
            path,
            "Run notebook 00_encoders first",
        )
    with whole(path, AGAIN):
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def load(recipe: Recipe) -> State:
    """The trained weights.

    Raises:
        ClipItError: never trained, or the file does not match its card.
    """
    card, path = read_card(recipe), recipe.folder / MODEL
    with whole(path, AGAIN):
        if file_digest(path)[:16] != card["weights_hash"]:
            raise ClipItError("the file does not match its card", path, AGAIN)
        return load_file(path)
