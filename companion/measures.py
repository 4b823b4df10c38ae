"""Measures beside accuracy: complementarity, Pareto fronts, spaces, text statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Real, UInt8
from scipy.special import log_softmax
from torch import nn

from clipit_lib import text as text_stage
from clipit_lib.compute import device, stacked
from clipit_lib.data.patches import Split
from clipit_lib.encoders.encoder import Tokenizer
from clipit_lib.errors import ClipItError
from clipit_lib.inputs import SPLITS, choose_labels
from clipit_lib.predict import load_classifier
from clipit_lib.predictions import LOGIT
from clipit_lib.runs import StoredRun
from clipit_lib.training import BLOCK, Patches
from companion import paper
from companion.phantom import Phantom
from companion.phantom.known import KnownCorpus
from companion.phantom.reports import PhantomCorpus
from companion.profile import Profile, Workbench
from companion.specs import label
from companion.statistics import Cell, correct, pooled_bootstrap, units
from companion.tables import GAIN_CELL, by_cell, filled, items, items_by, run_table


def cross_entropy(predictions: pd.DataFrame) -> float:
    """Mean negative log probability of the true class, in nats."""
    scores = log_softmax(predictions.filter(like=LOGIT).to_numpy(np.float64), axis=1)
    return -float(scores[np.arange(len(scores)), predictions["label"].to_numpy()].mean())


# -- Whether distillation targets stay apart while a run is trained.

FIXED, MOVING = "clip_it", "clip_it/switch_moving_target"
SPREAD_COLUMNS = ["dataset", "setting", "seed", "epoch", "target_spread", "distillation"]


def spread_table(stored: Sequence[StoredRun]) -> pd.DataFrame:
    """One row per look at validation, with `SPREAD_COLUMNS`."""
    frames = [
        run.history().assign(dataset=run.spec.dataset, setting=run.spec.setting, seed=run.spec.seed)
        for run in stored
        if run.spec.setting in (FIXED, MOVING)
    ]
    found = [frame[SPREAD_COLUMNS] for frame in frames if "target_spread" in frame]
    return pd.concat(found or [pd.DataFrame(columns=SPREAD_COLUMNS)], ignore_index=True)


def spread_words(spreads: pd.DataFrame) -> str:
    """What is left of the targets' variance at the end, fixed and moving, data set by data set."""

    def said(rows: pd.DataFrame) -> str:
        at = rows.sort_values("epoch").groupby(["setting", "seed"])["target_spread"]
        first, last = at.first().groupby("setting").mean(), at.last().groupby("setting").mean()
        parts = [
            f"{what} target {first[setting]:.2f} at first and {last[setting]:.2f} at the end"
            for what, setting in (("fixed", FIXED), ("moving", MOVING))
            if setting in first
        ]
        return f": variance of the {'; '.join(parts)}."

    return items_by(spreads, ["dataset"], said)


# -- What no model is needed for: the floor below every accuracy on a data set.

LEVELS = 16  # of each channel, in a histogram


def colour_floor(bench: Workbench, names: Iterable[str]) -> pd.DataFrame:
    """Balanced accuracy on test (percent) of colours alone: a logistic regression on each patch's
    histograms, fitted on train; after Ignatov and Malivenko (2024, arXiv 2409.11546).

    One row per data set: dataset, classes, chance, balanced_accuracy.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = []
    for name in names:
        data = bench.dataset(name)
        (seen, labels), (tested, truth) = (
            (colour_histograms(data.pixels, data.indices(split)), data.labels[data.indices(split)])
            for split in ("train", "test")
        )
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        said = fitted.fit(seen, labels).predict(tested)
        found = 100 * float(recall_score(truth, said, average="macro"))
        rows.append((name, len(data.classes), 100 / len(data.classes), found))
    return pd.DataFrame(rows, columns=["dataset", "classes", "chance", "balanced_accuracy"])


def colour_histograms(
    pixels: UInt8[np.ndarray, "n s s 3"], rows: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m levels"]:
    """The share of each of 16 levels in each channel, of some patches: [m, 48]."""
    offset = LEVELS * np.arange(3)
    counts = [np.bincount((pixels[k] // (256 // LEVELS) + offset).ravel(), minlength=3 * LEVELS)
              for k in rows]  # fmt: skip
    shares: np.ndarray = np.array(counts) / (pixels.shape[1] * pixels.shape[2])
    return shares


def floor_words(found: pd.DataFrame) -> str:
    """One Markdown item per data set."""
    return items(
        found,
        "{dataset}: the colours of a patch alone, without any tissue, tell {classes} classes at "
        "{balanced_accuracy:.1f}% (chance: {chance:.1f}%).",
    )


# -- What text gets right where vision is wrong (section 4.4, equation 5, Figure 4).

Hits = Bool[np.ndarray, " n"]
Pair = tuple[StoredRun, StoredRun]  # of a vision model and a text classifier


def shares(vision: Hits, text: Hits) -> pd.Series:
    """The cases of two classifiers on the same samples [n], and what follows, all in percent.

    omega: text right, vision wrong: equation 5, as Figure 4 prints it; counterpart: the reverse.
    oracle: accuracy of one who always knew which of the two to trust.
    omega_independent: omega of two classifiers of these accuracies with independent errors.
    """
    cases = (text & ~vision, vision & ~text, text & vision, ~text & ~vision)
    omega, counterpart, both_right, both_wrong = (100 * float(case.mean()) for case in cases)
    seen = counterpart + both_right
    return pd.Series({
        "vision_accuracy": seen, "omega": omega, "counterpart": counterpart,
        "both_right": both_right, "both_wrong": both_wrong,
        "oracle": omega + counterpart + both_right,
        "omega_independent": (omega + both_right) * (100 - seen) / 100,
    })  # fmt: skip


def aligned_hits(vision: pd.DataFrame, text: pd.DataFrame) -> tuple[Hits, Hits]:
    """Whether each sample is right, for two prediction frames of the same samples.

    Raises:
        ClipItError: the frames hold other samples, another order or other labels.
    """
    for column in ("sample", "label"):
        if vision[column].tolist() != text[column].tolist():
            counts = f"vision has {len(vision)} predictions, text {len(text)}"
            what = f"{counts}, and their {column}s differ or are in another order"
            raise ClipItError(what, "complementarity", "Compare runs of the same data and split")
    return correct(vision), correct(text)


def matched(vision: Sequence[StoredRun], text: Sequence[StoredRun]) -> list[Pair]:
    """Each run of a vision model beside the text classifier of its data set and seed.

    Raises:
        ClipItError: there is no such text classifier.
    """
    found = {(run.spec.dataset, run.spec.seed): run for run in text}
    for run in vision:
        if (run.spec.dataset, run.spec.seed) not in found:
            what = f"no text classifier for seed {run.spec.seed}"
            fix = "Run the setting text with the same seeds"
            raise ClipItError(what, f"{run.spec.dataset}, {run.spec.backbone}", fix)
    return [(run, found[run.spec.dataset, run.spec.seed]) for run in vision]


def complementarity_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row per pair of `matched`: the text classifier's accuracies beside one vision model.

    Columns: those of `tables.run_table` of the text classifier, but with the vision model's
    backbone; then vision_accuracy, the shares (all in percent) and vision_run.
    """
    table = run_table([text for _, text in pairs])
    table["backbone"] = [vision.spec.backbone for vision, _ in pairs]
    hits = [aligned_hits(vision.predictions(), text.predictions()) for vision, text in pairs]
    table = table.join(pd.DataFrame([shares(*each) for each in hits]))
    return table.assign(vision_run=[vision.key for vision, _ in pairs])


def case_cells(pairs: Sequence[Pair]) -> dict[tuple[str, str, str], Cell]:
    """Where omega and its counterpart hold, by data set, backbone and measure."""
    found: dict[tuple[str, str, str], Cell] = {}
    texts = {vision.key: text for vision, text in pairs}
    for cell, runs in by_cell(vision for vision, _ in pairs).items():
        hits = [aligned_hits(run.predictions(), texts[run.key].predictions()) for run in runs]
        vision, text = (np.stack(each) for each in zip(*hits, strict=True))  # [seeds, n]
        groups = units(runs[0].predictions())
        found[*cell, "omega"] = Cell.of_cases(text & ~vision, groups)
        found[*cell, "counterpart"] = Cell.of_cases(vision & ~text, groups)
    return found


def interval_table(pairs: Sequence[Pair], draws: int) -> pd.DataFrame:
    """One row per cell and measure: dataset, backbone, measure, share, low, high (percent).

    Intervals are over seeds and groups.
    """
    rows = [
        (*key, *astuple(pooled_bootstrap([cell], draws, np.random.default_rng(0))))
        for key, cell in case_cells(pairs).items()
    ]
    return pd.DataFrame(rows, columns=[*GAIN_CELL, "measure", "share", "low", "high"])


def complementarity_sentences(table: pd.DataFrame, intervals: pd.DataFrame) -> str:
    """One Markdown item per cell, and where omega came out largest."""
    means = table.groupby(GAIN_CELL, sort=False, as_index=False).mean(numeric_only=True)
    cells = means.merge(intervals.query("measure == 'omega'"), on=GAIN_CELL)
    said = items(
        cells,
        "{dataset}, {backbone}: text is right where vision is wrong on {omega:.1f}% [{low:.1f}, "
        "{high:.1f}] of patches, vision where text is wrong on {counterpart:.1f}%. Classifiers of "
        "these accuracies (text {accuracy:.1f}%, vision {vision_accuracy:.1f}%) with independent "
        "errors would give an omega of {omega_independent:.1f}%.",
    )
    omegas, largest = cells.groupby("dataset", sort=False)["omega"].mean(), ""
    if len(omegas) > 1:
        listed = ", ".join(f"{name} {value:.1f}%" for name, value in omegas.items())
        first, second = sorted(omegas, reverse=True)[:2]
        largest = (
            f"Omega is largest on {omegas.idxmax()} ({listed}), by {first - second:.1f} points "
            "over the next; in the paper it is largest on PCAM. "
        )
    below = int((cells["omega"] < cells["omega_independent"]).sum())
    return (
        f"{said}\n\n{largest}It lies below what independent errors would give in {below} of "
        f"{len(cells)} cells: where it does, text tends to be right on patches that vision has "
        "right already."
    )


# -- Which models nothing cheaper matches: the frontier of cost and accuracy (Figure 3).

CELL = ["dataset", "backbone", "setting"]
COST_COLUMNS = [
    "parameters_deployed", "flops", "gflops", "parameters_encoded", "flops_encoded",
]  # fmt: skip

# A cost, the same with prompts encoded for each image, and its name.
COSTS = (
    ("parameters_deployed", "parameters_encoded", "deployed parameters"),
    ("flops", "flops_encoded", "operations"),
)


def pareto_front(
    cost: Real[np.ndarray, " n"], value: Real[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Points that no other point dominates: as cheap and as good, and better in one of the two.

    Equal points are on the frontier together.

    Raises:
        ValueError: a number is not finite.
    """
    if not (np.isfinite(cost).all() and np.isfinite(value).all()):
        raise ValueError("costs and values must be finite")
    # [n, n]: the second point compared with the first.
    no_worse = (cost <= cost[:, None]) & (value >= value[:, None])
    better = (cost < cost[:, None]) | (value > value[:, None])
    return ~np.asarray((no_worse & better).any(axis=1))


def cell_points(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of a tidy table of runs joined with `cost_columns`.

    Columns: dataset, backbone, setting, mean, low, high (balanced accuracy in percent: mean,
    lowest and highest over seeds), and the costs, which are the same for every seed.
    """
    cells = runs.groupby(CELL, sort=False)
    points = cells["balanced_accuracy"].agg(mean="mean", low="min", high="max")
    return points.join(cells[COST_COLUMNS].first()).reset_index()


def with_front(points: pd.DataFrame, cost: str, column: str) -> pd.DataFrame:
    """`points` with a column more: whether a cell is on its data set's frontier by `cost`."""
    marked = points.assign(**{column: False})
    for _, rows in points.groupby("dataset"):
        front = pareto_front(rows[cost].to_numpy(), rows["mean"].to_numpy())
        marked.loc[rows.index, column] = front
    return marked


def front_sentences(points: pd.DataFrame, cost: str) -> str:
    """One Markdown item per data set: its frontier from cheap to dear, and CLIP-IT's part in it."""

    def said(front: pd.DataFrame) -> str:
        steps = filled(front.sort_values(cost), "{backbone} {name} ({mean:.1f})")
        ours = (front["setting"] == "clip_it").sum()
        return f": {', '.join(steps)}; CLIP-IT in {ours} of {len(front)}."

    marked = with_front(points, cost, "on_front").assign(name=points["setting"].map(label))
    return items_by(marked[marked["on_front"]], ["dataset"], said)


def pareto_words(points: pd.DataFrame) -> str:
    """The frontiers by parameters and by operations, and whether cached prompts decide them."""
    return "\n\n".join(
        f"Frontier by {name}:\n\n{front_sentences(points, cost)}\n\n"
        f"With prompts encoded for each image: {changed_by(points, cost, other)}."
        for cost, other, name in COSTS
    )


def changed_by(points: pd.DataFrame, cost: str, other: str) -> str:
    """In words, which cells enter or leave the frontier if `other` is counted, not `cost`."""
    before, after = (with_front(points, each, "on_front")["on_front"] for each in (cost, other))
    named = points.assign(name=points["setting"].map(label))
    left = filled(named[before & ~after], "{backbone} {name} leaves ({dataset})")
    entered = filled(named[after & ~before], "{backbone} {name} enters ({dataset})")
    return ", ".join(left + entered) or "the same models"


def reading_table(points: pd.DataFrame) -> pd.DataFrame:
    """The cells to read, by data set and cost; frontiers are marked."""
    ordered = points.sort_values(["dataset", "parameters_deployed"], kind="stable")
    fronts = ordered[["on_front_parameters", "on_front_gflops"]].to_numpy()
    named = [", ".join(np.array(["parameters", "FLOPs"])[on]) for on in fronts]
    return pd.DataFrame({
        "data set": ordered["dataset"],
        "backbone": ordered["backbone"],
        "setting": ordered["setting"].map(label),
        "balanced accuracy (%), range over seeds": filled(
            ordered, "{mean:.1f} ({low:.1f} to {high:.1f})"
        ),
        "parameters": ordered["parameters_deployed"].map("{:,}".format),
        "GFLOPs": ordered["gflops"].map("{:.3g}".format),
        "on the frontier by": named,
    })  # fmt: skip


# -- How well the classes part in a space of features, in numbers and as a picture (appendix F.2).

Features = Float[np.ndarray, "m d"]
ClassLabels = Int[np.ndarray, " m"]
TIE = 1e-6  # cosines closer than this are one similarity: rounding must not choose a neighbour


def unit_length(features: Features) -> Features:
    """Each row divided by its length; a row of zeros stays."""
    return F.normalize(torch.from_numpy(features), dim=-1).numpy()


def balanced_sample(labels: ClassLabels, most: int, seed: int) -> Int[np.ndarray, " k"]:
    """At most `most` positions, ascending, as many of each class as the classes' sizes allow."""
    rng = np.random.default_rng(seed)
    of_class = [rng.permutation(np.flatnonzero(labels == each)) for each in np.unique(labels)]
    kept: list[np.ndarray] = []
    # The smallest class first: what it cannot fill is shared by the others.
    for place, rows in enumerate(sorted(of_class, key=len)):
        room = most - sum(map(len, kept))
        kept.append(rows[: room // (len(of_class) - place)])
    return np.sort(np.concatenate(kept))


def knn_purity(features: Features, labels: ClassLabels, k: int = 10) -> float:
    """Mean share of a sample's k nearest others, by cosine, that are of its class, in 0..1.

    Samples that tie for the last places share them: patches with the same report have the same
    text features, and their order in the data set must not decide.

    Raises:
        ClipItError: fewer than k others.
    """
    if not 1 <= k < len(features):
        raise ClipItError(f"{k} neighbours among {len(features)} samples", "k", "Ask for fewer")
    unit = unit_length(features)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    border = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]  # [m, 1], the k-th largest
    nearer = similarity > border + TIE
    tied = ~nearer & (similarity > border - TIE)
    places = k - nearer.sum(axis=1)
    same = labels[:, None] == labels[None, :]
    of_class = (nearer & same).sum(axis=1) + places * (tied & same).sum(axis=1) / tied.sum(axis=1)
    return float((of_class / k).mean())


def chance_purity(labels: ClassLabels) -> float:
    """The expected purity when neighbours are drawn from all others, in 0..1."""
    _, counts = np.unique(labels, return_counts=True)
    count = counts.sum()
    return float((counts * (counts - 1)).sum() / (count * (count - 1)))


def silhouette(features: Features, labels: ClassLabels) -> float:
    """Mean silhouette by cosine distance, in -1..1: 0 where classes overlap."""
    from sklearn.metrics import silhouette_score  # slow to import

    return float(silhouette_score(unit_length(features), labels, metric="cosine"))


def project(features: Features, seed: int) -> Float[np.ndarray, "m 2"]:
    """t-SNE of unit-length features to the plane; distances in it prove nothing."""
    from sklearn.manifold import TSNE  # slow to import

    unit = unit_length(features)
    if np.ptp(unit, axis=0).max() < TIE:  # one point: principal components do not exist
        return np.zeros((len(unit), 2))
    perplexity = min(30.0, len(unit) / 4)
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=500, random_state=seed)
    return tsne.fit_transform(unit)


# -- What a stored run holds inside: image, text and joint features of patches (appendix F.2).


def spaces(run: StoredRun, bench: Workbench, split: Split) -> dict[str, np.ndarray]:
    """Features [m, d] of the patches of a split by the name of their space, in order.

    `image` always: the backbone's features v. With a text branch also the paired `report`'s true
    features, the `distilled` ones h_d(v) that the deployed, image-only model predicts of them, of
    whatever length it gives them, and `joint`: image and distilled, each at unit length.

    Raises:
        ClipItError: the branch is paired with no text or predicts no text features; see also
            `predict.load_classifier`.
    """
    classifier = load_classifier(run.folder)
    dataset, model = bench.dataset(run.spec.dataset), classifier.model
    rows = dataset.indices(split)
    labels = torch.from_numpy(dataset.labels[rows])
    patches = Patches(dataset.pixels, rows, labels, classifier.transform)
    blocks = torch.arange(len(rows)).split(BLOCK)
    with torch.inference_mode():
        features = (model.backbone(patches.batch(each)).float().cpu() for each in blocks)  # type: ignore[operator]
        image = stacked(features, len(rows))
    if run.spec.branch is None:
        return {"image": image.numpy()}
    head = getattr(model, "distillation", None)
    if not isinstance(head, nn.Linear):
        what = f"{run.spec.setting} predicts no text features"
        raise ClipItError(what, run.folder, "Name a CLIP-IT run")
    with torch.inference_mode():
        text = head(image.to(device())).float().cpu().numpy()
    joint = np.concatenate([unit_length(image.numpy()), unit_length(text)], axis=1)
    report = paired_features(run, bench, split)
    return {"image": image.numpy(), "report": report, "distilled": text, "joint": joint}


def paired_features(run: StoredRun, bench: Workbench, split: Split) -> Float[np.ndarray, "m e"]:
    """Unit-length features t of the text that each patch is paired with, as stage one left them.

    Raises:
        ClipItError: the run is paired with no text.
    """
    spec = run.spec
    if spec.text is None:
        raise ClipItError(f"{spec.setting} reads no reports", run.folder, "Name a run with text")
    labels = choose_labels(spec, bench.dataset(spec.dataset))
    paired, stage = text_stage.stage_one(spec.text, bench, labels, SPLITS)
    return stage.features[torch.from_numpy(paired.chosen[split])].numpy()


def space_table(
    runs: Sequence[StoredRun], bench: Workbench, sample: Int[np.ndarray, " k"], neighbours: int = 10
) -> pd.DataFrame:
    """One row per run and space: how well the classes part among some test patches.

    Columns: those of `tables.run_table`, then space, silhouette (-1..1), purity and chance (0..1).

    Args:
        sample: positions within the test split.
    """
    rows = []
    for run in runs:
        dataset = bench.dataset(run.spec.dataset)
        labels = dataset.labels[dataset.indices("test")][sample]
        for space, features in spaces(run, bench, "test").items():
            row = run_table([run]).assign(
                space=space,
                silhouette=silhouette(features[sample], labels),
                purity=knn_purity(features[sample], labels, neighbours),
                chance=chance_purity(labels),
            )
            rows.append(row)
    return pd.concat(rows, ignore_index=True)


def inspection_sentences(table: pd.DataFrame, without: str, with_lora: str, control: str) -> str:
    """One Markdown item per space: how purity and silhouette change with LoRA; then the control.

    Args:
        table: `space_table` of one data set and backbone, with the three settings named.
    """
    means = table.groupby(["space", "setting"], sort=False)[["purity", "silhouette"]].mean()
    purity, shape = means["purity"].to_dict(), means["silhouette"].to_dict()
    said = [
        f"- {name}: of ten neighbours {10 * purity[name, without]:.1f} share the class without "
        f"LoRA, {10 * purity[name, with_lora]:.1f} with it; silhouette "
        f"{shape[name, without]:+.2f} and {shape[name, with_lora]:+.2f}."
        for name in dict.fromkeys(table["space"])
    ]
    return "\n".join(said) + (
        f"\n\nBy chance {10 * table['chance'].mean():.1f} of ten neighbours would share the class. "
        f"LoRA without any text brings the image space to {10 * purity['image', control]:.1f}, "
        f"CLIP-IT to {10 * purity['image', with_lora]:.1f}: only what lies between these two "
        "can be due to the text or to its branch."
    )


@dataclass(frozen=True)
class Coverage:
    """Lengths of whole reports in tokens, against a window of `context_length` tokens.

    Attributes:
        longer_share: of the reports, those that do not fit the window.
        seen_share: of all tokens, those that are seen when each report is cut at the window.
    """

    context_length: int
    median: float
    longest: int
    longer_share: float
    seen_share: float

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer) -> Coverage:
        """Measure texts with the tokenizer of an encoder."""
        lengths, most = np.array(tokenizer.lengths(list(texts))), tokenizer.context_length
        seen = np.minimum(lengths, most).sum() / max(lengths.sum(), 1)
        longer = float((lengths > most).mean())
        return cls(most, float(np.median(lengths)), int(lengths.max()), longer, float(seen))


# -- How close reports are to patches, and what the image really predicts of them (F.3 and F.4).

# Appendix F.3: mean similarity of a patch and its report ("near 0.55", "around 0.40").
PAPER_SIMILARITY = {"PCAM": 0.55, "BACH": 0.55, "CRC": 0.40}


@dataclass(frozen=True)
class Distillation:
    """How near predicted text features are to the true ones, on patches not trained on.

    Attributes:
        cosines: [m], of the distilled and the true text features of each patch.
        constant: [m], the same for one vector that never looks at the image: the mean of the true
            text features over the training pairs.
        explained: share of the variance of the true features that the image explains; 0 is what
            the mean over the training pairs explains, NaN if the true features do not vary.
    """

    cosines: Float[np.ndarray, " m"]
    constant: Float[np.ndarray, " m"]
    explained: float


def distillation(
    distilled: Float[np.ndarray, "m e"],
    true: Float[np.ndarray, "m e"],
    train: Float[np.ndarray, "n e"],
) -> Distillation:
    """Compare distilled with true text features, all brought to unit length.

    explained = 1 - mean |t - that|^2 / mean |t - mean|^2, with the mean over the training pairs.

    Args:
        train: true features of the training pairs.
    """
    target, guess = unit_length(true), unit_length(distilled)
    mean = unit_length(train).mean(axis=0, keepdims=True)
    left = float(((target - guess) ** 2).sum(axis=1).mean())
    whole = float(((target - mean) ** 2).sum(axis=1).mean())
    return Distillation(
        cosines=(target * guess).sum(axis=1),
        constant=(target * unit_length(mean)).sum(axis=1),
        explained=1 - left / whole if whole > 1e-9 else float("nan"),
    )


def of_run(run: StoredRun, bench: Workbench) -> Distillation:
    """`distillation` of a stored CLIP-IT run on its test split."""
    train, found = paired_features(run, bench, "train"), spaces(run, bench, "test")
    return distillation(found["distilled"], found["report"], train)


def distillation_table(runs: Sequence[StoredRun], found: Sequence[Distillation]) -> pd.DataFrame:
    """One row per run: accuracies, mean and sd of both cosines, share of variance explained."""
    return run_table(runs).assign(
        cosines_mean=[float(each.cosines.mean()) for each in found],
        cosines_sd=[float(each.cosines.std()) for each in found],
        constant_mean=[float(each.constant.mean()) for each in found],
        constant_sd=[float(each.constant.std()) for each in found],
        explained=[each.explained for each in found],
    )


def pairing_row(bench: Workbench, dataset: str) -> dict[str, object]:
    """Similarity, report use and token coverage of one data set's train split."""
    cover = Coverage.of(bench.corpus(dataset).texts, bench.clip.tokenizer)
    pairing = bench.pairing_summary(dataset, 1).drop(columns="rank").iloc[0]
    names = ("context_length", "tokens_median", "tokens_longest", "longer_share", "seen_share")
    return {str(n): v for n, v in pairing.items()} | dict(zip(names, astuple(cover), strict=True))


def hubs(reports: Int[np.ndarray, " n"], most: int) -> list[tuple[int, Int[np.ndarray, " c"]]]:
    """The most chosen reports, most chosen first, each with the positions of its patches."""
    values, counts = np.unique(reports, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(values[i]), np.flatnonzero(reports == values[i])) for i in order]


def may_be_shown(profile: Profile, dataset: str) -> bool:
    """Whether patches and reports may be kept in a figure: those of the phantom, no others."""
    settings = profile.data_settings(dataset)
    corpus = profile.corpora.get(settings.corpus)
    return isinstance(settings, Phantom) and isinstance(corpus, PhantomCorpus | KnownCorpus)


def pairing_sentences(table: pd.DataFrame) -> str:
    """One Markdown item per data set, from rows of `pairing_row`; the paper's mean beside ours."""

    def printed(dataset: str) -> str:
        mirrored = paper.MIRRORS.get(dataset)
        return f" (paper, {mirrored}: {PAPER_SIMILARITY[mirrored]:.2f})" if mirrored else ""

    return items(
        table.assign(printed=table["dataset"].map(printed)),
        "{dataset}: similarity {similarity_mean:.2f} ± {similarity_sd:.2f}{printed}; {images} "
        "patches use {distinct_reports} of {reports} reports, as many as {effective_number:.1f} "
        "used equally often, and ten reports serve {top10_share:.0%}; the encoder sees "
        "{seen_share:.0%} of the tokens.",
    )


def distillation_sentences(table: pd.DataFrame) -> str:
    """One Markdown item per data set: distilled beside constant, means over backbones and seeds."""
    cells = table.groupby("dataset", sort=False, as_index=False).mean(numeric_only=True)
    below = " (below 0: the mean report is the better guess)"
    return items(
        cells.assign(note=[below if each < 0 else "" for each in cells["explained"]]),
        "{dataset}: cosine with the true text features {cosines_mean:.3f} when distilled, "
        "{constant_mean:.3f} for one constant vector; share of the variance between reports that "
        "the image explains {explained:.2f}{note}.",
    )
