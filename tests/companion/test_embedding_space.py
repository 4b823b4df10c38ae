"""Class purity and silhouette against loops and planted clusters; features of a stored run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipit_lib import runs
from clipit_lib.encoders.embeddings import image_embeddings, text_embeddings
from clipit_lib.errors import ClipItError
from clipit_lib.predict import load_classifier
from clipit_lib.runs import StoredRun
from companion import measures, specs
from companion.measures import balanced_sample, chance_purity, knn_purity, project, silhouette
from companion.profile import Workbench


def loop_purity(features: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Leave one out, look at all others, sort, count: no ties expected."""
    shares = []
    for i in range(len(features)):
        others = []
        for j in range(len(features)):
            if j != i:
                lengths = np.linalg.norm(features[i]) * np.linalg.norm(features[j])
                others.append((float(features[i] @ features[j]) / lengths, labels[j]))
        nearest = sorted(others, key=lambda pair: -pair[0])[:k]
        shares.append(sum(label == labels[i] for _, label in nearest) / k)
    return sum(shares) / len(shares)


def clusters(count: int, each: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds around orthogonal directions."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(count), each)
    return np.eye(count)[labels] + spread * rng.normal(size=(len(labels), count)), labels


@pytest.mark.parametrize("k", [1, 3, 10])
def test_purity_is_that_of_a_double_loop(k: int) -> None:
    rng = np.random.default_rng(k)
    features, labels = rng.normal(size=(60, 5)), rng.integers(3, size=60)
    assert knn_purity(features, labels, k) == pytest.approx(loop_purity(features, labels, k))


def test_planted_clusters_are_pure_and_shuffled_labels_are_at_chance() -> None:
    features, labels = clusters(4, 50, 0.05)
    assert knn_purity(features, labels) == 1.0
    assert silhouette(features, labels) > 0.9
    rng = np.random.default_rng(1)
    shuffled = [rng.permutation(labels) for _ in range(20)]
    purities = [knn_purity(features, each) for each in shuffled]
    assert np.mean(purities) == pytest.approx(chance_purity(labels), abs=0.02)
    assert max(silhouette(features, each) for each in shuffled) < 0.05


def test_ties_are_shared_whatever_the_order() -> None:
    """Patches of one hub report have one text feature: the order of samples must not decide."""
    labels = np.array([0] * 12 + [1] * 18)
    one_point = np.tile([[0.3, -1.1, 2.0]], (30, 1))
    assert knn_purity(one_point, labels) == pytest.approx(chance_purity(labels))
    # Two hubs of 2 and 4 samples, k = 3; by hand: in the first hub the other one (same class) and
    # 2 of the 4 (1 of them of its class): (1 + 2 / 4) / 3. In the second, 2 of 3 or none.
    features = np.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 4)
    classes = np.array([0, 0, 0, 1, 1, 1])
    expected = (2 * 1.5 / 3 + 0 + 3 * 2 / 3) / 6
    assert knn_purity(features, classes, k=3) == pytest.approx(expected)


def test_chance_is_the_mean_over_all_pairs() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    same = [labels[i] == labels[j] for i in range(6) for j in range(6) if i != j]
    assert chance_purity(labels) == pytest.approx(np.mean(same))


def test_more_neighbours_than_samples_is_an_error() -> None:
    with pytest.raises(ClipItError, match="10 neighbours among 10 samples"):
        knn_purity(np.eye(10), np.zeros(10, int), 10)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(5, 40), st.integers(0, 9)
)  # fmt: skip
def test_a_balanced_sample_is_as_even_as_the_classes_allow(
    classes: list[int], most: int, seed: int
) -> None:
    labels = np.array(classes)
    rows = balanced_sample(labels, most, seed)
    assert (np.diff(rows) > 0).all() and len(rows) == min(most, len(labels))
    sizes = np.bincount(labels, minlength=5)
    taken = np.bincount(labels[rows], minlength=5)
    cut = taken[taken < sizes]  # classes that were not taken whole
    if len(cut):
        assert cut.max() - cut.min() <= 1 and taken.max() <= cut.min() + 1
    assert np.array_equal(rows, balanced_sample(labels, most, seed))


def test_tsne_is_the_same_twice_and_survives_a_single_point() -> None:
    features, labels = clusters(3, 20, 0.05)
    plane = project(features, 0)
    assert np.array_equal(plane, project(features, 0))
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    same = labels[:, None] == labels[None]
    assert distance[same].mean() < 0.5 * distance[~same].mean()
    assert np.isfinite(project(np.ones((20, 3)), 0)).all()


@pytest.fixture(scope="module")
def clip_it(bench: Workbench) -> StoredRun:
    spec = specs.resolve(bench, "phantom-pcam", bench.profile.backbones[0], "clip_it", 0)
    return runs.get_or_run(spec, bench)


def test_embedded_features_give_the_stored_logits(bench: Workbench, clip_it: StoredRun) -> None:
    """What is inspected is what predicts: the heads on these features give the predictions."""
    model = load_classifier(clip_it.folder).model
    found = measures.spaces(clip_it, bench, "test")
    text = torch.nn.functional.normalize(torch.from_numpy(found["distilled"]), dim=-1)
    with torch.inference_mode():
        both = [model.vision_head(torch.from_numpy(found["image"])), model.text_head(text)]
        logits = model.fusion(torch.cat(both, dim=-1)).numpy()
    stored = clip_it.predictions().filter(like="logit_").to_numpy()
    np.testing.assert_allclose(logits, stored, atol=1e-3)
    widths = found["image"].shape[1] + found["distilled"].shape[1]
    assert found["joint"].shape == (len(stored), widths)
    np.testing.assert_allclose((found["joint"] ** 2).sum(axis=1), 2, rtol=1e-5)


def test_paired_features_follow_the_pairs(bench: Workbench, clip_it: StoredRun) -> None:
    """One report has one feature, whichever patch chose it; stage one has moved it."""
    reports = bench.pairs("phantom-pcam", "test", 1).reports[:, 0]
    features = measures.paired_features(clip_it, bench, "test")
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    of_report = {report: features[reports == report] for report in set(reports.tolist())}
    assert len(of_report) > 1
    assert all((own == own[0]).all() for own in of_report.values())
    assert len({own[0].tobytes() for own in of_report.values()}) == len(of_report)


def test_without_lora_both_encoders_are_the_frozen_ones(bench: Workbench) -> None:
    backbone = bench.profile.backbones[0]
    spec = specs.resolve(bench, "phantom-pcam", backbone, "clip_it/without_lora", 0)
    run = runs.get_or_run(spec, bench)
    found = measures.spaces(run, bench, "test")
    dataset, encoder = bench.dataset("phantom-pcam"), bench.backbone(backbone)
    frozen = image_embeddings(
        encoder.model, encoder.weights_hash, encoder.transform, dataset, "test"
    )
    np.testing.assert_allclose(found["image"], frozen, atol=1e-4)
    corpus, pairs = bench.corpus("phantom-pcam"), bench.pairs("phantom-pcam", "test", 1)
    texts = text_embeddings(bench.clip, corpus, bench.profile.text_stage.long_text)
    np.testing.assert_allclose(found["report"], texts[pairs.reports[:, 0]], atol=1e-4)


def test_the_table_has_the_numbers_of_each_space(bench: Workbench, clip_it: StoredRun) -> None:
    dataset = bench.dataset("phantom-pcam")
    sample = np.arange(5, 45)
    labels = dataset.labels[dataset.indices("test")][sample]
    table = measures.space_table([clip_it], bench, sample, 5).set_index("space")
    assert table.index.tolist() == ["image", "report", "distilled", "joint"]
    joint = measures.spaces(clip_it, bench, "test")["joint"][sample]
    assert table.loc["joint", "purity"] == pytest.approx(loop_purity(joint, labels, 5), abs=1e-3)
    assert set(table["run"]) == {clip_it.key}


def test_a_run_without_text_is_refused(bench: Workbench) -> None:
    spec = specs.resolve(bench, "phantom-pcam", bench.profile.backbones[0], "unimodal", 0)
    probe = runs.get_or_run(spec, bench)
    assert list(measures.spaces(probe, bench, "test")) == ["image"]
    with pytest.raises(ClipItError, match="unimodal reads no reports"):
        measures.of_run(probe, bench)


# The floor: what colours alone tell.


def test_histograms_count_levels_of_each_channel() -> None:
    pixels = np.zeros((2, 2, 2, 3), np.uint8)
    pixels[1, ..., 1] = [[15, 16], [255, 255]]
    found = measures.colour_histograms(pixels, np.array([1]))
    assert found.shape == (1, 48) and found.sum() == pytest.approx(3)
    assert found[0, [0, 16, 17, 31, 32]].tolist() == [1, 0.25, 0.25, 0.5, 1]


@pytest.mark.parametrize(("told", "least", "most"), [(True, 90, 100), (False, 30, 70)])
def test_the_floor_is_what_colours_tell_of_the_test_split(
    told: bool, least: float, most: float, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    pixels = rng.integers(0, 256, (120, 4, 4, 3)).astype(np.uint8)
    if told:
        pixels[labels == 1, ..., 0] //= 2
    splits = {"train": np.arange(60), "test": np.arange(60, 120)}
    data = SimpleNamespace(pixels=pixels, labels=labels, classes=("a", "b"), indices=splits.get)
    monkeypatch.setattr(bench, "dataset", lambda _: data)
    found = measures.colour_floor(bench, ["d"]).iloc[0]
    assert found["chance"] == 50 and least <= found["balanced_accuracy"] <= most
