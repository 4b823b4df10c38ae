"""The Cox loss, concordance, time-dependent AUC, Kaplan-Meier curves and the log-rank test."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

with warnings.catch_warnings():  # torchsurv 0.2 is compiled in a way that torch is giving up
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    from torchsurv.loss.cox import neg_partial_log_likelihood
    from torchsurv.metrics.auc import Auc
    from torchsurv.metrics.cindex import ConcordanceIndex
    from torchsurv.stats.ipcw import get_ipcw


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
        total: Tensor = neg_partial_log_likelihood(
            log_risk, event, time, ties_method="efron", reduction="sum"
        )
    return total / event.sum()


def concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Harrell's C-index; ties in risk count half. NaN if no two slides can be compared."""
    later = time[None, :] > time[:, None]
    tied = (time[None, :] == time[:, None]) & ~event[None, :]
    if not (event[:, None] & (later | tied)).any():
        return math.nan
    value = ConcordanceIndex()(
        torch.tensor(risk, dtype=torch.float64), torch.tensor(event), _single(time)
    )
    return float(value)


def censoring_weights(
    time: np.ndarray, event: np.ndarray, at: np.ndarray
) -> Float[np.ndarray, " m"]:
    """1 / P(censoring later than each time in `at`), by Kaplan-Meier; 0 where that is 0."""
    weights: np.ndarray = get_ipcw(torch.tensor(event), _single(time), _single(at)).numpy()
    return weights


def auc_times(time: np.ndarray, event: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Where the AUC is taken: distinct event times with slides at risk beyond and a weight."""
    return np.unique(time[event & (time < time.max()) & (weights > 0)])


def integrated_auc(
    risk: np.ndarray, time: np.ndarray, event: np.ndarray, weights: np.ndarray
) -> float:
    """Cumulative/dynamic AUC integrated over the drops of the Kaplan-Meier curve.

    Args:
        weights: [n], inverse probability of censoring at each slide's time, from the slides that
            were trained on (Uno et al. 2007).

    Returns:
        NaN if the AUC is defined nowhere.
    """
    at = auc_times(time, event, weights)
    if len(at) == 0:
        return math.nan
    auc = Auc()
    auc(
        _single(risk), torch.tensor(event), _single(time), weight=_single(weights),
        new_time=_single(at), weight_new_time=torch.ones(len(at)),
    )  # fmt: skip
    return float(auc.integral())


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times (0 first) and the share that is free of the event from each on."""
    curve = stats.ecdf(_censored(time, event)).sf
    return np.r_[0.0, curve.quantiles], np.r_[1.0, curve.probabilities]


def logrank(time: np.ndarray, event: np.ndarray, high: np.ndarray) -> float:
    """Two-sided p of the log-rank test between `high` and the rest."""
    first, second = (_censored(time[rows], event[rows]) for rows in (high, ~high))
    return float(stats.logrank(first, second).pvalue)


def _censored(time: np.ndarray, event: np.ndarray) -> stats.CensoredData:
    return stats.CensoredData(uncensored=time[event], right=time[~event])


def _single(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
