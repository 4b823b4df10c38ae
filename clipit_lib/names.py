"""Settings in words, for axes, legends and sentences."""

from __future__ import annotations

WORDS = {
    "unimodal": "unimodal (probe)",
    "lora_only": "LoRA only",
    "clip_it": "CLIP-IT",
    "clip_it/architecture_only": "architecture only, no text",
    "clip_it/random_reports": "random reports",
    "clip_it/redrawn_reports": "random reports, redrawn",
    "clip_it/shuffled_pairs": "pairs shuffled",
    "clip_it/shuffled_within_class": "pairs shuffled within class",
    "clip_it/constant_report": "one report for all",
    "clip_it/class_prompts": "class prompt as the text",
    "clip_it/image_target": "retriever's image as target",
    "clip_it/image_centroids": "few image centroids as target",
    "clip_it/without_lora": "without LoRA",
    "clip_it/lora_vision_only": "LoRA on vision only",
    "clip_it/lora_text_only": "LoRA on text only",
    "clip_it/full_fine_tuning": "full fine-tuning of vision",
    "clip_it/early_fusion": "early fusion",
    "clip_it/direct_distillation": "direct distillation, no branch",
    "text": "paired reports",
    "text/prompts": "nearest class prompt",
    "text/terms": "nearest terms",
    "vision": "vision head (probe)",
    "zero_shot": "zero-shot",
    "zero_shot/embeddings": "zero-shot, embeddings averaged",
    "contrastive": "contrastive",
    "contrastive/embeddings": "contrastive, embeddings averaged",
    "contrastive/same_class_negatives": "contrastive, same class negative",
    "contrastive/misaligned_names": "contrastive, names off by one",
}
PARTS = {
    "lambda": "λ = {}",
    "report_rank": "report of rank {}",
    "word_dropout": "{}% of the words dropped",
    "lora_rank": "LoRA rank {}",
    "retriever": "pairs by {}",
    "corpus": "{} reports",
    "switch": "{}",
    "protocol": "{} protocol",
    "long_text": "reports read in whole ({})",
    "labels": "{} labels a class",
    "label_noise": "{}% of the labels wrong",
}


def label(setting: str) -> str:
    """A setting in words; what it changes of CLIP-IT alone where it changes something."""
    if setting in WORDS:
        return WORDS[setting]
    base, _, part = setting.rpartition("/")
    for name, words in PARTS.items():
        if part.startswith(f"{name}_"):
            changed = words.format(part.removeprefix(f"{name}_").replace("_", " "))
            return changed if base == "clip_it" else f"{label(base)}, {changed}"
    return setting
