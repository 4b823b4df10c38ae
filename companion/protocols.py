"""The paper's protocol, and the released code's: which of its switches meet on which data."""

from __future__ import annotations

from typing import Any

from clipit_lib.settings import Protocol

# What the released code does differently, one switch each (traps of its commit 4f2bed7 and of the
# later file versions; see notebook 15). They are facts about code, not about the printed numbers.
SWITCHES: dict[str, dict[str, Any]] = {
    "double_softmax": {"double_softmax": True},
    "moving_target": {"moving_target": True},
    "text_stage_ignored": {"text_stage": "ignored"},
    "lora_everywhere": {"lora_targets": "all", "vision_head": "adapted"},
    "imagenet_normalisation": {"normalisation": "imagenet"},
    "clip_normalisation": {"normalisation": "clip"},
    "last_checkpoint": {"checkpoint": "last"},
    "random_fusion": {"fusion_start": "random", "unit_distilled": False},
    "random_vision_head": {"vision_head": "random_adapted"},
    "letters_lost": {"letters_lost": True},
    "class_text": {"class_text_share": 0.5},
    "tiny_validation": {"validation_per_class": 4},
}
PAPER = Protocol()
# Those that are met on one data set of the paper only, and those that stand in place of another.
ONLY_ON = {"letters_lost": "PCAM", "tiny_validation": "BACH", "class_text": "CRC"}
ALTERNATIVES = ("clip_normalisation", "random_vision_head")


def protocol_named(name: str, mirrored: str | None = None) -> Protocol:
    """`paper`, or `released` on the data set of the paper that is used or mirrored."""
    if name == "paper":
        return PAPER
    values: dict[str, Any] = {}
    for switch, changes in SWITCHES.items():
        if switch not in ALTERNATIVES and ONLY_ON.get(switch, mirrored) == mirrored:
            values |= changes
    return PAPER.model_copy(update=values)


def switched(name: str) -> Protocol:
    """The paper's protocol with one switch set; KeyError if there is none of this name."""
    return PAPER.model_copy(update=SWITCHES[name])


PROTOCOLS: dict[str, Protocol] = {"paper": PAPER, "released": protocol_named("released")}
