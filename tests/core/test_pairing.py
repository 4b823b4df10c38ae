"""Pairing against a double loop, and what must hold for any embeddings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipit_lib import pairing
from clipit_lib.errors import ClipItError
from companion.profile import Workbench
from companion.statistics import top_share


def double_loop(images: np.ndarray, texts: np.ndarray, k: int) -> list[list[int]]:
    """Equation 1 as written, with ties to the lower index."""
    best = []
    for v in images.astype(np.float64):
        cosines = [v @ t / (np.linalg.norm(v) * np.linalg.norm(t)) for t in texts]
        best.append(sorted(range(len(texts)), key=lambda j: (-cosines[j], j))[:k])
    return best


def embeddings(seed: int, n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(s, d)).astype(np.float32) for s in (n, m))  # type: ignore[return-value]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999), n=st.integers(1, 40), m=st.integers(1, 30), block=st.integers(1, 50)
)
def test_same_as_a_double_loop_for_any_block(seed: int, n: int, m: int, block: int) -> None:
    images, texts = embeddings(seed, n, m, 8)
    k = min(3, m)
    pairs = pairing.top_k(images, texts, k, block)
    assert pairs.reports.tolist() == double_loop(images, texts, k)
    assert (np.diff(pairs.similarities, axis=1) <= 0).all()


def test_equal_reports_go_to_the_lower_index() -> None:
    images = np.eye(4, dtype=np.float32)[:2]
    texts = np.repeat(np.eye(4, dtype=np.float32)[:2], 50, axis=0)  # 50 copies of each
    pairs = pairing.top_k(images, texts, 3)
    assert pairs.reports.tolist() == [[0, 1, 2], [50, 51, 52]]


def test_length_of_embeddings_does_not_matter() -> None:
    images, texts = embeddings(1, 20, 10, 5)
    scaled = pairing.top_k(images * 7, texts * np.arange(1, 11, dtype=np.float32)[:, None], 2)
    assert (scaled.reports == pairing.top_k(images, texts, 2).reports).all()


@pytest.mark.parametrize(
    ("images", "texts", "k", "said"),
    [
        (np.ones((2, 3)), np.ones((4, 5)), 1, "3 wide"),
        (np.ones((2, 3)), np.ones((4, 3)), 5, "rank 5 of 4 reports"),
        (np.ones((2, 3)), np.ones((4, 3)), 0, "rank 0 of 4 reports"),
        (np.full((2, 3), np.nan), np.ones((4, 3)), 1, "NaN"),
    ],
)
def test_what_cannot_be_paired_is_said(
    images: np.ndarray, texts: np.ndarray, k: int, said: str
) -> None:
    with pytest.raises(ClipItError, match=said):
        pairing.top_k(images.astype(np.float32), texts.astype(np.float32), k)


def test_table_names_images_and_reports(bench: Workbench) -> None:
    pairs, data = bench.pairs("phantom-crc", "test", 2), bench.dataset("phantom-crc")
    table = bench.pairing_table("phantom-crc", "test", 2)
    assert table["rank"].tolist()[:4] == [1, 2, 1, 2] and set(table["split"]) == {"test"}
    ids, reports = data.samples["id"].iloc[data.indices("test")], bench.corpus("phantom-crc").ids
    assert table["image"].tolist()[::2] == table["image"].tolist()[1::2] == ids.tolist()
    assert table["report"].tolist() == [reports[j] for j in pairs.reports.ravel()]
    assert table["similarity"].tolist() == pairs.similarities.ravel().tolist()


def test_diversity_by_hand() -> None:
    assert pairing.effective_number(np.zeros(9, dtype=np.int64)) == pytest.approx(1)
    assert pairing.effective_number(np.arange(9)) == pytest.approx(9)
    # 2 and 1 of 3: entropy ln 3 - (2/3) ln 2, so the number is 3 / 2^(2/3).
    assert pairing.effective_number(np.array([0, 0, 1])) == pytest.approx(3 / 2 ** (2 / 3))
    assert top_share(np.array([0, 0, 1, 2]), top=1) == pytest.approx(0.5)
