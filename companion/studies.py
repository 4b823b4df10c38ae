"""Which runs each table and figure needs: cells x settings x seeds of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec, known
from companion import specs
from companion.archived import named
from companion.paper import SWITCHES
from companion.phantom.known import KnownData
from companion.profile import Profile, Study, Workbench

Cell = tuple[str, str, Sequence[str], Sequence[int]]
TABLE2 = (
    "zero_shot", "zero_shot/embeddings", "vision", "lora_only", "contrastive",
    "contrastive/same_class_negatives", "clip_it",
)  # fmt: skip
COMPONENTS = (
    "clip_it/without_lora", "clip_it/lora_vision_only", "clip_it/lora_text_only",
    "clip_it/full_fine_tuning", "clip_it/early_fusion", "clip_it/direct_distillation",
    "clip_it/architecture_only",
)  # fmt: skip
WORD_DROPOUT = tuple(f"clip_it/word_dropout_{share}" for share in (10, 20, 30, 40, 50))
REPORT_RANK = tuple(f"clip_it/report_rank_{rank}" for rank in (2, 3, 4, 5))
RANDOM = ("clip_it/random_reports",)
LAMBDA = tuple(f"clip_it/lambda_{weight}" for weight in ("0.1", "0.3", "3", "10"))
LORA_RANK = tuple(f"clip_it/lora_rank_{rank}" for rank in (2, 4, 16, 32))
CURVES = (*WORD_DROPOUT, *REPORT_RANK, *LAMBDA, *LORA_RANK)
ABLATIONS = (
    "unimodal", "lora_only", "clip_it", *COMPONENTS, *WORD_DROPOUT, *REPORT_RANK, *RANDOM,
    *LAMBDA, *LORA_RANK,
)  # fmt: skip
CONTROLS = (
    "unimodal", "lora_only", "clip_it/architecture_only", "clip_it/image_target",
    "clip_it/image_centroids", "clip_it/constant_report", "clip_it/random_reports",
    "clip_it/redrawn_reports", "clip_it/shuffled_pairs", "clip_it/shuffled_within_class",
    "clip_it/class_prompts", "clip_it",
)  # fmt: skip
# Is text special, or would any brake on the fit do (notebook 19)?
BRAKES = (
    "lora_only", "lora_only/smoothing_10", "lora_only/mixup_0.2", "lora_only/averaged_90",
    "lora_only/self_distilled", "clip_it/noise_target", "clip_it/image_target",
    "clip_it/random_reports", "clip_it",
)  # fmt: skip
# Wrong labels, of any other class or of the next: text beside brakes without it (notebook 17).
NOISY = tuple(
    f"{each}/{noise}"
    for noise in ("label_noise_20", "label_noise_40", "label_noise_60", "pair_noise_20",
                  "pair_noise_40")
    for each in ("lora_only", "lora_only/smoothing_20", "lora_only/averaged_95", *RANDOM, "clip_it")
)  # fmt: skip
# Few labels, and targets for the patches that have none (notebook 19).
UNLABELLED = tuple(
    f"{each}/labels_{few}{rest}"
    for few in (4, 16)
    for rest, arms in (
        ("", ("lora_only", "clip_it")),
        ("/unlabelled_100", ("clip_it/noise_target", "clip_it/image_target", *RANDOM, "clip_it")),
    )
    for each in arms
)
# Asked again on patches of another laboratory (notebook 20).
SHIFT = ("unimodal", "lora_only", "clip_it/random_reports", "clip_it")
# What tells apart what CLIP-IT gains on data of the user (notebook 16).
OWN = (
    "unimodal", "lora_only", "clip_it/architecture_only", "clip_it/random_reports",
    "clip_it/shuffled_pairs", "clip_it",
)  # fmt: skip
AUDIT = (
    "unimodal", "lora_only", "clip_it",
    *(f"clip_it/switch_{name}" for name in SWITCHES if name != "random_vision_head"),
    "clip_it/long_text_chunk", "lora_only/protocol_released", "clip_it/protocol_released",
)  # fmt: skip
# Switches that concern a CLIP as the classifier.
CLIP_AUDIT = (
    "contrastive", "contrastive/same_class_negatives", "contrastive/misaligned_names", "clip_it",
    "clip_it/switch_random_vision_head",
)  # fmt: skip
# A world whose answer is known (notebook 19): from reports that are drawn to a patch's own.
KNOWN = (
    "lora_only", "clip_it/architecture_only", "clip_it/random_reports", "clip_it/own_25",
    "clip_it/own_50", "clip_it/own_75", "clip_it/own_100", "clip_it/own_neighbour_100",
    "clip_it/own_class_100", "clip_it", "clip_it/soft_labels/own_100",
)  # fmt: skip
# What the map compares at each of its points, and the points on each of its axes.
COMPARED = ("lora_only", "clip_it/random_reports", "clip_it")
LABELS = ("labels_5", "labels_20", "labels_80")
NOISE = ("label_noise_10", "label_noise_30", "label_noise_50")
STUDIES = (
    "table1", "table2", "complementarity", "tsne", "ablations", "text_statistics", "table6",
    "table7", "map", "controls", "protocol_audit", "clip_audit", "own", "known", "brakes",
    "noise", "unlabelled", "few_labels", "shift",
)  # fmt: skip

ONE_BACKBONE = (
    "tsne", "ablations", "map", "controls", "protocol_audit", "known", "brakes", "noise",
    "unlabelled", "few_labels", "shift",
)  # fmt: skip


def asked(profile: Profile, name: str) -> bool:
    """Whether a profile has this study; Table 1 and what rests on it alone are always there.

    Raises:
        ClipItError: the study, or one that the profile names, is none of STUDIES.
    """
    for each in (name, *profile.studies):
        known(each, STUDIES, "study", f"profile {profile.name}")
    return name in profile.studies or name in ("table1", "text_statistics")


def claimed(profile: Profile) -> bool:
    """Whether the paper's claims are judged: a world whose answer is known tests none."""
    cells_of = cells(profile, "table1")
    return not all(isinstance(profile.data[name], KnownData) for name, *_ in cells_of)


def runs_of(bench: Workbench, name: str) -> list[RunSpec]:
    """The runs of one study, data set by data set.

    Raises:
        ClipItError: the profile does not ask for this study; what `specs.resolve` raises.
    """
    if not asked(bench.profile, name):
        fix = f"Add `{name}: {{}}` to its `studies`"
        raise ClipItError(f"no study {name!r}", f"profile {bench.profile.name}", fix)
    return [
        spec_of(bench, dataset, backbone, setting, seed)
        for dataset, backbone, chosen, seeds in cells(bench.profile, name)
        for setting, seed in product(chosen, seeds)
    ]


def spec_of(bench: Workbench, dataset: str, backbone: str, setting: str, seed: int) -> RunSpec:
    """The specification of a run; where an archive stands for runs, its names alone."""
    names = dataset, backbone, setting, seed
    return named(*names) if bench.archive else specs.resolve(bench, *names)


def find(bench: Workbench, spec: RunSpec) -> StoredRun | None:
    """A finished run, or what an archive has of it, or None."""
    return bench.archive.find(spec) if bench.archive else runs.find(bench.profile.name, spec.key)


def stored(bench: Workbench, *names: str) -> list[StoredRun]:
    """The runs of some studies, each once; what is missing is run now.

    Raises:
        ClipItError: what `runs_of` raises; an archive lacks one of them.
    """
    asked = {
        (spec.dataset, spec.backbone, spec.setting, spec.seed): spec
        for name in names
        for spec in runs_of(bench, name)
    }
    if bench.archive is None:
        return [runs.get_or_run(spec, bench) for spec in asked.values()]
    found = [run for spec in asked.values() if (run := bench.archive.find(spec))]
    if len(found) < len(asked):
        what = f"{len(asked) - len(found)} of {len(asked)} runs of {', '.join(names)} are not there"
        raise ClipItError(what, bench.archive.folder, "Train them: leave out --from-predictions")
    return found


def cells(profile: Profile, name: str) -> list[Cell]:
    """Data set, backbone, settings and seeds of each cell of a study.

    Raises:
        ClipItError: the profile has no such data set, or there is no such setting.
    """
    study = profile.studies.get(name, Study())
    for dataset in study.datasets:
        profile.data_settings(dataset)
    for setting in study.settings:
        specs.fields_of(setting, profile)
    return [
        (
            dataset,
            backbone,
            study.settings or settings(profile, name, dataset),
            study.seeds or profile.seeds,
        )
        for dataset in study.datasets or _datasets(profile, name)
        for backbone in study.backbones or _backbones(profile, name)
    ]


def settings(profile: Profile, name: str, dataset: str) -> Sequence[str]:
    """The settings that a study compares on one data set, unless the profile lists its own."""
    if name == "table7":
        others = [r for r in profile.retrievers if r != profile.retriever]
        weaker = [f"clip_it/retriever_{retriever}" for retriever in others]
        corpus = profile.synthetic.get(dataset)
        written = [] if corpus is None else [f"clip_it/corpus_{corpus}"]
        return ["unimodal", "lora_only", *weaker, "clip_it", *written]
    if name == "controls":
        own = profile.data_settings(dataset).corpus
        organ = profile.corpora[own].organ
        others = [
            f"clip_it/corpus_{corpus}"
            for corpus, settings in profile.corpora.items()
            if settings.source != "synthetic" and settings.organ != organ
        ]
        return [*CONTROLS[:-1], *others, CONTROLS[-1]]
    if name == "known":  # the other corpora of the same patches inform less
        own = profile.data_settings(dataset).corpus
        others = [c for c, each in profile.corpora.items() if each.source == "known" and c != own]
        less = [f"clip_it/own_100/corpus_{corpus}" for corpus in others]
        return [*KNOWN, *less]
    if name == "map":
        points = [f"{each}/{point}" for point in (*LABELS, *NOISE) for each in COMPARED]
        # Retriever and lambda change nothing for a run without them.
        weaker = [f"clip_it/retriever_{r}" for r in profile.retrievers if r != profile.retriever]
        curves = [f"{each}/{point.split('/')[1]}" for point in LAMBDA for each in COMPARED[1:]]
        return [*COMPARED, *points, *weaker, *curves]
    fixed: dict[str, Sequence[str]] = {
        "table1": profile.settings,
        "table2": TABLE2,
        "complementarity": ("text",),
        "tsne": ("clip_it", "clip_it/without_lora"),
        "ablations": ABLATIONS,
        "text_statistics": ("clip_it",),
        "table6": ("text", "text/prompts", "text/terms"),
        "protocol_audit": AUDIT,
        "clip_audit": CLIP_AUDIT,
        "own": OWN,
        "brakes": BRAKES,
        "noise": NOISY,
        **dict.fromkeys(("unlabelled", "few_labels"), UNLABELLED),
        "shift": SHIFT,
    }
    return fixed[name]


def _datasets(profile: Profile, name: str) -> Sequence[str]:
    usual = profile.studies.get("table1", Study()).datasets or list(profile.data)
    if name in ("tsne", "ablations", "map", "clip_audit"):
        return usual[:1]
    if name == "table7" and profile.synthetic:
        return list(profile.synthetic)
    return usual


def _backbones(profile: Profile, name: str) -> Sequence[str]:
    if name == "table2":
        return profile.retrievers
    if name in ("complementarity", "table6", "clip_audit"):
        return (profile.retriever,)
    return profile.backbones[:1] if name in ONE_BACKBONE else profile.backbones
