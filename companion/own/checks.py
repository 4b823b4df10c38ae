"""What in data, reports or retriever will hurt, before anything is trained."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import entropy, t

from clipit_lib.data.folder import FolderData, read_manifest
from clipit_lib.data.patches import PatchDataset, Split, ValidationSplit
from clipit_lib.data.reports import says_nothing
from clipit_lib.encoders import registry
from clipit_lib.encoders.encoder import embed_texts
from clipit_lib.errors import ClipItError
from clipit_lib.files import tidy
from clipit_lib.inputs import SPLITS
from clipit_lib.pairing import effective_number
from clipit_lib.settings import Strict
from companion import paths, studies
from companion.findings import Finding, Severity
from companion.measures import Coverage
from companion.profile import Profile, Workbench, load_profile, sources_of_profile
from companion.reading import read_strict
from companion.specs import fields_of
from companion.statistics import Cell, pooled_bootstrap, top_share, units

# -- Findings in tables and words.

COLUMNS = {"severity": "severity", "dataset": "data set", "check": "check", "what": "what",
           "why": "why it hurts", "fix": "what to do"}  # fmt: skip


def counts_sentence(found: Sequence[Finding]) -> str:
    """How many findings of each severity."""
    if not found:
        return "Nothing was found that is known to hurt."
    said = [one.severity for one in found]
    bad = (Severity.STOP, Severity.WARNING, Severity.NOTE)
    return "Found: " + ", ".join(f"{said.count(each)} {each}" for each in bad) + "."


def warnings_text(found: Sequence[Finding]) -> str:
    """What must be said beside every result, one Markdown item each; "" if nothing."""
    said = [one for one in found if one.severity is Severity.WARNING]
    items = "\n".join(f"- {one.dataset}: {one.what}; {one.why}." for one in said)
    return items and f"Found before anything was trained:\n\n{items}"


def require_none_stops(found: Sequence[Finding], where: object) -> None:
    """Go on only where something can be run.

    Raises:
        ClipItError: a finding is a stop; the first is said.
    """
    stops = [one for one in found if one.severity is Severity.STOP]
    if stops:
        first, number = stops[0], f"{len(stops)} finding{'s' * (len(stops) > 1)}"
        about = f"{first.dataset}: " * bool(first.dataset)
        what = f"{number} must be fixed first: {about}{first.what} [{first.check}]"
        raise ClipItError(what, where, first.fix)


class Words(Strict):
    """What is said of one kind of finding, with the places of its numbers in braces."""

    what: str
    why: str
    fix: str
    severity: Severity = Severity.WARNING


WORDS: dict[str, Words] = read_strict(Path(__file__).with_name("findings.yaml"), dict[str, Words])


def _found(check: str, **values: object) -> list[Finding]:
    said = WORDS[check]
    what, why, fix = (each.format(**values) for each in (said.what, said.why, said.fix))
    return [Finding(check, said.severity, what, why, fix)]


# -- What in patches, labels, groups and splits will hurt; each check is [] where all is well.

FEW_GROUPS = 20
VALIDATION_ERROR = 5.0  # points
IMBALANCE = 10.0
# Patches a group and their likeness, where nothing is known: an example, and said to be one.
EXAMPLE_PATCHES, EXAMPLE_CORRELATION = 10, 0.3


def shared_groups(samples: pd.DataFrame) -> list[Finding]:
    """The same patient or slide in several splits; `samples` have split and group or ""."""
    known = samples[samples["group"] != ""]
    spread = known.groupby("group")["split"].nunique()
    shared = spread.index[spread > 1]
    if shared.empty:
        return []
    test = known[known["split"] == "test"]
    leaked, whole = int(test["group"].isin(shared).sum()), len(samples.query("split == 'test'"))
    return _found(
        "shared_groups", shared=len(shared), some=_some(shared.tolist()), leaked=leaked,
        whole=whole, share=leaked / max(whole, 1),
    )  # fmt: skip


def split_through_groups(samples: pd.DataFrame, split: ValidationSplit) -> list[Finding]:
    """Validation that would be drawn patch by patch out of groups that the user has listed."""
    if (samples["split"] == "validation").any() or split.by in ("group", "official"):
        return []
    train = samples[(samples["split"] == "train") & (samples["group"] != "")]
    sizes = train.groupby("group").size()
    several = int((sizes > 1).sum())
    if several == 0:
        return []
    return _found("split_through_groups", by=split.by, several=several, groups=len(sizes))


def unknown_groups(samples: pd.DataFrame) -> list[Finding]:
    """Test patches whose patient or slide is not known, so that intervals are too narrow."""
    test = samples[samples["split"] == "test"]
    unknown = int((test["group"] == "").sum())
    if unknown == 0:
        return []
    effect = np.sqrt(1 + (EXAMPLE_PATCHES - 1) * EXAMPLE_CORRELATION)
    return _found(
        "unknown_groups", unknown=unknown, whole=len(test), effect=effect,
        patches=EXAMPLE_PATCHES, correlation=EXAMPLE_CORRELATION,
    )  # fmt: skip


def few_groups(samples: pd.DataFrame) -> list[Finding]:
    """So few test groups that a percentile bootstrap over them is too narrow."""
    test = samples[(samples["split"] == "test") & (samples["group"] != "")]
    groups = int(test["group"].nunique())
    if not 0 < groups < FEW_GROUPS:
        return []
    # A bootstrap knows neither n - 1 nor Student's tails.
    wider = "no interval exists"
    if groups > 1:
        factor = t.ppf(0.975, groups - 1) / 1.96 * np.sqrt(groups / (groups - 1))
        wider = f"intervals should be about {factor:.1f} times as wide as the bootstrap says"
    return _found("few_groups", groups=groups, wider=wider, enough=FEW_GROUPS)


def duplicates(dataset: PatchDataset) -> list[Finding]:
    """Patches with exactly the same pixels in two splits."""
    digests = [blake2b(patch.tobytes(), digest_size=16).digest() for patch in dataset.pixels]
    frame = dataset.samples[["id", "split"]].assign(digest=digests)
    found: list[Finding] = []
    for first, second in combinations(SPLITS, 2):
        there = frame[frame["split"] == second]
        twice = there[there["digest"].isin(frame["digest"][frame["split"] == first])]
        if not twice.empty:
            found += _found(
                "duplicates", twice=len(twice), whole=len(there), first=first, second=second,
                some=_some(twice["id"].tolist()), points=100 * len(twice) / len(there),
            )  # fmt: skip
    return found


def small_validation(labels: np.ndarray, names: Sequence[str]) -> list[Finding]:
    """Too few validation patches, of these labels [m], to choose by."""
    counts = np.bincount(labels, minlength=len(names))
    if (counts == 0).any():
        return []  # said by PatchDataset.validate
    # Of the mean of the classes' recalls, each at its most uncertain, one half.
    error = 100 * float(np.sqrt((0.25 / counts).sum())) / len(names)
    if error <= VALIDATION_ERROR:
        return []
    least = int(counts.argmin())
    return _found(
        "small_validation", patches=len(labels), count=counts[least], least=names[least],
        error=error,
    )  # fmt: skip


def imbalance(labels: np.ndarray, names: Sequence[str], batch: int) -> list[Finding]:
    """Training classes, of labels [n], of very different size; nothing here weights them."""
    counts = np.bincount(labels, minlength=len(names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == 0 or counts[most] <= IMBALANCE * counts[least]:
        return []
    share = counts[least] / len(labels)
    return _found(
        "imbalance", most=names[most], many=counts[most], least=names[least], few=counts[least],
        batch=batch, seen=batch * share, plain=100 * share, balanced=100 / len(names),
    )  # fmt: skip


def resized_twice(side: int, sizes: dict[str, int]) -> list[Finding]:
    """Patches kept at another size than a backbone reads; `sizes` are pixels, by backbone."""
    others = {name: size for name, size in sizes.items() if size != side}
    if not others:
        return []
    said = ", ".join(f"{name} reads {size}" for name, size in others.items())
    return _found("resized_twice", side=side, others=said, first=next(iter(others.values())))


def files(notes: Sequence[str]) -> list[Finding]:
    """What was passed over or is unusual in the files of a data set or a corpus."""
    return [one for note in notes if note for one in _found("files", note=note)]


def _some(values: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


# -- What in the reports, their pairs and the retriever will hurt; [] where all is well.

FEW_REPORTS = 100
FEW_USED = 10
TOP1, TOP10 = 0.2, 0.8
SEEN = 0.75
TOLD = 0.02  # share of a class's entropy
PERMUTATIONS = 200
FILLERS = {"a", "an", "and", "in", "no", "of", "or", "the", "to", "with"}


def few_reports(texts: Sequence[str], ids: Sequence[str], patches: int) -> list[Finding]:
    """A small corpus: copies (but for spaces and case) count once, placeholders not at all."""
    found, copies, silent = list[Finding](), list[str](), list[str]()
    first: dict[str, str] = {}
    for each, text in zip(ids, texts, strict=True):
        if says_nothing(text):
            silent.append(each)
        elif first.setdefault(tidy(text).casefold(), each) != each:
            copies.append(each)
    whole = len(texts)
    if silent:
        found += _found("placeholders", silent=len(silent), reports=whole, some=_some(silent))
    if copies:
        found += _found("equal_reports", copies=len(copies), reports=whole, some=_some(copies))
    if (count := len(first)) < FEW_REPORTS:
        of_all = f" that differ and say something, of {whole}" * (count < whole)
        found += _found(
            "few_reports", count=count, of_all=of_all, patches=patches, each=patches / count,
            enough=FEW_REPORTS,
        )  # fmt: skip
    return found


def few_used(reports: Int[np.ndarray, " n"], classes: int) -> list[Finding]:
    """So few reports, paired with the training patches, that they say little more than a label."""
    used = effective_number(reports)
    if used >= max(FEW_USED, 2 * classes):
        return []
    return _found(
        "few_used", distinct=len(np.unique(reports)), used=used, bits=np.log2(used),
        classes=classes, whole=np.log2(classes),
    )  # fmt: skip


def hubs(reports: Int[np.ndarray, " n"], ids: Sequence[str]) -> list[Finding]:
    """One or ten reports that serve most patches."""
    first, ten = top_share(reports, 1), top_share(reports, 10)
    if first <= TOP1 and ten <= TOP10:
        return []
    hub = ids[int(np.bincount(reports).argmax())]
    served = round(first * len(reports))
    return _found("hubs", hub=hub, first=first, ten=ten, served=served, patches=len(reports))


def truncation(cover: Coverage, long_text: str) -> list[Finding]:
    """Reports that are cut at the text encoder's window."""
    if long_text != "truncate" or cover.seen_share >= SEEN:
        return []
    return _found("truncation", cover=cover, beyond=1 - cover.seen_share)


def weak_retriever(
    hits: Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    groups: np.ndarray,
    classes: int,
    draws: int,
) -> list[Finding]:
    """A retriever whose zero-shot answers are not above chance (balanced accuracy).

    Args:
        hits: whether the nearest class text is right, for training patches: test is not looked at.
        groups: [n], the unit of the bootstrap.
        draws: of the bootstrap.
    """
    cell = Cell.of_cases(np.asarray(hits, bool)[None], groups, labels)
    found = pooled_bootstrap([cell], draws, np.random.default_rng(0))
    chance = 100 / classes
    return [] if found.low > chance else _found("weak_retriever", found=found, chance=chance)


def class_information(
    reports: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], classes: int
) -> Float[np.ndarray, " c"]:
    """Mutual information of the paired report with "is of this class", in bits, a class."""
    table = np.zeros((int(reports.max()) + 1, classes))
    np.add.at(table, (reports, labels), 1.0)
    uses = table.sum(axis=1, keepdims=True)
    inside = _bits(table / np.maximum(uses, 1.0))
    whole = _bits(table.sum(axis=0) / len(labels))
    return whole - (uses / len(labels) * inside).sum(axis=0)


def _bits(share: np.ndarray) -> np.ndarray:
    """Entropy of a coin that shows heads with this share."""
    return entropy([share, 1 - share], base=2)


def classes_without_text(
    reports: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], names: Sequence[str]
) -> list[Finding]:
    """Classes that the paired report says nothing of: it is shared alike with all others.

    The information counted is what is above its mean over random labels, because a table of many
    reports and few patches shows some by luck. A class is found if that is below 2% of the class's
    entropy, or within what 95% of random labels show.
    """
    classes = len(names)
    told = class_information(reports, labels, classes)
    most = _bits(np.bincount(labels, minlength=classes) / len(labels))
    rng = np.random.default_rng(0)
    chance = np.array(
        [class_information(reports, rng.permutation(labels), classes) for _ in range(PERMUTATIONS)]
    )
    mean, high = chance.mean(axis=0), np.quantile(chance, 0.95, axis=0)
    silent = np.flatnonzero((told <= high) | (told - mean < TOLD * most)).tolist()
    if not silent:
        return []
    said = ", ".join(
        f"{told[c]:.3f} of {most[c]:.2f} bits of {names[c]} ({mean[c]:.3f} for random labels)"
        for c in silent
    )
    return _found("class_without_text", silent=", ".join(names[c] for c in silent), told=said)


def unmentioned(texts: Sequence[str], class_texts: Sequence[str]) -> list[Finding]:
    """Classes whose words stand together in no report."""
    known = [_words(text) for text in texts]
    absent = [each for each in class_texts if not any(_words(each) - FILLERS <= w for w in known)]
    if not absent:
        return []
    return _found("unmentioned", absent=", ".join(absent), reports=len(texts))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", tidy(text).lower()))


# -- Zero-shot classification by the retriever: is it fit to pair?

TEMPLATE = "an H&E image of {}."


def zero_shot_hits(bench: Workbench, dataset: str, split: Split) -> Bool[np.ndarray, " m"]:
    """Whether the nearest class text is that of the patch's class, for each patch of a split."""
    data = bench.dataset(dataset)
    prompts = [TEMPLATE.format(text) for text in data.class_texts]
    texts = embed_texts(bench.clip.text_tower, bench.clip.tokenizer, prompts, "truncate").numpy()
    answers = (bench.retriever_embeddings(dataset, split) @ texts.T).argmax(axis=1)
    return answers == data.labels[data.indices(split)]


def zero_shot_table(bench: Workbench) -> pd.DataFrame:
    """One row a data set: balanced accuracy on test by the nearest class text, and chance; or what
    stops there, which is no fault of the retriever.
    """
    rows: list[tuple[object, ...]] = []
    for name in bench.profile.data:
        if stops := _not_opened(bench, name):
            rows.append((name, f"stop: {stops[0].what}", ""))
            continue
        data, hits = bench.dataset(name), pd.Series(zero_shot_hits(bench, name, "test"))
        recall = float(hits.groupby(data.labels[data.indices("test")]).mean().mean())
        rows.append((name, round(100 * recall, 1), round(100 / len(data.classes), 1)))
    columns = ["data set", "zero-shot balanced accuracy (%)", "chance (%)"]
    return pd.DataFrame(rows, columns=columns)


def check(bench: Workbench) -> list[Finding]:
    """Everything known to hurt in what the study `own` would run, the worst first, each once.

    Nothing is trained, and no test label is compared with an answer. Pairs are checked if the
    retriever is there; one that is trained on the spot must have been.
    """
    found = list(_names(bench.profile))
    for dataset in datasets(bench.profile):
        found += [replace(one, dataset=dataset) for one in _dataset(bench, dataset)]
    return sorted(dict.fromkeys(found), key=lambda one: list(Severity).index(one.severity))


def datasets(profile: Profile) -> list[str]:
    """The data sets of the study `own`."""
    return list(dict.fromkeys(dataset for dataset, *_ in studies.cells(profile, "own")))


def _names(profile: Profile) -> Iterator[Finding]:
    """Backbones, retriever and settings that mean nothing, encoders that cannot be trained."""
    for _, backbone, settings, _ in studies.cells(profile, "own"):
        yield from _refused("backbone", partial(registry.entry, backbone))
        for setting in settings:
            yield from _refused("setting", partial(fields_of, setting, profile))
    yield from _refused("retriever", partial(registry.entry, profile.retriever, clip=True))
    for name in profile.trained_encoders:
        yield from _refused("encoder", partial(sources_of_profile(profile).recipe, name))


def _refused(name: str, attempt: Callable[[], object]) -> list[Finding]:
    """A finding if an attempt fails."""
    try:
        attempt()
    except ClipItError as error:
        what = f"{error.where}: {error.what}"
        return [Finding(name, Severity.STOP, what, "nothing can be run", error.fix)]
    return []


def _not_opened(bench: Workbench, name: str) -> list[Finding]:
    """Why a data set cannot be opened; groups that a readable manifest lets leak come first."""
    settings = bench.profile.data_settings(name)
    leaks: list[Finding] = []
    if isinstance(settings, FolderData) and settings.manifest is not None:
        with suppress(ClipItError):  # said when the data set is opened
            listed = read_manifest(paths.in_data(settings.folder) / settings.manifest)
            leaks = shared_groups(listed) + split_through_groups(listed, settings.validation_split)
    return leaks or _refused("data", partial(bench.dataset, name))


def _dataset(bench: Workbench, name: str) -> list[Finding]:
    if stops := _not_opened(bench, name):
        return stops
    found = _patches(bench.profile, name, bench.dataset(name))
    return [*found, *(_refused("reports", partial(bench.corpus, name)) or _texts(bench, name))]


def _patches(profile: Profile, name: str, data: PatchDataset) -> list[Finding]:
    train, validation = (data.labels[data.indices(split)] for split in SPLITS[:2])
    side = profile.pretraining.side if profile.pretraining else None
    sizes = {
        backbone: row.transform(side).size
        for _, backbone, *_ in studies.cells(profile, "own")
        if (row := registry.ENCODERS.get(backbone)) and not row.text_targets
    }
    return [
        *unknown_groups(data.samples),
        *few_groups(data.samples),
        *duplicates(data),
        *small_validation(validation, data.classes),
        *imbalance(train, data.classes, profile.training_settings(name).batch_size),
        *resized_twice(data.pixels.shape[1], sizes),
        *files(data.notes),
    ]


def _texts(bench: Workbench, name: str) -> list[Finding]:
    data, corpus = bench.dataset(name), bench.corpus(name)
    rows = data.indices("train")
    labels = data.labels[rows]
    found = [
        *files([corpus.notes]),
        *few_reports(corpus.texts, corpus.ids, len(rows)),
        *unmentioned(corpus.texts, data.class_texts),
    ]
    try:
        here = sources_of_profile(bench.profile, download=False)
        registry.weights_hash(bench.profile.retriever, here, text=True)  # a check fetches nothing
        tokenizer = bench.clip.tokenizer
    except ClipItError as error:
        why = "pairs, length of reports and the retriever could not be checked"
        return [*found, Finding("retriever", Severity.NOTE, str(error.what), why, error.fix)]
    cover = Coverage.of(corpus.texts, tokenizer)
    reports = bench.pairs(name, "train", 1).reports[:, 0]
    groups, hits = units(data.samples.iloc[rows], "id"), zero_shot_hits(bench, name, "train")
    return [
        *found,
        *few_used(reports, len(data.classes)),
        *hubs(reports, corpus.ids),
        *truncation(cover, bench.profile.text_stage.long_text),
        *weak_retriever(hits, labels, groups, len(data.classes), bench.profile.bootstrap_draws),
        *classes_without_text(reports, labels, data.class_texts),
    ]


def main(options: Namespace) -> None:
    """Print every finding; fail if one must be resolved first."""
    found = check(Workbench(load_profile(options.profile), download=False))
    print(*found, counts_sentence(found), sep="\n", flush=True)
    require_none_stops(found, options.profile)
