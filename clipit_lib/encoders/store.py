"""Encoders trained on the spot: one folder each, found by what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, file_digest, locked, whole, written_beside

State = dict[str, torch.Tensor]
VERSION = 1
MODEL, CARD = "model.safetensors", "encoder.json"
AGAIN = "Delete the folder that it is in and run again"


def folder(name: str, declaration: BaseModel | None) -> Path:
    """Where an encoder of this name, trained as declared, is kept."""
    if declaration is None:
        raise ClipItError(
            f"{name} is trained here but the profile does not say how",
            "pretraining",
            "Add a `pretraining` section to the profile or choose another encoder",
        )
    asked = canonical_json([VERSION, name, declaration.model_dump(mode="json")])
    return paths.cache() / "encoders" / f"{name}-{digest(asked)}"


def get_or_train(
    name: str, declaration: BaseModel | None, train: Callable[[], tuple[State, dict[str, Any]]]
) -> dict[str, Any]:
    """Train and keep an encoder unless it is there; return its card.

    Args:
        train: returns the state dict and a history worth showing.
    """
    place = folder(name, declaration)
    if not (place / CARD).exists():
        with locked(place):
            if not (place / CARD).exists():
                _keep(place, name, declaration, *train())
    return read_card(name, declaration)


def _keep(
    place: Path, name: str, declaration: BaseModel | None, state: State, history: dict[str, Any]
) -> None:
    assert declaration is not None
    with written_beside(place) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in state.items()}, temporary / MODEL)
        card = {
            "name": name,
            "declaration": declaration.model_dump(mode="json"),
            "weights_hash": file_digest(temporary / MODEL)[:16],
            "history": history,
        }
        (temporary / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")


def read_card(name: str, declaration: BaseModel | None) -> dict[str, Any]:
    """What is known of a trained encoder.

    Raises:
        ClipItError: it has not been trained, or its card is damaged.
    """
    path = folder(name, declaration) / CARD
    if not path.exists():
        raise ClipItError(
            f"the encoder {name} has not been trained yet", path, "Run notebook 00_encoders first"
        )
    with whole(path, AGAIN):
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def weights_hash(name: str, declaration: BaseModel | None) -> str:
    """16 hexadecimal digits that name the trained weights."""
    return str(read_card(name, declaration)["weights_hash"])


def load(name: str, declaration: BaseModel | None) -> State:
    """The trained weights.

    Raises:
        ClipItError: never trained, or the file does not match its card.
    """
    card, path = read_card(name, declaration), folder(name, declaration) / MODEL
    with whole(path, AGAIN):
        if file_digest(path)[:16] != card["weights_hash"]:
            raise ClipItError("the file does not match its card", path, AGAIN)
        return load_file(path)
