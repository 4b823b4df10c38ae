"""Reading a checkpoint of someone else: no code in it is run, and every weight has its place."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from clipit_lib.encoders.store import State
from clipit_lib.errors import ClipItError

WRAPPINGS = ("state_dict", "model")  # keys under which training scripts put the weights
PARALLEL = "module."
SAVED = (b"PK", b"\x80")  # how files of torch.save begin, now and formerly
GIVE = "Give the weights of the model that is named"


def read(path: Path) -> State:
    """The tensors of a safetensors file or of a pickle that holds nothing but tensors.

    Raises:
        ClipItError: the file is damaged, holds no weights, or would have to run code.
    """
    damaged = ClipItError("this checkpoint is damaged", path, "Delete it and fetch it again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as stream:
            if not stream.read(2).startswith(SAVED):
                raise damaged
        held = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ClipItError(
            "this checkpoint holds more than tensors and would run code when read, so it was not",
            path,
            "Use the file that its authors publish, or a safetensors copy of it",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise damaged from error
    return _unwrapped(held, path)


def _unwrapped(held: Any, path: Path) -> State:
    for key in WRAPPINGS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict):
        raise ClipItError(f"a {type(held).__name__}, no weights by name", path, GIVE)
    state = {k: v for k, v in held.items() if isinstance(v, torch.Tensor)}
    parallel = all(key.startswith(PARALLEL) for key in state)
    return {key.removeprefix(PARALLEL) if parallel else key: v for key, v in state.items()}


def check_fit(model: nn.Module, state: State, path: object, spare: str = r"(?!)") -> None:
    """Raise unless a checkpoint has every weight of a model, in its shape, and no other.

    Args:
        spare: regular expression of names that the checkpoint may hold or lack as it likes.

    Raises:
        ClipItError: counts of what is missing, unexpected and of another shape, five by name.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not re.fullmatch(spare, k)}
    given = {k: v for k, v in state.items() if not re.fullmatch(spare, k)}
    missing, unexpected = [k for k in wanted if k not in given], given.keys() - wanted.keys()
    other = [k for k, v in wanted.items() if k in given and given[k].shape != v.shape]
    if missing or unexpected or other:
        first = [*missing, *sorted(unexpected), *other][:5]
        raise ClipItError(
            f"the checkpoint does not fit: {len(missing)} weights missing, {len(unexpected)} "
            f"unexpected, {len(other)} of another shape ({', '.join(first)})",
            path,
            GIVE,
        )


def fill(model: nn.Module, state: State, path: object, spare: str = r"(?!)") -> None:
    """Put a checkpoint into a model, in place of its weights; see `check_fit`.

    The model may lie on PyTorch's `meta` device: then it comes to hold the checkpoint's tensors.
    """
    check_fit(model, state, path, spare)
    wanted = model.state_dict().keys()
    chosen = {k: v.float() if v.is_floating_point() else v for k, v in state.items() if k in wanted}
    model.load_state_dict(chosen, strict=False, assign=True)
