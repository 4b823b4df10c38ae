"""The gallery: every figure with one line of meaning, as figures/README.md."""

from __future__ import annotations

from pathlib import Path

from clipit_lib import paths
from clipit_lib.files import write_text

# One line a figure: what its reader should take from it.
MEANING = {
    "table1": "Table 1: unimodal, LoRA only and CLIP-IT for every backbone and data set; the gain "
    "over LoRA only is what text and its branch add.",
    "table2": "Table 2: a CLIP as the classifier, by prompts or by its image tower alone, against "
    "CLIP-IT on the same tower.",
    "pareto": "Figure 3: accuracy against deployed parameters and operations; nothing lies above "
    "and left of the drawn front.",
    "pareto_paper": "The paper's own accuracies and parameters, the front by the same function.",
    "complementarity": "Figure 4 (equation 5): how often the text is right where vision is wrong, "
    "and the reverse.",
    "tsne": "Figures 6 and 7: image, text and joint features with and without LoRA; trust the "
    "printed numbers, not the picture's distances.",
    "ablations": "Figure 5: what each part of CLIP-IT contributes, against the whole.",
    "ablation_curves": "Figure 5: words dropped, rank of the paired report, λ, LoRA rank.",
    "text_statistics": "Figures 8 and 9: how similar the paired reports are, and how much better "
    "than a constant the distilled features are.",
    "text_statistics_hubs": "The reports that serve most patches, with patches that chose them.",
    "table6": "Table 6: a classifier of text alone, on reports, class prompts or terms.",
    "table7": "Table 7: who retrieves, and real against synthetic reports.",
    "inference_cost": "What inference costs over the unimodal model, in operations and time.",
    "survival": "Table 8: survival from bags of patch features, with and without text.",
    "claims": "Each claim of the paper that is a difference in points: its number, ours, and the "
    "verdict by a rule that was fixed before.",
    "controls": "What the gain of CLIP-IT over the probe is made of: LoRA, the branch, any report, "
    "the matched report.",
    "controls_all": "Every control beside CLIP-IT: one that does as well says what is not needed.",
    "protocol_audit": "What the released code does differently, one switch at a time and together.",
    "target_spread": "Whether a moving distillation target collapses to one vector.",
    "clip_audit": "The same for a CLIP as the classifier.",
    "own": "Your own data: what CLIP-IT gains over each control, pooled over backbones and data "
    "sets; an interval that covers 0 shows nothing.",
    "map": "Where text helps: gain of CLIP-IT over its controls against labels, label noise, "
    "retriever and λ.",
}
PAIRING = "How similar the best reports are, and how few of them serve how many patches."
TITLES = {
    "smoke": "Smoke: a test, no result",
    "demo": "Demo: the phantom, small (a procedural calibration object, not tissue)",
    "phantom": "Phantom: the same, larger (a procedural calibration object, not tissue)",
    "pilot": "Pilot: real colorectal patches and TCGA reports, with a stand-in retriever",
    "paper": "Paper: the paper's data sets and models",
}


def meaning(name: str) -> str | None:
    """One line on a figure, None if there is none."""
    return PAIRING if name.startswith("pairing_") else MEANING.get(name)


def write() -> Path:
    """Write figures/README.md over all figures that are there."""
    root = paths.figures("demo").parent
    lines = ["# Figures", "", "Made by the notebooks; regenerated whenever a profile is run.", ""]
    for profile, title in TITLES.items():
        pictures = sorted((root / profile).glob("*.png"), key=_order)
        if pictures and profile != "smoke":
            lines += [f"## {title}", ""]
            for path in pictures:
                lines += [f"**{path.stem}.** {meaning(path.stem) or ''}", ""]
                lines += [f"![{meaning(path.stem) or path.stem}]({profile}/{path.name})", ""]
    target = root / "README.md"
    write_text(target, "\n".join(lines).rstrip() + "\n")
    return target


def _order(path: Path) -> tuple[int, str]:
    names = list(MEANING)
    return (names.index(path.stem) if path.stem in names else len(names), path.stem)
