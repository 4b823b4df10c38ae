"""The frontier against its definition, and the paper's by a reading of its own tables."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion import measures, paper
from companion.figures.accuracy import pareto_figure

# Few distinct values, so that ties are common.
POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), max_size=12)


def dominated(points: list[tuple[int, int]], index: int) -> bool:
    """The definition, one pair at a time."""
    cost, value = points[index]
    return any(
        other_cost <= cost and other_value >= value and (other_cost < cost or other_value > value)
        for other_cost, other_value in points
    )


@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    cost, value = (np.array([p[i] for p in points], dtype=float) for i in (0, 1))
    expected = [not dominated(points, i) for i in range(len(points))]
    assert measures.pareto_front(cost, value).tolist() == expected


@given(POINTS.filter(bool), st.randoms(use_true_random=False))
def test_front_does_not_depend_on_order_or_units(points: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(points)))
    random.shuffle(order)
    cost, value = (np.array([p[i] for p in points], dtype=float) for i in (0, 1))
    front = measures.pareto_front(cost, value)
    moved = measures.pareto_front(1e6 * cost[order], 3 * value[order] - 7)
    assert moved.tolist() == front[order].tolist()


def test_ties() -> None:
    cost, value = np.array([1, 1, 2, 2, 2, 3]), np.array([5.0, 5.0, 5.0, 7.0, 6.0, 6.5])
    assert measures.pareto_front(cost, value).tolist() == [True, True, False, True, False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_front_refuses_what_has_no_order(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        measures.pareto_front(np.array([1.0, 2.0]), np.array([1.0, bad]))


def cells() -> pd.DataFrame:
    """Two data sets by hand; in each, `good` wins at its cost and `dear` adds nothing."""
    rows = [
        ["a", "good", "clip_it", 0, 80.0, 10, 100, 10, 100],
        ["a", "good", "clip_it", 1, 84.0, 10, 100, 10, 100],
        ["a", "cheap", "unimodal", 0, 70.0, 5, 200, 5, 200],
        ["a", "dear", "contrastive", 0, 82.5, 11, 90, 99, 900],
        ["b", "good", "clip_it", 0, 50.0, 10, 100, 10, 100],
        ["b", "dear", "contrastive", 0, 50.0, 11, 90, 99, 900],
    ]
    columns = ["dataset", "backbone", "setting", "seed", "balanced_accuracy",
               "parameters_deployed", "flops", "parameters_encoded", "flops_encoded"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(gflops=lambda frame: frame["flops"] / 1e9)


def test_cells_are_means_with_the_range_of_their_seeds() -> None:
    first = measures.cell_points(cells()).iloc[0]
    assert (first["mean"], first["low"], first["high"]) == (82.0, 80.0, 84.0)
    assert (first["parameters_deployed"], first["flops"]) == (10, 100)


def test_each_data_set_has_its_own_frontier() -> None:
    points = measures.cell_points(cells())
    by_parameters = measures.with_front(points, "parameters_deployed", "on")["on"]
    by_flops = measures.with_front(points, "flops", "on")["on"]
    assert by_parameters.tolist() == [True, True, True, True, False]
    assert by_flops.tolist() == [False, False, True, False, True]


def test_words_name_the_frontier_and_what_caching_decides() -> None:
    points = measures.cell_points(cells())
    said = measures.front_sentences(points, "parameters_deployed").splitlines()
    assert said[0].startswith("- a: cheap unimodal (probe) (70.0), good CLIP-IT (82.0), dear")
    assert said[1] == "- b: good CLIP-IT (50.0); CLIP-IT in 1 of 1."
    changed = measures.changed_by(points, "flops", "flops_encoded")
    assert "good CLIP-IT enters (b)" in changed and "dear contrastive leaves (b)" in changed
    same = measures.changed_by(points, "parameters_deployed", "parameters_encoded")
    assert same == "the same models"


def test_the_papers_frontier() -> None:
    """Read off Tables 1, 2 and 5 by eye; parameters in millions."""
    points = measures.with_front(paper.pareto_points(), "parameters", "on")
    front = points[points["on"]]
    found = {
        (row["dataset"], row["backbone"], row["setting"], row["parameters"] / 1e6)
        for _, row in front.iterrows()
    }
    assert found == {
        ("PCAM", "ViT-S16", "clip_it", 22), ("PCAM", "ViT-B8", "clip_it", 86),
        ("PCAM", "CONCH", "clip_it", 90), ("PCAM", "UNI", "clip_it", 303),
        ("BACH", "ViT-S16", "clip_it", 22), ("BACH", "ViT-B8", "clip_it", 86),
        ("CRC", "ViT-S16", "clip_it", 22), ("CRC", "ViT-B16", "unimodal", 86),
        ("CRC", "UNI", "clip_it", 303),
    }  # fmt: skip


def test_a_contrastive_model_counts_both_towers_in_the_paper() -> None:
    points = paper.pareto_points().set_index(["dataset", "backbone", "setting"])["parameters"]
    assert points["BACH", "CONCH", "contrastive"] == 395e6
    assert points["BACH", "CONCH", "vision"] == points["BACH", "CONCH", "clip_it"] == 90e6
    assert points["CRC", "QUILTNet", "contrastive"] == 151e6
    assert points.notna().all() and len(points) == 6 * 3 * 2 + 2 * 3 * 3


def test_figure_names_the_frontier_and_leaves_out_what_would_overlap() -> None:
    points = measures.cell_points(cells())
    figure = pareto_figure(points, {"parameters_deployed": "parameters", "flops": "FLOPs"})
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == ["a", "b", "", ""]
    named = [{text.get_text() for text in panel.texts} for panel in panels]
    assert named == [{"cheap", "dear"}, {"good"}, {"dear"}, {"dear"}]  # "good" lies under "dear"


def test_marks_stand_at_their_true_cost_and_those_of_the_frontier_are_filled() -> None:
    points = measures.cell_points(cells())
    figure = pareto_figure(points, {"parameters_deployed": "parameters"})
    drawn = {
        (dataset, float(mark.get_xdata()[0]), str(mark.get_markerfacecolor()) != "none")
        for dataset, panel in zip("ab", figure.axes, strict=True)
        for mark in panel.lines
        if mark.get_marker() not in ("None", "|") and mark.get_transform() == panel.transData
    }
    marked = measures.with_front(points, "parameters_deployed", "on")
    rows = marked[["dataset", "parameters_deployed", "on"]].to_numpy().tolist()
    assert drawn == {(dataset, float(cost), on) for dataset, cost, on in rows}
