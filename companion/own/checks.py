"""What in data, reports or retriever will hurt, before anything is trained."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import entropy, t

from clipit_lib import paths
from clipit_lib.data.folder import FolderData, read_manifest
from clipit_lib.data.patches import PatchData, PatchDataset, Split, ValidationSplit
from clipit_lib.data.reports import says_nothing
from clipit_lib.encoders import registry
from clipit_lib.encoders.encoder import embed_texts
from clipit_lib.errors import ClipItError
from clipit_lib.files import tidy
from clipit_lib.pairing import effective_number, top_share
from companion import findings, studies
from companion.coverage import Coverage, token_coverage
from companion.findings import Finding, Severity
from companion.profile import Profile, Workbench, load_profile, sources_of_profile
from companion.specs import fields_of
from companion.statistics import paired_bootstrap, units

# -- Findings in tables and words.


COLUMNS = {"severity": "severity", "dataset": "data set", "check": "check", "what": "what",
           "why": "why it hurts", "fix": "what to do"}  # fmt: skip


def sorted_findings(found: Sequence[Finding]) -> list[Finding]:
    """The worst first, otherwise in the order given; each once."""
    return sorted(dict.fromkeys(found), key=lambda one: list(Severity).index(one.severity))


def findings_table(found: Sequence[Finding]) -> pd.DataFrame:
    """To read and to keep: severity, data set, check, what, why, what to do."""
    return findings.table(sorted_findings(found), COLUMNS)


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
    stops = [one for one in sorted_findings(found) if one.severity is Severity.STOP]
    if stops:
        first, number = stops[0], f"{len(stops)} finding{'s' * (len(stops) > 1)}"
        about = f"{first.dataset}: " * bool(first.dataset)
        what = f"{number} must be mended first: {about}{first.what} [{first.check}]"
        raise ClipItError(what, where, first.fix)


def findings_text(found: Sequence[Finding]) -> str:
    """For a terminal: three lines a finding, then the counts."""
    return "\n".join([*map(str, sorted_findings(found)), counts_sentence(found)])


def _found(
    check: str, what: str, why: str, fix: str, severity: Severity = Severity.WARNING
) -> list[Finding]:
    return [Finding(check, severity, what, why, fix)]


# -- What in patches, labels, groups and splits will hurt; each check is [] where all is well.


SPLITS = ("train", "validation", "test")
FEW_GROUPS = 20
VALIDATION_ERROR = 5.0  # points
IMBALANCE = 10.0
# Patches a group and their likeness, where nothing is known: an example, and said to be one.
EXAMPLE_PATCHES, EXAMPLE_CORRELATION = 10, 0.3


def shared_groups(samples: pd.DataFrame) -> list[Finding]:
    """The same patient or slide in several splits.

    Args:
        samples: one row a patch with the columns split and group ("" if unknown).
    """
    known = samples[samples["group"] != ""]
    spread = known.groupby("group")["split"].nunique()
    shared = spread.index[spread > 1]
    if shared.empty:
        return []
    test = known[known["split"] == "test"]
    leaked, whole = int(test["group"].isin(shared).sum()), len(samples.query("split == 'test'"))
    return _found(
        "shared_groups",
        f"{len(shared)} groups are in several splits: {_some(shared.tolist())}",
        f"{leaked} of {whole} test patches ({leaked / max(whole, 1):.0%}) come from a patient "
        "or slide that is also trained on or chosen by: their accuracy is recognition",
        "Put every group into one split only",
        Severity.STOP,
    )


def split_through_groups(samples: pd.DataFrame, split: ValidationSplit) -> list[Finding]:
    """Validation that would be drawn patch by patch out of groups that are known.

    Args:
        samples: as listed by the user, before any validation samples are drawn.
    """
    if (samples["split"] == "validation").any() or split.by in ("group", "official"):
        return []
    train = samples[(samples["split"] == "train") & (samples["group"] != "")]
    sizes = train.groupby("group").size()
    several = int((sizes > 1).sum())
    if several == 0:
        return []
    return _found(
        "split_through_groups",
        f"validation would be drawn by {split.by}, but groups are known",
        f"{several} of {len(sizes)} training groups have several patches and can end up on "
        "both sides: validation would choose what has been memorised",
        "Write `validation_split: {by: group, fraction: 0.2}` in the data set",
        Severity.STOP,
    )


def unknown_groups(samples: pd.DataFrame) -> list[Finding]:
    """Test patches whose patient or slide is not known, so that intervals are too narrow."""
    test = samples[samples["split"] == "test"]
    unknown = int((test["group"] == "").sum())
    if unknown == 0:
        return []
    effect = np.sqrt(1 + (EXAMPLE_PATCHES - 1) * EXAMPLE_CORRELATION)
    return _found(
        "unknown_groups",
        f"{unknown} of {len(test)} test patches have no group (patient or slide)",
        f"they count as {unknown} patients, so intervals are too narrow: {effect:.1f} times, "
        f"for example, with {EXAMPLE_PATCHES} patches a patient of intraclass correlation "
        f"{EXAMPLE_CORRELATION} (Kish's design effect); nor can a shared patient be noticed",
        "Add a column `group` to the manifest, with the patient's or slide's id",
    )


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
    return _found(
        "few_groups",
        f"the test split has {groups} groups (patients or slides)",
        f"{wider} (Student's t on {groups} groups)",
        f"Test on more patients; from {FEW_GROUPS} on this is below a tenth",
    )


def duplicates(dataset: PatchDataset) -> list[Finding]:
    """Patches with exactly the same pixels in two splits."""
    digests = [blake2b(patch.tobytes(), digest_size=16).digest() for patch in dataset.pixels]
    frame = dataset.samples[["id", "split"]].assign(digest=digests)
    found: list[Finding] = []
    for first, second in combinations(SPLITS, 2):
        here, there = (frame[frame["split"] == split] for split in (first, second))
        twice = there[there["digest"].isin(here["digest"])]
        if twice.empty:
            continue
        found += _found(
            "duplicates",
            f"{len(twice)} of {len(there)} {second} patches are also in {first}, pixel by pixel: "
            f"{_some(twice['id'].tolist())}",
            f"up to {100 * len(twice) / len(there):.1f} points of {second} accuracy are memory; "
            "copies that were saved anew or shifted are not even counted",
            "Keep each image once, and look for what copied it",
        )
    return found


def small_validation(labels: np.ndarray, names: Sequence[str]) -> list[Finding]:
    """Too few validation patches to choose by.

    Args:
        labels: of the validation patches, [m].
    """
    counts = np.bincount(labels, minlength=len(names))
    if (counts == 0).any():
        return []  # said by PatchDataset.validate
    # Of the mean of the classes' recalls, each at its most uncertain, one half.
    error = 100 * float(np.sqrt((0.25 / counts).sum())) / len(names)
    if error <= VALIDATION_ERROR:
        return []
    least = int(counts.argmin())
    return _found(
        "small_validation",
        f"{len(labels)} validation patches, {counts[least]} of {names[least]}",
        f"validation accuracy has a standard error of up to {error:.1f} points, so the epoch "
        "and the run to deploy are chosen partly by chance",
        "Hold out more (`validation_split: {fraction: 0.2}`) or bring more patches",
    )


def imbalance(labels: np.ndarray, names: Sequence[str], batch: int) -> list[Finding]:
    """Training classes of very different size; nothing here weights them.

    Args:
        labels: of the training patches, [n].
        batch: patches in a training step.
    """
    counts = np.bincount(labels, minlength=len(names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == 0 or counts[most] <= IMBALANCE * counts[least]:
        return []
    share = counts[least] / len(labels)
    return _found(
        "imbalance",
        f"{names[most]} has {counts[most]} training patches, {names[least]} has {counts[least]}",
        f"a step of {batch} patches sees {batch * share:.1f} of {names[least]} on average, and "
        f"leaving that class out costs only {100 * share:.1f} points of plain accuracy but "
        f"{100 / len(names):.0f} of balanced accuracy",
        "Train on fewer patches of the largest classes, or bring more of the smallest",
    )


def resized_twice(side: int, sizes: dict[str, int]) -> list[Finding]:
    """Patches kept at another size than a backbone reads.

    Args:
        sizes: pixels that each backbone reads.
    """
    others = {name: size for name, size in sizes.items() if size != side}
    if not others:
        return []
    said = ", ".join(f"{name} reads {size}" for name, size in others.items())
    return _found(
        "resized_twice",
        f"patches are kept at {side} pixels, but {said}",
        "training resizes twice where `predict` resizes once, so answers can differ a little",
        f"Write `side: {next(iter(others.values()))}` in the data set",
        Severity.NOTE,
    )


def files(notes: Sequence[str]) -> list[Finding]:
    """What was passed over or is unusual in the files of a data set or a corpus."""
    why, fix = "what is not read is not learned from", "Look whether that is as you want it"
    return [Finding("files", Severity.NOTE, note, why, fix) for note in notes if note]


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
    """A small corpus: copies (but for spaces and case) count once, placeholders not at all.

    Args:
        patches: training patches.
    """
    found, copies, silent = list[Finding](), list[str](), list[str]()
    first: dict[str, str] = {}
    for each, text in zip(ids, texts, strict=True):
        if says_nothing(text):
            silent.append(each)
        elif first.setdefault(tidy(text).casefold(), each) != each:
            copies.append(each)
    if silent:
        found += _found(
            "placeholders",
            f"{len(silent)} of {len(texts)} reports say nothing: {_some(silent)}",
            "they count as reports: patches that are paired with one learn from no finding",
            "Take them out",
        )
    if copies:
        found += _found(
            "equal_reports",
            f"{len(copies)} of {len(texts)} reports are the same as one before: {_some(copies)}",
            "equal texts are equal targets, which cannot tell patches apart",
            "Keep each report once",
            Severity.NOTE,
        )
    if (count := len(first)) < FEW_REPORTS:
        of_all = f" that differ and say something, of {len(texts)}" * (count < len(texts))
        found += _found(
            "few_reports",
            f"{count} reports{of_all}",
            f"{patches} training patches share them, {patches / count:.0f} to a report if evenly: "
            f"text can tell patches apart into {count} kinds at most",
            f"Bring at least {FEW_REPORTS} reports on this organ; they need not be of these "
            "patients",
        )
    return found


def few_used(reports: Int[np.ndarray, " n"], classes: int) -> list[Finding]:
    """So few reports in use that the text says little more than a label.

    Args:
        reports: index of the report that each training patch is paired with.
    """
    used = effective_number(reports)
    if used >= max(FEW_USED, 2 * classes):
        return []
    distinct = len(np.unique(reports))
    return _found(
        "few_used",
        f"the patches use {distinct} reports, as many as {used:.1f} used equally often",
        f"that is {np.log2(used):.1f} bits a patch where {classes} classes are "
        f"{np.log2(classes):.1f}: what is distilled is close to a few cluster labels",
        "Bring more varied reports or another retriever; compare with "
        "`clip_it/report_rank_5` and with image_centroids of notebook 14",
    )


def hubs(reports: Int[np.ndarray, " n"], ids: Sequence[str]) -> list[Finding]:
    """One or ten reports that serve most patches."""
    first, ten = top_share(reports, 1), top_share(reports, 10)
    if first <= TOP1 and ten <= TOP10:
        return []
    hub = ids[int(np.bincount(reports).argmax())]
    return _found(
        "hubs",
        f"report {hub} serves {first:.0%} of the training patches, ten reports {ten:.0%}",
        f"{round(first * len(reports))} of {len(reports)} patches have the same target, and "
        "equal targets cannot teach what tells patches apart",
        f"Read {hub}: if it is generic, take it out or shorten it to its findings; see the "
        "hubs in notebook 09",
    )


def truncation(cover: Coverage, long_text: str) -> list[Finding]:
    """Reports that are cut at the text encoder's window."""
    if long_text != "truncate" or cover.seen_share >= SEEN:
        return []
    return _found(
        "truncation",
        f"{1 - cover.seen_share:.0%} of all tokens lie beyond the window of "
        f"{cover.context_length} tokens; {cover.longer_share:.0%} of the reports are cut",
        f"the median report has {cover.median:.0f} tokens, and the diagnosis often stands at "
        "its end",
        "Write `text_stage: {long_text: chunk}`, or keep only diagnosis and findings",
    )


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
    right, rng = np.asarray(hits, bool)[None], np.random.default_rng(0)
    # Balanced accuracy is the gain over never being right.
    found = paired_bootstrap(np.zeros_like(right), right, labels, groups, draws, rng)
    chance = 100 / classes
    if found.low > chance:
        return []
    return _found(
        "weak_retriever",
        f"zero-shot, the retriever names the class of {found.estimate:.0f}% of the training "
        f"patches [{found.low:.0f}, {found.high:.0f}]; chance is {chance:.0f}%",
        "the interval reaches chance, so it may not see what the classes are about and its "
        "pairs may be as good as random ones",
        "Write `class_texts` as a pathologist would say them; if that does not help, take a "
        "retriever of this tissue and stain",
    )


def class_information(
    reports: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], classes: int
) -> Float[np.ndarray, " c"]:
    """Mutual information of the paired report with "is of this class", in bits, a class."""
    table = np.zeros((int(reports.max()) + 1, classes))
    np.add.at(table, (reports, labels), 1.0)
    uses = table.sum(axis=1, keepdims=True)
    inside = _bits(table / np.maximum(uses, 1.0))
    whole = _bits(table.sum(axis=0) / len(labels))
    information: np.ndarray = whole - (uses / len(labels) * inside).sum(axis=0)
    return information


def _bits(share: np.ndarray) -> np.ndarray:
    """Entropy of a coin that shows heads with this share."""
    bits: np.ndarray = entropy([share, 1 - share], base=2)
    return bits


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
    return _found(
        "class_without_text",
        f"the paired reports say nothing of: {', '.join(names[c] for c in silent)}",
        f"they tell {said}: such patches get the same reports as all others, so text cannot "
        "help to tell their class",
        "Bring reports that describe it, or a retriever that sees it",
    )


def unmentioned(texts: Sequence[str], class_texts: Sequence[str]) -> list[Finding]:
    """Classes whose words stand together in no report."""
    vocabularies = [_words(text) for text in texts]
    absent = [
        each
        for each in class_texts
        if not any(_words(each) - FILLERS <= words for words in vocabularies)
    ]
    if not absent:
        return []
    return _found(
        "unmentioned",
        f"no report has all the words of: {', '.join(absent)}",
        f"0 of {len(texts)} reports name the class, so its patches take what is written of others",
        "Check that the reports cover it, perhaps in other words",
        Severity.NOTE,
    )


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
    hits: np.ndarray = answers == data.labels[data.indices(split)]
    return hits


def zero_shot_table(bench: Workbench) -> pd.DataFrame:
    """One row a data set: balanced accuracy on test by the nearest class text, and chance."""
    rows = []
    for name in bench.profile.data:
        data, hits = bench.dataset(name), pd.Series(zero_shot_hits(bench, name, "test"))
        recalls = hits.groupby(data.labels[data.indices("test")]).mean()
        rows.append((name, round(100 * float(recalls.mean()), 1),
                     round(100 / len(data.classes), 1)))  # fmt: skip
    columns = ["data set", "zero-shot balanced accuracy (%)", "chance (%)"]
    return pd.DataFrame(rows, columns=columns)


# -- All checks of a profile's data sets, before anything is trained.


def check(bench: Workbench) -> list[Finding]:
    """Everything known to hurt in what the study `own` would run, the worst first.

    Nothing is trained, and no test label is compared with an answer. Pairs are checked if the
    retriever is there; one that is trained on the spot must have been.
    """
    found = list(_names(bench.profile))
    for dataset in datasets(bench.profile):
        found += [replace(one, dataset=dataset) for one in _dataset(bench, dataset)]
    return sorted_findings(found)


def datasets(profile: Profile) -> list[str]:
    """The data sets of the study `own`."""
    return list(dict.fromkeys(dataset for dataset, *_ in studies.cells(profile, "own")))


def _names(profile: Profile) -> Iterator[Finding]:
    """Backbones, retriever and settings that mean nothing, encoders that cannot be trained."""
    for _, backbone, settings, _ in studies.cells(profile, "own"):
        yield from _refused("backbone", partial(registry.entry, backbone))
        for setting in settings:
            yield from _refused("setting", partial(fields_of, setting, profile))
    yield from _refused("retriever", partial(registry.clip_entry, profile.retriever))
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


def _dataset(bench: Workbench, name: str) -> list[Finding]:
    stops = _leaks(bench.profile.data_settings(name))
    if stops := stops or _refused("data", partial(bench.dataset, name)):
        return stops
    found = _patches(bench.profile, name, bench.dataset(name))
    return [*found, *(_refused("reports", partial(bench.corpus, name)) or _texts(bench, name))]


def _leaks(settings: PatchData) -> list[Finding]:
    """Groups that a manifest, if it can be read, lets into several splits."""
    if isinstance(settings, FolderData) and settings.manifest is not None:
        with suppress(ClipItError):  # said when the data set is opened
            listed = read_manifest(paths.in_data(settings.folder) / settings.manifest)
            return shared_groups(listed) + split_through_groups(listed, settings.validation_split)
    return []


def _patches(profile: Profile, name: str, data: PatchDataset) -> list[Finding]:
    labels = {split: data.labels[data.indices(split)] for split in ("train", "validation")}
    batch = profile.training_settings(name).batch_size
    return [
        *unknown_groups(data.samples),
        *few_groups(data.samples),
        *duplicates(data),
        *small_validation(labels["validation"], data.classes),
        *imbalance(labels["train"], data.classes, batch),
        *resized_twice(data.pixels.shape[1], _sizes(profile)),
        *files(data.notes),
    ]


def _sizes(profile: Profile) -> dict[str, int]:
    side = profile.pretraining.side if profile.pretraining else None
    named = {backbone for _, backbone, *_ in studies.cells(profile, "own")}
    return {
        name: row.transform(side).size
        for name in named
        if (row := registry.ENCODERS.get(name)) and not row.text_targets
    }


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
    cover = token_coverage(corpus.texts, tokenizer.lengths, tokenizer.context_length)
    reports = bench.pairs(name, "train", 1).reports[:, 0]
    samples = data.samples.iloc[rows]
    groups = units(samples, "id")
    hits, draws = zero_shot_hits(bench, name, "train"), bench.profile.bootstrap_draws
    return [
        *found,
        *few_used(reports, len(data.classes)),
        *hubs(reports, corpus.ids),
        *truncation(cover, bench.profile.text_stage.long_text),
        *weak_retriever(hits, labels, groups, len(data.classes), draws),
        *classes_without_text(reports, labels, data.class_texts),
    ]


# -- What will hurt in a profile's data, reports or retriever, said before anything is trained.


def main(arguments: list[str]) -> None:
    """`check --profile NAME|FILE.yaml`: print every finding; fail if one must be mended first.

    Raises:
        ClipItError: a finding after which nothing can be run.
    """
    parser = argparse.ArgumentParser(prog="python -m companion check", description=main.__doc__)
    parser.add_argument("--profile", default="demo", help="a profile's name, or a file of yours")
    given = parser.parse_args(arguments).profile
    found = check(Workbench(load_profile(given), download=False))
    print(findings_text(found), flush=True)
    require_none_stops(found, given)
