"""The one registry of encoders, by name: what is known of each, and how it is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clipit_lib.encoders import vision, weights
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.vision import Entry, VisionEncoder
from clipit_lib.encoders.weights import Held, Packaged, Published, Sources
from clipit_lib.files import digest
from clipit_lib.settings import StandInTraining, known

ENCODERS = vision.ENCODERS
STAND_IN = "stand_in"
UNTRAINED = "untrained"  # in place of a digest of weights


def entry(name: str, clip: bool = False, depth: int | None = None) -> Entry:
    """Row of an encoder; of `clip` one that reads texts too. A ClipItError lists known names.

    With `depth`, a published one is built of that many blocks.
    """
    rows = [each for each, row in ENCODERS.items() if row.text_targets or not clip]
    known(name, rows, "retriever" if clip else "backbone", "clipit_lib/encoders/encoders.yaml")
    row = ENCODERS[name]
    shallow = depth is not None and isinstance(row.weights, Published)
    return replace(row, options={**row.options, "depth": depth}) if shallow else row


def published() -> dict[str, Published]:
    """The weights that others published, by the encoder's name."""
    return {n: row.weights for n, row in ENCODERS.items() if isinstance(row.weights, Published)}


def weights_hash(name: str, sources: Sources, text: bool = False) -> str:
    """16 hexadecimal digits that name weights: what they are trained from, or their file's digest.

    With `text` those of the text half too. Raises ClipItError as `load_backbone`.
    """
    origin = entry(name, clip=text).weights
    if isinstance(origin, Published):
        return weights.published_hash(origin, sources)
    if isinstance(origin, Packaged):
        return weights.package_hash(*origin.packages)
    key, frozen = sources.recipe(name).key, origin.frozen + origin.frozen_text * text
    return digest(key, *map(weights.package_hash, frozen)) if frozen else key


def load_backbone(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
    """Load a backbone with its weights; of a CLIP, no text half stays in memory. A ClipItError if
    it is unknown, or its weights are missing, damaged or of another model.
    """
    held = weights.read_weights(name, entry(name).weights, sources)
    asked = sources.side, sources.stand_in, held, weights_hash(name, sources)
    return build_backbone(name, *asked, normalisation, sources.depth)


def load_clip(name: str, sources: Sources) -> ClipEncoder:
    """Load a retriever, frozen and in evaluation mode. A ClipItError if it is unknown, not trained
    yet or not to be had, or its packages are missing.
    """
    from clipit_lib.encoders import clips  # slow to import; a backbone needs no text half

    row = entry(name, True, sources.depth)
    held = weights.read_weights(name, row.weights, sources)
    if row.library == "stand_in":
        assert sources.stand_in is not None
        image, text = clips.build_stand_in(sources.stand_in, held)
        tokenizer = clips.stand_in_tokenizer(sources.stand_in)
    else:
        library = clips.LIBRARIES[row.library]
        image, text = library.split(library.build(row, sources.side, held))
        tokenizer = library.tokenizer(*weights.files(row.weights, sources)[1:])
    for tower in (image, text):
        tower.eval().requires_grad_(False)
    return ClipEncoder(
        name, image, text, tokenizer, row.transform(sources.side), image.num_features,
        row.image_targets, row.text_targets, weights_hash(name, sources, text=True),
        row.library == "stand_in",
    )  # fmt: skip


def build_backbone(
    name: str, side: int | None, stand_in: StandInTraining | None, held: Held | None = None,
    weights_hash: str = UNTRAINED, normalisation: str = "own", depth: int | None = None,
) -> VisionEncoder:  # fmt: skip
    """A backbone with the weights `held`, or random ones: to train, count or time it. `side` is of
    the phantom's patches in pixels, `stand_in` the settings of the stand-in, if that is meant.
    """
    row = entry(name, depth=depth)
    tower: Any
    if row.library == "timm":
        tower = vision.timm_tower(row, side, held)
    elif row.library == "stand_in":
        assert stand_in is not None
        tower = vision.stand_in_tower(stand_in.width, held)
    else:
        from clipit_lib.encoders import clips

        library = clips.LIBRARIES[row.library]
        tower, _ = library.split(library.build(row, side, held))
    return VisionEncoder(
        name, tower.eval(), row.transform(side, normalisation), tower.num_features,
        row.image_targets, weights_hash,
    )  # fmt: skip
