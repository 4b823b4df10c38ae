"""A frozen model that refuses what it does not know."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clipit_lib.errors import ClipItError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def known(value: str, choices: Any, name: str, where: object) -> str:
    """Return `value` if it is among `choices`.

    Raises:
        ClipItError: it is not; the message lists the choices.
    """
    if value not in choices:
        raise ClipItError(
            f"unknown {name} {value!r}", where, f"Known: {', '.join(sorted(choices))}"
        )
    return value
