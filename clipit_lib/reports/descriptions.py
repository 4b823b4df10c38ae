"""Short morphological descriptions of tissue classes, in our own words.

They serve the stand-in retriever as captions, so that it learns what a class looks like in words
without ever having read a report.
"""

from __future__ import annotations

import numpy as np

from clipit_lib.errors import ClipItError

DESCRIPTIONS: dict[str, tuple[str, ...]] = {
    "adenocarcinoma": (
        "irregular cribriform glands with necrotic debris in the lumen",
        "infiltrating malignant glands in a desmoplastic stroma",
        "moderately differentiated colorectal adenocarcinoma with pleomorphic nuclei",
        "fused and angulated glands, loss of polarity and frequent mitoses",
        "invasive carcinoma with dirty necrosis and back-to-back glands",
        "poorly formed glands and single tumor cells invading the stroma",
    ),
    "healthy colon mucosa": (
        "evenly spaced straight crypts with abundant goblet cells",
        "normal colonic mucosa with basally oriented small nuclei",
        "regular round crypts in a lamina propria with plasma cells and lymphocytes",
        "unremarkable large bowel mucosa without dysplasia",
        "benign crypts with mucin-filled goblet cells and preserved architecture",
        "no evidence of malignancy, tumor-free mucosa",
    ),
    "serrated adenoma": (
        "saw-tooth serrated crypts with infolding of the epithelium",
        "dilated crypt bases with a boot or inverted T shape",
        "hyperplastic serrated epithelium with microvesicular mucin",
        "serrated polyp with stellate lumens and eosinophilic cytoplasm",
        "sessile serrated lesion of the colon",
        "traditional serrated adenoma with ectopic crypt formations",
    ),
    "tubular adenoma": (
        "crowded tubular glands with pencillate hyperchromatic nuclei",
        "tubular adenoma with low grade epithelial dysplasia",
        "closely packed branching tubules with pseudostratified nuclei",
        "adenomatous polyp with tubular architecture and mucin depletion",
        "mild intraepithelial neoplasia in a tubular adenoma of the colon",
        "elongated dark nuclei in rounded dysplastic crypts",
    ),
    "villous adenoma": (
        "long finger-like villi lined by dysplastic epithelium",
        "villous adenoma with fibrovascular cores",
        "papillary leaf-like fronds with stratified nuclei",
        "tubulovillous adenoma with high grade dysplasia",
        "slender villous projections extending from the surface",
        "frond-like adenomatous epithelium with abundant mucin",
    ),
}
FRAMES = (
    "{}",
    "an H&E image of {}",
    "a histopathological image showing {}",
    "colon biopsy: {}",
    "microscopic examination shows {}",
    "sections show {}",
    "diagnosis: {}",
)


def class_captions(class_text: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of one class: its name, a description, or both, in a random frame.

    Raises:
        ClipItError: no description of this class is kept.
    """
    if class_text not in DESCRIPTIONS:
        raise ClipItError(
            f"no descriptions of {class_text!r}", __name__, f"Known: {', '.join(DESCRIPTIONS)}"
        )
    return [_caption(class_text, rng) for _ in range(count)]


def _caption(class_text: str, rng: np.random.Generator) -> str:
    described = str(rng.choice(DESCRIPTIONS[class_text]))
    form = rng.integers(3)
    content = (class_text, described, f"{class_text}, {described}")[form]
    return str(rng.choice(FRAMES)).format(content)
