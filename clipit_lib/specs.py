"""From a profile and the name of a setting to a fully resolved run specification."""

from __future__ import annotations

from typing import Any

from clipit_lib.encoders import clip, vision
from clipit_lib.settings import PROTOCOLS, Pairing, RunSpec, known
from clipit_lib.workbench import Workbench

# A setting is named after what it changes; the values are fields of RunSpec.
NO_TEXT: dict[str, Any] = {"pairing": Pairing(reports="none"), "distillation_weight": 0.0}
CLIP_IT: dict[str, Any] = {"adaptation": "lora", "pairing": Pairing()}
SETTINGS: dict[str, dict[str, Any]] = {
    "unimodal": {"adaptation": "none"},
    "lora_only": {"adaptation": "lora"},
    "clip_it": CLIP_IT,
    "clip_it/architecture_only": CLIP_IT | NO_TEXT,
    "clip_it/random_reports": CLIP_IT | {"pairing": Pairing(reports="random")},
}


def resolve(
    bench: Workbench, dataset: str, backbone: str, setting: str, seed: int, **changes: Any
) -> RunSpec:
    """The specification of one run; `changes` override single fields.

    Raises:
        ClipItError: an unknown data set, backbone or setting; an encoder not trained yet.
    """
    known(setting, SETTINGS, "setting", f"profile {bench.profile.name}")
    vision.entry(backbone)
    profile = bench.profile
    protocol = PROTOCOLS[profile.protocol]
    fields: dict[str, Any] = {
        "dataset": dataset,
        "data_hash": bench.dataset(dataset).content_hash,
        "backbone": backbone,
        "backbone_hash": vision.weights_hash(backbone, profile.pretraining),
        "pretraining": profile.pretraining,
        "setting": setting,
        "seed": seed,
        "normalisation": protocol.normalisation,
        "probe": profile.probe,
    }
    if SETTINGS[setting]["adaptation"] != "none":
        fields |= {
            "lora": profile.lora,
            "training": profile.training_settings(dataset),
            "protocol": protocol,
        }
    fields |= {"distillation_weight": profile.distillation_weight} | SETTINGS[setting] | changes
    pairing = fields.get("pairing")
    if pairing is None:
        fields["distillation_weight"] = None
    elif pairing.reports != "none":
        fields |= {
            "retriever": profile.retriever,
            "retriever_hash": clip.weights_hash(profile),
            "corpus": profile.data_settings(dataset).corpus,
            "corpus_hash": bench.corpus(dataset).content_hash,
            "text_stage": profile.text_stage,
        }
    return RunSpec(**fields)
