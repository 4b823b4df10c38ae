"""The paper's models: where their weights are published, at which revision, on which terms.

Sources of the facts: timm, open_clip and transformers (architectures); kaiko-ai's `eva` and
`towards_large_pathology_fms` (statistics 0.5/0.5, L/14 is DINOv2 with four registers, its position
embedding is stored for 518 pixels); the model cards of UNI, CONCH, QuiltNet and PLIP. Revisions
are commits of the hub's repositories; `doubt` says what could not be established.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipit_lib.settings import known

MAHMOOD = "CC-BY-NC-ND 4.0 and its authors' terms: academic, non-commercial, no passing on"
KAIKO = "Kaiko Non-Commercial Public License 1"
HUB = "https://huggingface.co"
KAIKO_TERMS = "https://github.com/kaiko-ai/towards_large_pathology_fms/blob/main/LICENSE"


@dataclass(frozen=True)
class Published:
    """Weights that others published.

    Attributes:
        repo, revision, file: on the Hugging Face hub.
        gated: access has to be asked for, at `terms`.
        terms: where licence and conditions can be read.
        parameters: numbers in the whole published model, as counted here; heads not among them.
        gmacs: multiply-adds of one image in units of 10^9, as the paper counts FLOPs, of the image
            tower at the size it is used at (of CONCH without the pooler for captions).
        doubt: what could not be established of the above.
    """

    repo: str
    revision: str
    file: str
    licence: str
    terms: str
    gated: bool
    parameters: int
    gmacs: float
    doubt: str = ""

    @property
    def page(self) -> str:
        return f"{HUB}/{self.repo}"


def _kaiko(model: str, revision: str, parameters: int, gmacs: float, doubt: str = "") -> Published:
    # A mirror of the files that kaiko-ai attached to release 0.0.1 of its repository.
    repo = f"1aurent/{model}.kaiko_ai_towards_large_pathology_fms"
    return Published(
        repo, revision, "model.safetensors", KAIKO, KAIKO_TERMS, False, parameters, gmacs, doubt
    )


PUBLISHED: dict[str, Published] = {
    "uni": Published(
        "MahmoodLab/UNI", "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0", "pytorch_model.bin",
        MAHMOOD, f"{HUB}/MahmoodLab/UNI", True, 303_350_784, 61.6,
    ),
    "kaiko_vitl14": _kaiko(
        "vit_large_patch14_reg4_224", "d86df45eccdb957aa7869bab7d11f8e158dcbda2", 303_230_976, 82.3,
        "the repository was renamed (formerly vit_large_patch14_reg4_dinov2...)",
    ),
    "kaiko_vitb16": _kaiko(
        "vit_base_patch16_224", "797c524a94c7fdae8ea33064d0ac6966ed8956bb", 85_798_656, 17.6,
    ),
    "kaiko_vitb8": _kaiko(
        "vit_base_patch8_224", "a4eb74de76274a5f3fe8260841a1b07a90930f43", 85_807_872, 78.1,
    ),
    "kaiko_vits16": _kaiko(
        "vit_small_patch16_224", "48560ea39969fe44b7b2ab057de01484243a7d43", 21_665_664, 4.6,
    ),
    "kaiko_vits8": _kaiko(
        "vit_small_patch8_224", "003775444da0119f90ca63e2b86e454fd06ba797", 21_670_272, 22.4,
    ),
    "conch": Published(
        "MahmoodLab/CONCH", "f9ca9f877171a28ade80228fb195ac5d79003357", "pytorch_model.bin",
        MAHMOOD, f"{HUB}/MahmoodLab/CONCH", True, 395_232_769, 79.1,
        "the published file lacks the text decoder (195 M), which nothing here uses",
    ),
    "quiltnet": Published(
        "wisdomik/QuiltNet-B-32", "8ce77289ce35a90b2f1db1137dfa4bc2df175e33",
        "open_clip_pytorch_model.bin", "MIT", f"{HUB}/wisdomik/QuiltNet-B-32", False,
        151_277_313, 4.4,
        "its configuration asks for GELU, OpenAI's CLIP, which it was tuned from, for QuickGELU",
    ),
    "clip": Published(
        "timm/vit_base_patch16_clip_224.openai", "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        "open_clip_model.safetensors", "Apache-2.0 (hub), MIT (OpenAI)",
        f"{HUB}/timm/vit_base_patch16_clip_224.openai", False, 149_620_737, 17.6,
        "the paper says CLIP, without a size; ViT-B/16 is that of CONCH",
    ),
    "plip": Published(
        "vinid/plip", "67ade53ddd32195868f422585f72698ef5d15094", "pytorch_model.bin",
        "none stated", f"{HUB}/vinid/plip", False, 151_277_312, 4.4,
        "not among the paper's models",
    ),
}  # fmt: skip


def entry(name: str) -> Published:
    """What is known of a published model.

    Raises:
        ClipItError: no published model has this name; the message lists them.
    """
    known(name, PUBLISHED, "published model", "clipit_lib/encoders/published.py")
    return PUBLISHED[name]
