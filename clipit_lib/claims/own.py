"""The rules of claims that no general kind fits: one function a claim, named as it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from clipit_lib import paper, paths
from clipit_lib.claims.shelf import Shelf, Untestable
from clipit_lib.claims.verdicts import Finding, of
from clipit_lib.complementarity import Hits, aligned_hits, matched
from clipit_lib.cost.inference import MERGED, UNIMODAL
from clipit_lib.files import whole
from clipit_lib.runs import StoredRun
from clipit_lib.statistics import Cell, Interval, pooled_bootstrap
from clipit_lib.survival import results
from clipit_lib.survival.runs import AGAIN, DONE, SPEC, SurvivalRun, SurvivalSpec

MOST_MACS = 0.001  # 10^9 multiply-adds, which the paper calls GFLOPs


def pareto(shelf: Shelf) -> Finding:
    """Figure 3: the share of CLIP-IT among the models on the frontiers of parameters."""
    table = shelf.table("pareto")
    models = table.drop_duplicates(["dataset", "backbone", "setting"])
    front = models.loc[models["on_front_parameters"], "setting"]
    ours = int((front == "clip_it").sum())
    share = ours / len(front)
    said = f"{ours} of {len(front)} models on the frontiers"
    return Finding(of(share >= 0.75, share >= 0.5), share, reason=said, runs=_runs(table))


def omega_largest_on_pcam(shelf: Shelf) -> Finding:
    """Figure 4: omega (percent), averaged over backbones, on each data set."""
    text = shelf.runs("complementarity", ["text"])
    here = {(run.spec.dataset, run.spec.seed) for run in text}
    probes = shelf.runs("table1", ["unimodal"], sorted({dataset for dataset, _ in here}))
    vision = [run for run in probes if (run.spec.dataset, run.spec.seed) in here]
    omegas = {
        dataset: _omega([p for p in matched(vision, text) if p[0].spec.dataset == dataset], shelf)
        for dataset in dict.fromkeys(run.spec.dataset for run in vision)
    }
    ours = next((name for name in omegas if _mirrors(name) == "PCAM"), None)
    if ours is None or len(omegas) < 2:
        raise Untestable("no PCAM beside another data set")
    value = omegas[ours]
    others = {name: omega.estimate for name, omega in omegas.items() if name != ours}
    most = max(others.values())
    said = "others: " + ", ".join(f"{name} {omega:.1f}" for name, omega in others.items())
    keys = tuple(run.key for run in (*text, *vision))
    verdict = of(value.estimate > most and value.low > most, value.estimate > most)
    return Finding(verdict, value.estimate, value.low, value.high, said, keys)


def _mirrors(dataset: str) -> str:
    """The paper's data set that one of ours is, or is made after."""
    return paper.MIRRORS.get(dataset, dataset.upper())


def _omega(pairs: list[tuple[StoredRun, StoredRun]], shelf: Shelf) -> Interval:
    """Equation 5 in percent, averaged over backbones, as a gain over never in one class."""
    cells = []
    for backbone in dict.fromkeys(vision.spec.backbone for vision, _ in pairs):
        frames = [
            (v.predictions(), t.predictions()) for v, t in pairs if v.spec.backbone == backbone
        ]
        hits: list[tuple[Hits, Hits]] = [aligned_hits(*frame) for frame in frames]
        cases = np.stack([text & ~vision for vision, text in hits])
        samples = frames[0][0]
        groups = samples["group"].where(samples["group"] != "", samples["sample"]).to_numpy()
        one_class = np.zeros(len(samples), np.int64)
        cells.append(Cell("one", np.zeros_like(cases), cases, one_class, groups))
    return pooled_bootstrap(cells, shelf.draws, np.random.default_rng(0))


def distillation_near_one(shelf: Shelf) -> Finding:
    """Figure 9: the explained share, averaged over runs, with Student's interval over runs."""
    table = shelf.table("text_statistics").dropna(subset=["explained"])
    if table.empty:
        raise Untestable("true text features do not vary")
    cosine, values = float(table["cosines_mean"].mean()), table["explained"].to_numpy()
    mean, low, high = float(values.mean()), float("nan"), float("nan")
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        low, high = mean - half, mean + half
    said = f"explained share; mean cosine {cosine:.2f}"
    verdict = of(cosine >= 0.9 and mean >= 0.5, low > 0)
    return Finding(verdict, mean, low, high, said, _runs(table))


def no_added_cost(shelf: Shelf) -> Finding:
    """Section 4.6: 10^9 multiply-adds that CLIP-IT with merged adapters adds for one image."""
    flops = shelf.table("inference_cost").query("batch == 1").set_index("variant")["flops"]
    added, whole = float(flops[MERGED] - flops[UNIMODAL]) / 2e9, float(flops[UNIMODAL]) / 2e9
    said = f"{added / whole:.1%} of the unimodal model's {whole:.4g} billion multiply-adds"
    verdict = of(added <= MOST_MACS, added <= 0.01 * whole)
    return Finding(verdict, added, reason=said, runs=shelf.keys_behind("inference_cost"))


def survival(shelf: Shelf) -> Finding:
    """Table 8: the gain in C-index over the unimodal model, and that in iAUC beside it."""
    if shelf.bench.profile.survival is None:
        raise Untestable("survival not in the profile")
    table = shelf.table("survival")
    stored = [_survival_run(shelf, key) for key in dict.fromkeys(table["run"])]
    limits = results.intervals(stored, table, shelf.draws).query("over == 'unimodal'")
    gains = limits.set_index("metric")[["value", "low", "high"]]
    verdict = of(bool((gains["low"] > 0).all()), bool((gains["value"] > 0).all()))
    (value, low, high), (other, lower, higher) = gains.loc[["c_index", "iauc"]].to_numpy()
    said = f"gain in C-index; in iAUC {other:+.3f} [{lower:+.3f}, {higher:+.3f}]"
    return Finding(verdict, float(value), float(low), float(high), said, _runs(table))


def _survival_run(shelf: Shelf, key: str) -> SurvivalRun:
    folder = paths.results(shelf.profile) / "survival_runs" / key
    if not (folder / DONE).exists():
        raise Untestable("runs missing")
    with whole(folder / SPEC, AGAIN):
        spec = SurvivalSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))
    return SurvivalRun(folder, spec)


def _runs(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(key) for key in table["run"]))


FUNCTIONS: dict[str, Callable[[Shelf], Finding]] = {
    function.__name__: function
    for function in (pareto, omega_largest_on_pcam, distillation_near_one, no_added_cost, survival)
}
