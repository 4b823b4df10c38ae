"""Where the weights of a profile's encoders come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipit_lib import kernels
from clipit_lib.encoders import store
from clipit_lib.settings import PhantomPretraining, StandInTraining


@dataclass(frozen=True)
class Sources:
    """What decides which weights a name stands for.

    Attributes:
        pretraining, stand_in: how the encoders that are trained here are trained.
        copies: local path of a published model's weights, by its name; the hub has the others.
        download: whether what is not here yet may be fetched from the hub.
        kernels: those that the encoders which are trained here are trained with.
    """

    pretraining: PhantomPretraining | None = None
    stand_in: StandInTraining | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    download: bool = True
    kernels: str = field(default_factory=kernels.level)

    def recipe(self, name: str) -> store.Recipe:
        """What an encoder that is trained here is trained from."""
        declaration = self.stand_in if name == "stand_in" else self.pretraining
        return store.Recipe(name, declaration, self.kernels)

    @property
    def side(self) -> int | None:
        """Side of the phantom's patches in pixels, if its encoders are trained here."""
        return self.pretraining.side if self.pretraining else None
