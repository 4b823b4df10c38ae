"""Which report each patch has, as unevenly as the paper's own pairing chooses them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

# PCAM's 262,144 training patches use 299 reports; exp(entropy) of their shares, computed from the
# index files of the released code.
EFFECTIVE_NUMBER = 25.8


def hub_shares(reports: int, effective: float = EFFECTIVE_NUMBER) -> np.ndarray:
    """Shares [reports] that fall as a power of the rank, with exp(entropy) `effective`.

    Even shares where there are no more reports than that.
    """
    if reports <= effective:
        return np.full(reports, 1 / reports)

    def excess(power: float) -> float:
        share = _power_law(reports, power)
        return float(np.exp(-(share * np.log(share)).sum())) - effective

    return _power_law(reports, brentq(excess, 0, 5))


def _power_law(reports: int, power: float) -> np.ndarray:
    weight = np.arange(1, reports + 1) ** -power
    return weight / weight.sum()


def hub_reports(reports: int, patches: int) -> Tensor:
    """A report for each patch, [patches] int64."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.choice(reports, size=patches, p=hub_shares(reports)))
