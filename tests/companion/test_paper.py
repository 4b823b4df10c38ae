"""The paper's numbers as data, against sums done by hand from its Table 1."""

import pytest

from companion import paper


def test_table1_is_whole() -> None:
    table = paper.printed("table1")
    assert len(table) == 6 * 3 * 2 and table["mean"].between(78, 97).all()
    assert not table.duplicated(["dataset", "backbone", "setting"]).any()


@pytest.mark.parametrize(("dataset", "gain"), [("PCAM", 2.87), ("BACH", 1.73), ("CRC", 0.65)])
def test_mean_gains(dataset: str, gain: float) -> None:
    assert paper.gains()[dataset].mean() == pytest.approx(gain, abs=0.01)


def test_a_cell() -> None:
    assert paper.gains()["PCAM", "ViT-B8"] == pytest.approx(91.92 - 87.54)
