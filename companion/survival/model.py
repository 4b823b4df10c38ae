"""Survival from slides: models, Cox loss, text targets, metrics, resampling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clipit_lib import pairing
from clipit_lib.compute import device
from clipit_lib.encoders.embeddings import text_embeddings
from clipit_lib.encoders.encoder import LongText
from clipit_lib.errors import ClipItError
from clipit_lib.inputs import Inputs
from clipit_lib.losses import cosine_distance
from clipit_lib.training import Task
from companion.survival.cohort import Cohort

# -- The Cox loss, censoring weights and the log-rank test.


def _torchsurv() -> ModuleType:
    """It takes seconds to import, and readers of stored runs need none of it."""
    with warnings.catch_warnings():  # torchsurv 0.2 is compiled in a way that torch is giving up
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        import torchsurv
    return torchsurv


def cox_loss(
    log_risk: Float[Tensor, " b"], time: Float[Tensor, " b"], event: Bool[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Cox's negative log partial likelihood, mean over events, ties by Efron; 0 without events.

    NaN where a risk is not finite: torchsurv would end with an error of its own.
    """
    if not event.any():
        return 0 * log_risk.sum()
    if not log_risk.isfinite().all():
        return math.nan * log_risk.sum()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Ties in `time` detected")
        total: Tensor = _torchsurv().neg_partial_log_likelihood(
            log_risk, event, time, ties_method="efron", reduction="sum"
        )
    return total / event.sum()


def censoring_weights(
    time: np.ndarray, event: np.ndarray, at: np.ndarray
) -> Float[np.ndarray, " m"]:
    """1 / P(censoring later than each time in `at`), by Kaplan-Meier; 0 where that is 0."""
    times = (torch.tensor(values, dtype=torch.float32) for values in (time, at))
    return _torchsurv().get_ipcw(torch.tensor(event), *times).numpy()


def logrank(split: pd.DataFrame) -> float:
    """Two-sided p of the log-rank test between rows that are `high` and the rest."""
    from scipy import stats  # slow to import

    time, event, high = (split[name].to_numpy() for name in ("time", "event", "high"))
    halves = (stats.CensoredData(time[half & event], right=time[half & ~event])
              for half in (high, ~high))  # fmt: skip
    return float(stats.logrank(*halves).pvalue)


# -- Attention MIL with a Cox head, alone and with the branch of CLIP-IT.
#
# Shapes: b slides, p patches (padded to the largest slide), d feature width, e text width.


class AttentionMil(nn.Module):
    """Gated attention pooling and a linear Cox head (Ilse et al. 2018, equations 8 and 9).

    h = ReLU(W v); attention a ~ exp(w^T (tanh(V h) * sigmoid(U h))) over the patches of a slide;
    log risk = c^T sum_k a_k h_k. The head has no bias: the Cox likelihood does not see one.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.content, self.gate = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.cox = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, patches: Float[Tensor, "b p w"], mask: Bool[Tensor, "b p"]
    ) -> Float[Tensor, " b"]:
        """Log risk; `mask` is False where a patch is padding."""
        hidden = self.hidden(patches)  # [b, p, hidden]
        gated = torch.tanh(self.content(hidden)) * torch.sigmoid(self.gate(hidden))
        scores = self.score(gated).squeeze(-1).masked_fill(~mask, float("-inf"))  # [b, p]
        pooled = torch.einsum("bp,bph->bh", scores.softmax(dim=-1), hidden)
        return self.cox(pooled).squeeze(-1)


class SurvivalModel(nn.Module):
    """Attention MIL over the patch features v; with `text_width`, the branch of CLIP-IT beside it.

    log risk = g([r_v, r_t]): r_v from v, r_t from a second attention branch over h_d(v). No text
    enters the forward pass. As in `ClipIt`, h_d(v) is brought to unit length before its branch,
    and g starts as the average of both.
    """

    def __init__(
        self, width: int, hidden: int, dropout: float, text_width: int | None = None
    ) -> None:
        super().__init__()
        self.visual = AttentionMil(width, hidden, dropout)  # first: its weights are drawn alike
        self.distillation: nn.Linear | None = None
        if text_width is not None:
            self.distillation = nn.Linear(width, text_width)
            self.text = AttentionMil(text_width, hidden, dropout)
            self.fusion = nn.Linear(2, 1, bias=False)
            nn.init.constant_(self.fusion.weight, 0.5)

    def forward(
        self, patches: Float[Tensor, "b p d"], mask: Bool[Tensor, "b p"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b p e"] | None]:
        """Log risk, and predicted text features h_d(v) where there is a branch for them."""
        visual = self.visual(patches, mask)
        if self.distillation is None:
            return visual, None
        distilled = self.distillation(patches)
        text = self.text(F.normalize(distilled, dim=-1), mask)
        both = torch.stack([visual, text], dim=-1)  # [b, 2]
        return self.fusion(both).squeeze(-1), distilled


# -- C-index and integrated AUC, and their intervals by resampling slides within their fold.
#
# A resample is a count for every slide. Both metrics are sums over pairs of slides, so a resample
# weighs a pair by the product of its counts: all draws of a fold are a few matrix products. The
# weights of censoring stay those of the slides trained on. Models are not trained again: intervals
# say how much the choice of slides to predict matters, and of seeds, not that of slides to learn
# from. The metrics themselves are those of the slides that count once each.

METRICS = {"c_index": "C-index", "iauc": "iAUC"}  # names in tables, and in words
TIED = 1e-8  # as in torchsurv


def c_index(
    counts: Int[np.ndarray, "draws n"], risk: np.ndarray, time: np.ndarray, event: np.ndarray
) -> Float[np.ndarray, " draws"]:
    """Harrell's C-index of each resample; ties in risk count half.

    NaN where no two slides can be compared.
    """
    later = time[None, :] > time[:, None]
    tied = (time[None, :] == time[:, None]) & ~event[None, :]
    comparable = (event[:, None] & (later | tied)).astype(float)
    right = ((counts @ (comparable * _ordered(risk))) * counts).sum(axis=1)
    return _ratio(right, ((counts @ comparable) * counts).sum(axis=1))


def integrated_auc(
    counts: Int[np.ndarray, "draws n"],
    risk: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    weights: np.ndarray,
) -> Float[np.ndarray, " draws"]:
    """Cumulative/dynamic AUC of each resample, integrated over drops of the Kaplan-Meier curve.

    It is taken at distinct event times with slides at risk beyond and a weight, and NaN if it is
    defined nowhere.

    Args:
        weights: [n], inverse probability of censoring at each slide's time, from the slides that
            were trained on (Uno et al. 2007).
    """
    at = np.unique(time[event & (time < time.max()) & (weights > 0)])
    ordered = _ordered(risk)
    aucs, drops = np.zeros((2, len(at), len(counts)))
    surviving = np.ones(len(counts))
    for step, now in enumerate(at):
        cases, controls = event * (time <= now) * weights, (time > now).astype(float)
        right = ((counts * cases) @ ordered * (counts * controls)).sum(axis=1)
        aucs[step] = _ratio(right, (counts @ cases) * (counts @ controls))
        events, at_risk = counts @ (event & (time == now)), counts @ (time >= now)
        after = surviving * (1 - np.nan_to_num(_ratio(events, at_risk)))
        drops[step], surviving = surviving - after, after
    drops[np.isnan(aucs)] = 0
    return _ratio((np.nan_to_num(aucs) * drops).sum(axis=0), drops.sum(axis=0))


def _ordered(risk: np.ndarray) -> np.ndarray:
    """[n, n]: 1 where the first slide has the higher risk, a half where both have the same."""
    difference = risk[:, None] - risk[None, :]
    return np.where(np.abs(difference) <= TIED, 0.5, difference > 0)


def _ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.divide(first, second, out=np.full(first.shape, np.nan), where=second > 0)


def bootstrap(
    frames: Mapping[str, Sequence[pd.DataFrame]], draws: int, seed: int = 0
) -> dict[tuple[str, str], np.ndarray]:
    """Resampled means over folds and seeds, by (setting, metric), [draws] each.

    All settings share every draw: slides with replacement within each fold, seeds with
    replacement over all. A draw's mean is over the folds in which it can be compared.

    Args:
        frames: predictions (slide, time, event, fold, log_risk) of each setting, one a seed,
            seeds and slides in the same order.
    """
    rng = np.random.default_rng(seed)
    seeds = len(next(iter(frames.values())))
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds  # [draws, seeds]
    folds = []
    for rows, weights in held_out(next(iter(frames.values()))[0]):
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
        held = [[frame.iloc[rows] for frame in each] for each in frames.values()]
        folds.append([[metrics(one, weights, counts) for one in each] for each in held])
    # [folds, settings, seeds, metrics, draws], and then without seeds, and then without folds
    by_fold = (np.array(folds) * drawn.T[:, None]).sum(axis=2)
    means = _ratio(np.nansum(by_fold, axis=0), np.isfinite(by_fold).sum(axis=0))
    return dict(zip(product(frames, METRICS), means.reshape(-1, draws), strict=True))


def held_out(frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fold: its rows, and the censoring weights at their times from all other folds."""
    time, event = frame["time"].to_numpy(), frame["event"].to_numpy()
    return [
        (np.flatnonzero(inside), censoring_weights(time[~inside], event[~inside], time[inside]))
        for fold in sorted(frame["fold"].unique())
        for inside in [(frame["fold"] == fold).to_numpy()]
    ]


def metrics(
    held: pd.DataFrame, weights: np.ndarray, counts: np.ndarray | None = None
) -> Float[np.ndarray, "2 draws"]:
    """`METRICS` of each resample of a fold's predictions; by default of all slides, once each."""
    risk, time, event = (held[name].to_numpy() for name in ("log_risk", "time", "event"))
    drawn = np.ones((1, len(held)), int) if counts is None else counts, risk, time, event
    return np.stack([c_index(*drawn), integrated_auc(*drawn, weights)])


# -- One fold: train on the other folds, choose the epoch on a part of them, predict the fold.


@dataclass(frozen=True)
class PaddedSlides:
    """A cohort as tensors: n slides, padded to p patches of width d.

    Attributes:
        mask: False where a patch is padding.
    """

    patches: Float[Tensor, "n p d"]
    mask: Bool[Tensor, "n p"]
    time: Float[Tensor, " n"]
    event: Bool[Tensor, " n"]

    @staticmethod
    def of(cohort: Cohort) -> PaddedSlides:
        clinical = cohort.clinical
        return PaddedSlides(
            padded([bag.features for bag in cohort.bags]).to(device()),
            padded([np.ones(len(bag.features), bool) for bag in cohort.bags]).to(device()),
            torch.tensor(clinical["time"].to_numpy(np.float32, copy=True), device=device()),
            torch.tensor(clinical["event"].to_numpy(bool, copy=True), device=device()),
        )


def padded(parts: list[np.ndarray]) -> Tensor:
    """Arrays [p_i, ...] as one tensor [n, max p_i, ...], filled with zeros (False)."""
    return nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True)


def split_rows(
    cohort: Cohort, fold: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to choose the epoch by, and to predict; stratified by event.

    The same for every setting with this seed. Validation holds an event, whatever `share`.

    Raises:
        ClipItError: no event is left to train on.
    """
    rng = np.random.default_rng([seed, fold])
    held = (cohort.clinical["fold"] == fold).to_numpy()
    event = cohort.clinical["event"].to_numpy()
    validation = np.zeros(len(held), bool)
    for kind in (event, ~event):
        rows = rng.permutation(np.flatnonzero(~held & kind))
        validation[rows[: max(round(share * len(rows)), 1)]] = True
    train, chosen, left = map(np.flatnonzero, (~held & ~validation, validation, held))
    if not event[train].any():
        there = f"{event[~held].sum()} outside fold {fold}"
        what = f"no event is left to train on: {there}, all of them needed to choose the epoch by"
        fix = "Bring more events, or lower `folds` or `validation`"
        raise ClipItError(what, "clinical table", fix)
    return train, chosen, left


@dataclass(eq=False)
class FoldTask(Task):
    """What `training.fit` minimises: Cox on the batch's risk set, and the distance to the text.

    Attributes:
        targets: what is distilled: which report [n, p] each patch is paired with, and the features
            [m, e] of all reports; None if nothing is.
    """

    model: nn.Module
    slides: PaddedSlides
    train: np.ndarray
    validation: np.ndarray
    targets: tuple[Tensor, Tensor] | None
    weight: float

    @property
    def rows(self) -> int:  # type: ignore[override]
        return len(self.train)

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        slides, chosen = self.slides, torch.from_numpy(self.train)[rows].to(device())
        mask = slides.mask[chosen]
        log_risk, distilled = model(slides.patches[chosen], mask)
        parts = {"cox": cox_loss(log_risk, slides.time[chosen], slides.event[chosen])}
        if self.targets is not None:
            report, texts = self.targets
            distance = cosine_distance(distilled[mask], texts[report[chosen][mask]])
            parts["distillation"] = self.weight * distance
        return parts

    def validate(self) -> float:
        rows = torch.from_numpy(self.validation).to(device())
        risk = predict(self.model, self.slides, rows)
        return float(cox_loss(risk, self.slides.time[rows], self.slides.event[rows]))


@torch.no_grad()
def predict(model: nn.Module, slides: PaddedSlides, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Log risk of some slides, image only, 64 at a time."""
    model.eval()
    return torch.cat([model(slides.patches[r], slides.mask[r])[0] for r in rows.split(64)])


def pairs(
    inputs: Inputs, cohort: Cohort, retriever: str, corpus: str, long_text: LongText
) -> tuple[list[np.ndarray], np.ndarray]:
    """The report of every patch, an array [p] a slide, and the features [m, e] of all reports.

    Both come from the frozen retriever: stage one of the method would need a label for every
    report, and follow-up gives none.

    Raises:
        ClipItError: the bags hold no retriever embeddings, or of another width than the reports.
    """
    embeddings = cohort.retriever
    texts = text_embeddings(inputs.retriever(retriever), inputs.named_corpus(corpus), long_text)
    best = pairing.top_k(np.concatenate(embeddings), texts, 1, device=device()).reports[:, 0]
    return np.split(best, np.cumsum([len(each) for each in embeddings])[:-1]), texts
