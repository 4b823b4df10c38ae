"""The claims of `paper/claims.yaml`: one class a kind of rule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clipit_lib.paper import HERE
from clipit_lib.settings import Strict
from clipit_lib.settings.reading import read_strict


class Stated(Strict):
    """What every claim says of itself.

    Attributes:
        where: table, figure or section of the paper.
        paper: what the paper finds, in words.
        paper_gain: the same as one difference in points, where the paper has it.
        note: what a reader of the verdict must know.
    """

    id: str
    claim: str
    where: str
    paper: str
    paper_gain: float | None = None
    note: str | None = None


class Compared(Stated):
    """A claim on settings of one study; `datasets` limits it to those that the profile has."""

    study: str
    datasets: tuple[str, ...] = ()


class Pair(Compared):
    """A claim on the gain of `second` over `first`."""

    second: str
    first: str

    @property
    def settings(self) -> tuple[str, ...]:
        return (self.first, self.second)


class Gain(Pair):
    kind: Literal["gain"]

    @property
    def rule(self) -> str:
        return "reproduced: interval above zero; direction only: estimate above zero"


class Equal(Pair):
    kind: Literal["equal"]
    margin: float

    @property
    def rule(self) -> str:
        within = f"within {-self.margin:g} to {self.margin:+g}"
        return f"reproduced: interval {within}; direction only: estimate {within}"


class NotWorse(Pair):
    kind: Literal["not_worse"]
    margin: float

    @property
    def rule(self) -> str:
        least = f"above {-self.margin:g}"
        return f"reproduced: interval {least}; direction only: estimate {least}"


class ShareHigher(Pair):
    kind: Literal["share_higher"]
    share: float

    @property
    def rule(self) -> str:
        return (
            f"reproduced: at least {self.share:.0%} of the cells are higher; direction only: more "
            "than half"
        )


class NoLoss(Pair):
    kind: Literal["no_loss"]

    @property
    def rule(self) -> str:
        return "reproduced: no cell's interval is below zero; direction only: at most a tenth are"


class Gains(Compared):
    """A gain of `second` over each of several settings."""

    kind: Literal["gains"]
    second: str
    firsts: tuple[str, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        return (*self.firsts, self.second)

    @property
    def rule(self) -> str:
        return (
            "over each setting, reproduced: interval above zero; direction only: estimate above "
            "zero; the weakest verdict counts"
        )


class Falling(Compared):
    """An accuracy that falls along `order`."""

    kind: Literal["falling"]
    order: tuple[str, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        return self.order

    @property
    def rule(self) -> str:
        return (
            "reproduced: mean accuracy falls with rank (Spearman below -0.5) and the first is over "
            "the last with its interval above zero; direction only: either"
        )


class Own(Stated):
    """A claim with a rule of its own: a function of this name in `own`."""

    kind: Literal["own"]
    rule: str


InPoints = Gain | Equal | NotWorse | Gains | Falling  # ours is a difference in points
Claim = Gain | Equal | NotWorse | ShareHigher | NoLoss | Gains | Falling | Own


class Claims(Strict):
    """All claims, and which runs of a profile had been made when the rules were written."""

    seen: dict[str, str]
    claims: tuple[Annotated[Claim, Field(discriminator="kind")], ...]

    @model_validator(mode="after")
    def _each_once(self) -> Claims:
        names = [claim.id for claim in self.claims]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"claims named twice: {', '.join(twice)}")
        return self


def load_claims(path: Path = HERE / "claims.yaml") -> Claims:
    """Read the claims.

    Raises:
        ClipItError: an unknown key or kind, a value of the wrong type, a claim named twice.
    """
    claims: Claims = read_strict(path, Claims)
    return claims
