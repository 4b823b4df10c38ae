"""Benchmarks: the arithmetic on made-up times, and that each one runs; no time is asserted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import (
    demo,
    figure,
    inference,
    input_pipeline,
    memory,
    pairing,
    table,
    top_k,
    training,
)
from benchmarks.encoders import phantom_retriever
from benchmarks.hubs import hub_shares
from benchmarks.measure import Row, Scale, counted, interleaved, measured, ratio
from benchmarks.patches import fresh_cache, noise_patches, reports
from benchmarks.released import EveryReport, pair_one_by_one
from clipit_lib.training import MovingTargets
from companion import paths

ALL: list[tuple[str, Callable[[Scale], list[Row]], int]] = [
    ("pairing", pairing.run, 4),
    ("training", partial(training.run, training.PAIRS[0]), 4),
    ("inference", inference.run, 2),
    ("top_k", top_k.run, 5),
    ("input_pipeline", input_pipeline.run, 5),
]


def times(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_a_ratio_is_one_of_medians_not_of_means() -> None:
    row = ratio("r", times(a=[2, 2, 80], b=[1, 1, 1]), "a", "b", "", goal=3)
    assert row.ratio == 2 and row.repeats == 3 and row.met


def test_drift_that_meets_both_leaves_no_interval() -> None:
    drift = np.array([1.0, 3.0, 2.0, 9.0, 5.0])
    row = ratio("r", times(a=list(3 * drift), b=list(drift)), "a", "b", "")
    assert (row.low, row.ratio, row.high) == pytest.approx((3, 3, 3))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        a, b = 1.5 * np.exp(rng.normal(0, 0.1, 21)), np.exp(rng.normal(0, 0.1, 21))
        row = ratio("r", times(a=list(a), b=list(b)), "a", "b", "")
        held += row.low <= 1.5 <= row.high
    assert held >= 88


def test_growth_of_made_up_times_is_their_exponent() -> None:
    made = times(**{f"ours {n} 7": [1e-3 * n**1.5 * c for c in (1, 1.1, 0.9)] for n in (10, 100)})
    row = top_k._growth("patches", made, [(10, 7), (100, 7)], [10, 100])
    assert row.ratio == pytest.approx(1.5) and row.met is False


def test_rounds_are_interleaved_and_the_first_thrown_away() -> None:
    order: list[str] = []

    def clock(name: str) -> Callable[[], float]:
        def tick() -> float:
            order.append(name)
            return float(len(order))

        return tick

    frame = interleaved({"a": clock("a"), "b": clock("b")}, repeats=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert frame.to_dict("list") == {"a": [3, 5], "b": [4, 6]}


def test_table_has_the_columns_and_survives_a_file(tmp_path: Path) -> None:
    rows = [
        counted("less", 0.5, "fewer, is better", 1.0),
        counted("more", 0.5, "more", 1.0, "at_least"),
        measured("free", times(a=[1, 2, 3]), lambda m: m["a"].to_numpy(), "no goal"),
    ]
    frame = table.table(rows, "first", "a machine")
    assert list(frame)[:5] == ["name", "ratio", "goal", "sense", "note"]
    assert list(frame)[5:9] == ["low", "high", "repeats", "met"]
    assert list(frame["met"]) == ["yes", "no", ""]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPIT_OUTPUT", str(tmp_path))
        table.save(frame, "benchmarks")
        again = table.read("benchmarks")
        assert figure.save(figure.benchmarks_figure(frame), "benchmarks").exists()
    pd.testing.assert_frame_equal(frame, again)
    assert "| ≤ 1 | yes |" in table.markdown(frame) and "| ≥ 1 | no |" in table.markdown(frame)


def test_a_benchmark_run_again_replaces_its_own_rows_only() -> None:
    def one(name: str, benchmark: str) -> pd.DataFrame:
        return table.table([counted(name, 1.0, "", 1.0)], benchmark, "")

    both = table.merged(one("a", "first"), one("b", "second"))
    assert list(table.merged(both, one("c", "first"))["name"]) == ["b", "c"]


def test_right_of_the_line_is_better_for_both_senses() -> None:
    at_most = {"goal": 0.01, "sense": "at_most"}
    at_least = {"goal": 2.0, "sense": "at_least"}
    assert figure.margin(at_most, 0.005) == pytest.approx(2)
    assert figure.margin(at_least, 1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "run", "count"), ALL, ids=[name for name, _, _ in ALL])
def test_every_benchmark_runs(name: str, run: Callable[[Scale], list[Row]], count: int) -> None:
    rows = run("micro")
    assert len(rows) == count and len({row.name for row in rows}) == count
    assert all(row.name.startswith(name) and np.isfinite(row.ratio) for row in rows)
    assert all(row.low <= row.high for row in rows)


def test_the_demo_runs_cold_twice_and_then_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def run(command: list[str], **options: dict[str, str]) -> None:
        assert command[-2:] == ["--threads", "1"]
        asked.append((command[command.index("--jobs") + 1], options["env"]["CLIPIT_OUTPUT"]))

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=run))
    rows = demo.run("micro")
    assert [row.name for row in rows] == ["demo_cold", "demo_warm", "demo_one_job_over_two"]
    (two, first), (one, other), *warm = asked
    assert (two, one) == ("2", "1") and first != other
    assert warm == [(two, first)] * demo.WARM_REPEATS


def test_the_released_loop_pairs_as_we_do() -> None:
    clip, corpus = phantom_retriever(), reports(9)
    with fresh_cache() as folder:
        data = noise_patches(13, 64)
        assert paths.cache() == folder.resolve()
        ours = pairing.pair(clip, data, corpus)
        theirs, similarity = pair_one_by_one(clip, data.pixels, corpus.texts)
    assert (ours.reports[:, 0] == theirs).all()
    np.testing.assert_allclose(ours.similarities[:, 0], similarity, atol=1e-5)


def test_distinct_reports_give_the_targets_of_every_report() -> None:
    clip = phantom_retriever()
    windows = clip.tokenizer.windows(reports(5).texts, "truncate")
    report, rows = torch.tensor([4, 0, 4, 2, 2, 1]), torch.tensor([5, 0, 2, 3])
    with torch.inference_mode():
        ours, every = (
            kind(clip.text_tower, windows, report)(rows, 0) for kind in (MovingTargets, EveryReport)
        )
    torch.testing.assert_close(ours, every, atol=1e-5, rtol=0)
    assert (ours[0] - ours[1]).abs().max() > 1e-3  # reports 1 and 4 do differ


def test_hubs_are_as_uneven_as_asked() -> None:
    share = hub_shares(299, 25.8)
    assert np.exp(-(share * np.log(share)).sum()) == pytest.approx(25.8)
    assert share.sum() == pytest.approx(1) and hub_shares(3, 25.8).tolist() == [1 / 3] * 3


def test_memory_is_printed_as_a_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BALLAST", 1)
    memory.main(100, 20)
    int(capsys.readouterr().out)
