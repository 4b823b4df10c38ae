"""From a profile and the name of a setting to a fully resolved run specification."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from pydantic import BaseModel, TypeAdapter

from clipit_lib import kernels
from clipit_lib.data.reports import own_terms, wording
from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from clipit_lib.settings import (
    Contrastive,
    Fraction,
    Labelled,
    Lora,
    Pairing,
    Part,
    Positive,
    Protocol,
    Rate,
    RunSpec,
    TextSpec,
    TextStage,
    Weight,
    known,
)
from companion.paper import PROTOCOLS, SWITCHES, switched
from companion.profile import Profile, Workbench


@dataclass(frozen=True)
class Setting:
    """The name of a setting taken apart: `clip_it/random_reports/labels_5`.

    Attributes:
        base: one of SETTINGS; empty if there is none.
        changes: what is changed in it, as written: {"labels": "5"}. A part that is none of CHANGES
            stands there whole, with an empty value.
    """

    base: str
    changes: dict[str, str]

    @classmethod
    def of(cls, name: str) -> Setting:
        parts = name.split("/")
        n = next((n for n in range(len(parts), 0, -1) if "/".join(parts[:n]) in SETTINGS), 0)
        changes = {}
        for part in parts[n:]:
            change = next((each for each in CHANGES if part.startswith(f"{each}_")), part)
            changes[change] = part.removeprefix(change).removeprefix("_")
        return cls("/".join(parts[:n]), changes)

    def __str__(self) -> str:
        return "/".join([self.base, *(f"{name}_{value}" for name, value in self.changes.items())])


def label(setting: str) -> str:
    """A setting in words; what it changes of CLIP-IT alone where it changes something."""
    own = Setting.of(setting)
    if not own.base or not all(value and name in CHANGES for name, value in own.changes.items()):
        return setting
    said = [CHANGES[name][0].format(value.replace("_", " ")) for name, value in own.changes.items()]
    words = ", ".join(said if said and own.base == "clip_it" else [SETTINGS[own.base][0], *said])
    return re.sub(r"\b1 (label|pass)e?s\b", r"1 \1", words)


# -- From a profile and the name of a setting to a fully resolved run specification.

Fields = dict[str, Any]

# Fields of a setting that say what its text is; the others are those of RunSpec.
OF_TEXT = ("retriever", "corpus", "text_stage", "text_adaptation", "word_dropout")

# A setting is named after what it changes.
NO_TEXT: Fields = {"pairing": Pairing(reports="none"), "distillation_weight": 0.0}
CLIP_IT: Fields = {"adaptation": "lora", "pairing": Pairing()}
TEXT: Fields = {"adaptation": "none", "branch": "text_only", "distillation_weight": None}
ZERO_SHOT: Fields = {"adaptation": "none", "contrastive": Contrastive()}
CONTRASTIVE: Fields = {"adaptation": "lora", "contrastive": Contrastive()}
EMBEDDINGS: Fields = {"contrastive": Contrastive(averaging="embeddings")}


def _paired(**pairing: Any) -> Fields:
    return CLIP_IT | {"pairing": Pairing(**pairing)}


# Each by its name: in words, for axes, legends and sentences; and what it fixes.
SETTINGS: dict[str, tuple[str, Fields]] = {
    "unimodal": ("unimodal (probe)", {"adaptation": "none"}),
    "lora_only": ("LoRA only", {"adaptation": "lora"}),
    "lora_only/self_distilled": (  # soft labels of its own probe
        "LoRA only, self-distilled", {"adaptation": "lora", "target": "soft_labels"},
    ),
    "clip_it": ("CLIP-IT", CLIP_IT),
    # Controls and ablations (Figure 5).
    "clip_it/architecture_only": ("architecture only, no text", CLIP_IT | NO_TEXT),
    "clip_it/random_reports": ("random reports", _paired(reports="random")),
    "clip_it/redrawn_reports": ("random reports, redrawn", _paired(reports="redrawn")),
    "clip_it/shuffled_pairs": ("pairs shuffled", _paired(reports="shuffled")),
    "clip_it/shuffled_within_class": (
        "pairs shuffled within class", _paired(reports="shuffled_within_class"),
    ),
    "clip_it/constant_report": ("one report for all", _paired(reports="constant")),
    "clip_it/class_prompts": ("class prompt as the text", _paired(source="class_prompts")),
    "clip_it/soft_labels": (  # an extension, not the paper's
        "soft labels of the text classifier", CLIP_IT | {"branch": None, "target": "soft_labels"},
    ),
    "clip_it/image_target": ("retriever's image as target", CLIP_IT | {"target": "image"}),
    "clip_it/image_centroids": (
        "few image centroids as target", CLIP_IT | {"target": "image_centroids"},
    ),
    "clip_it/noise_target": ("fixed noise as target", CLIP_IT | {"target": "noise"}),
    "clip_it/without_lora": (
        "without LoRA", CLIP_IT | {"adaptation": "none", "text_adaptation": "none"},
    ),
    "clip_it/lora_vision_only": ("LoRA on vision only", CLIP_IT | {"text_adaptation": "none"}),
    "clip_it/lora_text_only": ("LoRA on text only", CLIP_IT | {"adaptation": "none"}),
    "clip_it/full_fine_tuning": ("full fine-tuning of vision", CLIP_IT | {"adaptation": "full"}),
    "clip_it/early_fusion": ("early fusion", CLIP_IT | {"branch": "early"}),
    "clip_it/direct_distillation": (
        "direct distillation, no branch", CLIP_IT | {"branch": "direct"},
    ),
    # The text classifier of equation 2 by itself (Figure 4, Table 6).
    "text": ("paired reports", TEXT | {"pairing": Pairing()}),
    "text/prompts": ("nearest class prompt", TEXT | {"pairing": Pairing(source="prompts")}),
    "text/terms": ("nearest terms", TEXT | {"pairing": Pairing(source="terms")}),
    # A CLIP as the classifier (Table 2).
    "vision": ("vision head (probe)", {"adaptation": "none"}),
    "zero_shot": ("zero-shot", ZERO_SHOT),
    "zero_shot/embeddings": ("zero-shot, embeddings averaged", ZERO_SHOT | EMBEDDINGS),
    "contrastive": ("contrastive", CONTRASTIVE),
    "contrastive/embeddings": ("contrastive, embeddings averaged", CONTRASTIVE | EMBEDDINGS),
    "contrastive/same_class_negatives": (
        "contrastive, same class negative",
        CONTRASTIVE | {"contrastive": Contrastive(same_class="negatives")},
    ),
    "contrastive/misaligned_names": (
        "contrastive, names off by one",
        CONTRASTIVE | {"contrastive": Contrastive(misaligned_names=True)},
    ),
}  # fmt: skip


def _switch(text: str, profile: Profile) -> Fields:
    """The paper's protocol with one switch of the released code."""
    known(text, SWITCHES, "switch", f"profile {profile.name}")
    protocol = switched(text)
    return {"protocol": protocol, "normalisation": protocol.normalisation}


def _lora_of_rank(text: str, profile: Profile) -> Fields:
    """Another rank at the profile's scale alpha / rank."""
    rank, scale = int(text), profile.lora.alpha / profile.lora.rank
    alpha = max(1, round(scale * rank))
    return {"lora": Lora(rank=rank, alpha=alpha, dropout=profile.lora.dropout)}


def _oracle(kind: Any, text: str, profile: Profile) -> Fields:
    """Right pairs for so many percent of the patches."""
    how: Fields = {"source": "class_prompts"} if kind == "class_prompts" else {"reports": kind}
    return {"pairing": Pairing(right=int(text) / 100, **how)}


def _text_stage(profile: Profile, **changes: Any) -> Fields:
    return {"text_stage": TextStage(**profile.text_stage.model_dump() | changes)}


def _percent(name: str, text: str, profile: Profile) -> Fields:
    """A share below one."""
    return {name: _share(int(text) / 100)}


# These raise ValueError where a value is out of range, as the models above do.
_count, _share, _part, _weight, _rate = (
    TypeAdapter(kind).validate_python for kind in (Positive, Fraction, Part, Weight, Rate)
)

# What a further part `/NAME_VALUE` of a setting's name changes: in words, and the fields.
CHANGES: dict[str, tuple[str, Callable[[str, Profile], Fields]]] = {
    "lambda": ("λ = {}", lambda text, _: {"distillation_weight": _weight(float(text))}),
    "report_rank": ("report of rank {}", lambda text, _: {"pairing": Pairing(rank=int(text))}),
    "lora_rank": ("LoRA rank {}", _lora_of_rank),
    "retriever": ("pairs by {}", lambda text, _: {"retriever": text}),
    "corpus": ("{} reports", lambda text, _: {"corpus": text}),
    "labels": ("{} labels per class", lambda text, _: {"labels_per_class": _count(int(text))}),
    "switch": ("{}", _switch),
    "long_text": ("reports read in whole ({})", lambda text, own: _text_stage(own, long_text=text)),
    "protocol": (  # what it means depends on the data set, see `resolve`
        "{} protocol",
        lambda text, own: {"protocol": known(text, PROTOCOLS, "protocol", f"profile {own.name}")},
    ),
    **{  # in percent
        name: (words, partial(made, name))
        for name, made, words in (
            ("own_class", _oracle, "a report of their label for {}%"),
            ("own_neighbour", _oracle, "reports like their own for {}%"),
            ("own", _oracle, "own reports for {}%"),
            ("class_prompts", _oracle, "their class's prompt for {}%"),
            ("word_dropout", _percent, "{}% of the words dropped"),
            ("label_noise", _percent, "{}% of the labels wrong"),
            # What else keeps a fit from following every label: brakes without any text.
            ("smoothing", _percent, "{}% label smoothing"),
            ("averaged", _percent, "weights averaged (decay {}%)"),
        )
    },
    "pair_noise": ("{}% of the labels those of the next class",
                   lambda text, own: _percent("label_noise", text, own) | {"noise_to": "next"}),
    "unlabelled": ("{}% of the other patches distilled without labels",  # not of the paper
                   lambda text, _: {"unlabelled": _part(int(text) / 100)}),
    "passes": ("{} passes per epoch", lambda text, _: {"passes": _count(int(text))}),
    "text_passes": (
        "{} passes per epoch of stage one",
        lambda text, own: _text_stage(own, passes=int(text)),
    ),
    "mixup": ("mixup by Beta({0}, {0})", lambda text, _: {"mixup": _rate(float(text))}),
}  # fmt: skip


def fields_of(setting: str, profile: Profile) -> Fields:
    """What a setting fixes, its changes included.

    Raises:
        ClipItError: an unknown setting or change, one made twice, or a value that cannot be read.
    """
    where = f"profile {profile.name}"
    own = Setting.of(setting)
    if not own.base:
        known(setting, SETTINGS, "setting", where)
    if len(own.changes) < len(setting.split("/")) - len(own.base.split("/")):
        raise ClipItError(f"setting {setting!r} changes something twice", where, "Change it once")
    fields = dict(SETTINGS[own.base][1])
    # Other pairs than the matched ones stay what the setting is named after.
    taken = set() if fields.get("pairing") == Pairing() else {"pairing"}
    for name, value in own.changes.items():
        if name not in CHANGES or not value:
            choices = [*SETTINGS, *(f"{own.base}/{each}_VALUE" for each in CHANGES)]
            known(setting, choices, "setting", where)
        try:
            change = CHANGES[name][1](value, profile)
        except ValueError as error:
            what = f"setting {setting!r}: cannot read '{name}_{value}'"
            fix = f"Write {name}_VALUE, with a value in its range"
            raise ClipItError(what, where, fix) from error
        if taken & set(change):
            what = f"setting {setting!r}: {name}_{value} cannot be joined to the rest of it"
            raise ClipItError(what, where, "Leave it out")
        taken |= set(change)
        fields |= change
    return fields


def resolve(
    bench: Workbench, dataset: str, backbone: str, setting: str, seed: int, **changes: Any
) -> RunSpec:
    """The specification of one run; `changes` override single fields.

    Raises:
        ClipItError: an unknown data set, backbone or setting; data or weights that cannot be had.
    """
    profile, protocol = bench.profile.tuned(dataset, backbone, setting)
    own = fields_of(setting, profile) | changes
    if isinstance(own.get("protocol"), str):
        named = bench.profile.model_copy(update={"protocol": own.pop("protocol")})
        profile, protocol = named.tuned(dataset, backbone, setting)
    pairing, adapted = own.pop("pairing", None), own.get("adaptation") != "none"
    learns = adapted or pairing is not None
    by_protocol = learns or "protocol" in own
    protocol = own.pop("protocol", protocol)
    registry.entry(backbone)
    texts = {name: own.pop(name) for name in OF_TEXT if name in own}
    text_learns = pairing is not None and texts.get("text_adaptation") is None
    labelled: Fields = {
        "kernels": kernels.level(),
        "depth": profile.depth,
        "dataset": dataset,
        "data_hash": bench.dataset(dataset).content_hash,
        "seed": seed,
        "labels_per_class": own.pop("labels_per_class", None),
        "label_noise": own.pop("label_noise", 0.0),
        "noise_to": own.pop("noise_to", None),
        "validation_per_class": protocol.validation_per_class if by_protocol else None,
    }
    often = {name: own.pop(name) for name in ("passes",) if name in own}
    lora = own.pop("lora", profile.lora) if adapted or text_learns else own.pop("lora", None)
    fields: Fields = labelled | {
        "backbone": backbone,
        "backbone_hash": registry.weights_hash(backbone, bench.sources),
        "setting": setting,
        "pretraining": profile.pretraining,
        "stand_in": profile.stand_in if backbone == registry.STAND_IN else None,
        "normalisation": protocol.normalisation,
        "probe": profile.probe.model_copy(update=often),
        "lora": lora,
        "protocol": protocol if by_protocol else None,
    }
    if pairing is None and "target" not in own:
        own["distillation_weight"] = None
    else:
        fields["distillation_weight"] = profile.distillation_weight
    if pairing is not None:
        fields["branch"] = "late"
        if pairing.reports != "none":
            adapters = lora if text_learns else None
            fields["text"] = _text(bench, labelled, protocol, pairing, adapters, texts)
    if learns and own.get("branch") != "text_only":
        seen = often if "unlabelled" not in own else {}  # else stage two sees all patches anyway
        fields["training"] = profile.training_settings(dataset).model_copy(update=seen)
    if own.get("contrastive") is not None:
        asked = _asked(profile.templates_of(backbone))
        asked["class_texts"] = bench.dataset(dataset).class_texts
        if profile.protocol == "released":
            asked["same_class"] = "negatives"
        own["contrastive"] = own["contrastive"].model_copy(update=asked)
    spec = RunSpec(**fields | own)
    _check(spec, f"profile {profile.name}")
    return spec


def _check(spec: RunSpec, where: str) -> None:
    """Raise, as ClipItError, at a part of a setting's name that would change nothing there."""
    learns = spec.training is not None and spec.contrastive is None
    features = spec.text is not None and spec.target != "soft_labels"  # are distilled, not labels
    read = spec.text is not None and spec.target in (None, "soft_labels")
    probed = spec.contrastive is None and spec.branch != "text_only"
    doubled = spec.protocol is not None and spec.protocol.double_softmax
    works: dict[str, object] = {
        **dict.fromkeys(("retriever", "corpus"), spec.text),
        **dict.fromkeys(("word_dropout", "long_text", "text_passes"), read),
        "class_prompts": spec.branch != "text_only",
        "lambda": learns and (features or spec.target is not None),
        "smoothing": learns and spec.smoothing and not (doubled or spec.unlabelled),
        "unlabelled": learns and features and spec.labels_per_class,
        "passes": spec.labels_per_class and probed and spec.unlabelled in (None, 1),
        "mixup": learns and not features,
        "averaged": learns and spec.averaged,
    }
    for name, value in Setting.of(spec.setting).changes.items():
        if not works.get(name, True):
            what = f"setting {spec.setting!r}: {name}_{value} cannot work in it"
            raise ClipItError(what, where, "Leave it out")


def _text(
    bench: Workbench,
    labelled: Fields,
    protocol: Protocol,
    pairing: Pairing,
    lora: Lora | None,
    own: Fields,
) -> TextSpec:
    """Where a run's texts come from and how stage one reads them."""
    profile, dataset = bench.profile, labelled["dataset"]
    retriever = own.get("retriever", profile.retriever)
    share, source = protocol.class_text_share, pairing.source
    fields: Fields = {}
    if source is None or share is not None:
        corpus = own.get("corpus", profile.data_settings(dataset).corpus)
        fields |= {"corpus": corpus, "corpus_hash": bench.named_corpus(corpus).content_hash}
    if source == "terms":
        fields["wording"] = digest(*own_terms())
    elif source is not None:
        fields |= _asked(profile.templates_of(retriever))
    if source in ("prompts", "class_prompts") or share is not None:
        fields["class_texts"] = bench.dataset(dataset).class_texts
    return TextSpec(
        **labelled,
        **fields,
        retriever=retriever,
        retriever_hash=registry.weights_hash(retriever, bench.sources, text=True),
        pairing=pairing,
        training=own.get("text_stage", profile.text_stage),
        lora=lora,
        word_dropout=own.get("word_dropout"),
        stage=protocol.text_stage,
        lora_targets=protocol.lora_targets,
        double_softmax=protocol.double_softmax,
        letters_lost=protocol.letters_lost,
        class_text_share=share,
    )


def _asked(templates: str) -> Fields:
    """Whose prompts a CLIP is asked with, and what they say."""
    return {"templates": templates, "wording": wording(templates)}


CALLED = ("dataset", "backbone", "setting", "seed")
FOUND = (
    "kernels", "data_hash", "backbone_hash", "retriever_hash", "corpus_hash", "wording",
    "class_texts",
)  # fmt: skip


def origins(bench: Workbench, spec: RunSpec) -> pd.DataFrame:
    """Where each value of a run comes from: `field`, `value`, `origin`, one row a value.

    `call`: given for this run alone. `setting`: its name says so. `profile`: written there, or
    chosen by a search. `default`: written nowhere. `found`: in data, weights and on this machine.
    """
    profile, _ = bench.profile.tuned(spec.dataset, spec.backbone, spec.setting)
    own = fields_of(spec.setting, profile)
    usual = _flat(resolve(bench, spec.dataset, spec.backbone, spec.setting, spec.seed))

    def origin(field: str, value: Any) -> str:
        name, _, part = field.removeprefix("text.").partition(".")
        leaf, key = part or name, "text_stage" if field.startswith("text.training.") else name
        if name in (*Protocol.model_fields, "stage"):
            key = "protocol"
        if leaf == "templates":
            key = leaf
        if name in CALLED or usual.get(field) != value:
            return "call"
        if leaf in FOUND:
            return "found"
        if key in own or (leaf == "passes" and leaf in own) or name == "branch":
            return "setting"
        held = getattr(profile, key, None)
        if key == "training":
            held = profile.training_settings(spec.dataset)
        if isinstance(held, BaseModel):
            return "profile" if leaf in held.model_fields_set else "default"
        searched = leaf == "lora_targets" and profile is not bench.profile
        written = searched or name == "corpus" or key in profile.model_fields_set
        return "profile" if written else "default"

    rows = [(field, value, origin(field, value)) for field, value in _flat(spec).items()]
    return pd.DataFrame(rows, columns=["field", "value", "origin"])


def _flat(spec: RunSpec) -> Fields:
    """The values of a run by dotted name; what its text shares with it is left out there."""
    values = pd.json_normalize(spec.model_dump(exclude_none=True)).to_dict("records")[0]
    shared = {f"text.{name}" for name in Labelled.model_fields}
    return {str(name): value for name, value in values.items() if name not in shared}
