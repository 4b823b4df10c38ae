"""How close reports are to patches, and what the image really predicts of them (F.3 and F.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from clipit_lib import paper
from clipit_lib.embedding_space import unit_length
from clipit_lib.inspection import embed, paired_features
from clipit_lib.reports.coverage import token_coverage
from clipit_lib.runs import StoredRun
from clipit_lib.settings import PhantomCorpus, PhantomData, Profile
from clipit_lib.tables import run_table
from clipit_lib.workbench import Workbench

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
    return distillation(
        embed(run, bench, "test").text,
        paired_features(run, bench, "test"),
        paired_features(run, bench, "train"),
    )


def distillation_table(runs: Sequence[StoredRun], found: Sequence[Distillation]) -> pd.DataFrame:
    """One row a run: accuracies, mean and sd of both cosines, share of variance explained."""
    table = run_table(runs)
    for name in ("cosines", "constant"):
        values = [getattr(each, name) for each in found]
        table[f"{name}_mean"] = [float(each.mean()) for each in values]
        table[f"{name}_sd"] = [float(each.std()) for each in values]
    table["explained"] = [each.explained for each in found]
    return table


def by_dataset(
    runs: Sequence[StoredRun], found: Sequence[Distillation]
) -> dict[str, list[Distillation]]:
    """What was found of every run, by its data set."""
    groups: dict[str, list[Distillation]] = {}
    for run, each in zip(runs, found, strict=True):
        groups.setdefault(run.spec.dataset, []).append(each)
    return groups


def pairing_row(bench: Workbench, dataset: str) -> dict[str, object]:
    """Similarity, report use and token coverage of one data set's train split."""
    corpus, tokenizer = bench.corpus(dataset), bench.clip.tokenizer
    cover = token_coverage(corpus.texts, tokenizer.lengths, tokenizer.context_length)
    pairing = bench.pairing_summary(dataset, 1).drop(columns="rank").iloc[0]
    return {str(name): value for name, value in pairing.items()} | {
        "context_length": cover.context_length,
        "tokens_median": cover.median,
        "tokens_longest": cover.longest,
        "longer_share": cover.longer_share,
        "seen_share": cover.seen_share,
    }


def hubs(reports: Int[np.ndarray, " n"], most: int) -> list[tuple[int, Int[np.ndarray, " c"]]]:
    """The most chosen reports, most chosen first, each with the positions of its patches."""
    values, counts = np.unique(reports, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(values[i]), np.flatnonzero(reports == values[i])) for i in order]


def may_be_shown(profile: Profile, dataset: str) -> bool:
    """Whether patches and reports may be kept in a figure: those of the phantom, no others."""
    settings = profile.data_settings(dataset)
    corpus = profile.corpora.get(settings.corpus)
    return isinstance(settings, PhantomData) and isinstance(corpus, PhantomCorpus)


def pairing_sentences(table: pd.DataFrame) -> str:
    """One Markdown item a data set, from rows of `pairing_row`; the paper's mean beside ours."""
    return "\n".join(
        f"- {row['dataset']}: similarity {row['similarity_mean']:.2f} ± "
        f"{row['similarity_sd']:.2f}{_printed(str(row['dataset']))}; {row['images']} patches use "
        f"{row['distinct_reports']} of {row['reports']} reports, as many as "
        f"{row['effective_number']:.1f} used equally often, and ten reports serve "
        f"{row['top10_share']:.0%}; the encoder sees {row['seen_share']:.0%} of the tokens."
        for _, row in table.iterrows()
    )


def _printed(dataset: str) -> str:
    mirrored = paper.MIRRORS.get(dataset)
    return f" (paper, {mirrored}: {PAPER_SIMILARITY[mirrored]:.2f})" if mirrored else ""


def distillation_sentences(table: pd.DataFrame) -> str:
    """One Markdown item a data set: distilled beside constant, means over backbones and seeds."""
    cells = table.groupby("dataset", sort=False, as_index=False).mean(numeric_only=True)
    return "\n".join(
        f"- {cell['dataset']}: cosine with the true text features {cell['cosines_mean']:.3f} when "
        f"distilled, {cell['constant_mean']:.3f} for one constant vector; share of the "
        f"variance between reports that the image explains {cell['explained']:.2f}"
        f"{' (below 0: the mean report is the better guess)' if cell['explained'] < 0 else ''}."
        for _, cell in cells.iterrows()
    )
