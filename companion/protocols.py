"""The paper's protocol, and the released code's: which of its switches meet on which data."""

from __future__ import annotations

from typing import Any

from clipit_lib.settings import SWITCHES, Protocol

PAPER = Protocol()
# Which of them meet everywhere, and which on one data set of the paper only.
EVERYWHERE = (
    "double_softmax", "moving_target", "text_stage_ignored", "lora_everywhere",
    "imagenet_normalisation", "last_checkpoint", "random_fusion",
)  # fmt: skip
ONLY_ON: dict[str, tuple[str, ...]] = {
    "PCAM": ("letters_lost",),
    "BACH": ("tiny_validation",),
    "CRC": ("class_text",),
}


def protocol_named(name: str, mirrored: str | None = None) -> Protocol:
    """`paper`, or `released` on the data set of the paper that is used or mirrored."""
    if name == "paper":
        return PAPER
    values: dict[str, Any] = {}
    for switch in (*EVERYWHERE, *ONLY_ON.get(mirrored or "", ())):
        values |= SWITCHES[switch]
    return PAPER.model_copy(update=values)


def switched(name: str) -> Protocol:
    """The paper's protocol with one switch set; KeyError if there is none of this name."""
    return PAPER.model_copy(update=SWITCHES[name])


PROTOCOLS: dict[str, Protocol] = {"paper": PAPER, "released": protocol_named("released")}
