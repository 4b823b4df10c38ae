"""Each control changes what it says and keeps the rest; the steps of a gain sum to the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_bench

from clipit_lib import run, runs
from clipit_lib import text as text_stage
from clipit_lib.data.reports import TEMPLATES, own_terms
from clipit_lib.encoders.encoder import embed_texts
from clipit_lib.inputs import (
    SPLITS,
    choose_labels,
    paired_reports,
    paired_texts,
    redrawn_reports,
    shuffled,
)
from clipit_lib.pairing import Pairs, effective_number
from clipit_lib.settings import RunSpec, TextSpec
from clipit_lib.text import other_targets
from clipit_lib.training import Targets
from companion import specs, studies
from companion.profile import Workbench
from companion.tables import STEPS, WHOLE, decomposition, decomposition_words

CELL = ("phantom-pcam", "phantom_vit_s16")


def spec(bench: Workbench, setting: str, seed: int = 0) -> RunSpec:
    return specs.resolve(bench, *CELL, setting, seed)


def text(bench: Workbench, setting: str, seed: int = 0) -> TextSpec:
    found = spec(bench, setting, seed).text
    assert found is not None
    return found


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=40))
def test_shuffling_keeps_how_often_each_group_has_each_value(pairs: list[tuple[int, int]]) -> None:
    values, groups = np.array(pairs).T
    moved = shuffled(values, groups, np.random.default_rng(0))
    for group in np.unique(groups):
        assert sorted(moved[groups == group]) == sorted(values[groups == group])


def test_shuffled_pairs_keep_the_reports_and_lose_the_patches(bench: Workbench) -> None:
    data = bench.dataset(CELL[0])
    labels = data.labels[data.indices("train")]
    own = paired_reports(text(bench, "clip_it"), bench, "train")
    free = paired_reports(text(bench, "clip_it/shuffled_pairs"), bench, "train")
    within = paired_reports(text(bench, "clip_it/shuffled_within_class"), bench, "train")
    assert sorted(own) == sorted(free) == sorted(within)
    assert (own != free).any() and (own != within).any()
    for label in np.unique(labels):
        assert sorted(within[labels == label]) == sorted(own[labels == label])
    other = paired_reports(text(bench, "clip_it/shuffled_pairs", 1), bench, "train")
    assert (free != other).any()


def test_one_report_for_all_is_the_most_used_one_of_training(monkeypatch) -> None:
    desk = toy_bench(monkeypatch)
    asked = specs.resolve(desk, "toy", CELL[1], "clip_it/constant_report", 0).text
    nearest = {"train": [2, 0, 2, 1], "validation": [1, 1, 0], "test": [0, 0]}

    def pairs(_: str, split: str, *others: object) -> Pairs:
        reports = np.array(nearest[split])[:, None]
        return Pairs(reports, np.ones(reports.shape, np.float32))

    monkeypatch.setattr(desk, "nearest", pairs)
    for split, own in nearest.items():
        assert paired_reports(asked, desk, split).tolist() == [2] * len(own)


def test_redrawn_reports_change_each_epoch_and_cover_the_corpus(bench: Workbench) -> None:
    drawn = redrawn_reports(text(bench, "clip_it/redrawn_reports"), bench, 30)
    assert drawn.shape == (30, len(bench.dataset(CELL[0]).indices("train")))
    assert (drawn[0] != drawn[1]).any()
    assert set(drawn.ravel()) == set(range(len(bench.corpus(CELL[0]))))
    targets = Targets(torch.eye(3), torch.tensor([[0, 1], [2, 0]]))
    rows = torch.tensor([1, 0])
    assert targets(rows, 0).argmax(dim=1).tolist() == [1, 0]
    assert targets(rows, 1).argmax(dim=1).tolist() == [0, 2]


def test_class_prompts_say_the_label_and_never_of_a_test_patch(bench: Workbench) -> None:
    data = bench.dataset(CELL[0])
    asked = text(bench, "clip_it/class_prompts")
    paired = paired_texts(asked, bench, ["train", "validation"])
    for split in ("train", "validation"):
        said = [paired.texts[k] for k in paired.chosen[split]]
        names = [data.class_texts[label] for label in data.labels[data.indices(split)]]
        first = TEMPLATES[asked.templates][0]
        assert said == [first.format(name) for name in names]
    with pytest.raises(AssertionError):
        paired_texts(asked, bench, ["train", "test"])


def test_class_prompts_name_another_class_where_they_are_not_right(bench: Workbench) -> None:
    """The pairs that are right with a share are right with every larger one."""
    data = bench.dataset(CELL[0])
    labels, before = data.labels[data.indices("train")], np.zeros(0, bool)
    for share in (25, 75, 100):
        paired = paired_texts(text(bench, f"clip_it/class_prompts_{share}"), bench, ["train"])
        assert len(paired.texts) == len(data.classes)
        right = paired.chosen["train"] == labels
        assert right[np.flatnonzero(before)].all()
        spread = 4 * np.sqrt(len(labels) * share * (100 - share)) / 100
        assert abs(right.sum() - len(labels) * share / 100) <= spread
        before = right
    assert before.all()


def test_image_targets_are_the_retrievers_embeddings_or_few_of_their_centroids(
    bench: Workbench,
) -> None:
    asked = text(bench, "clip_it/image_target")
    labels = choose_labels(asked, bench.dataset(CELL[0]))
    at = labels["train"].at
    own = other_targets(asked, bench, at, "image")
    embeddings = bench.retriever_embeddings(CELL[0], "train")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = torch.arange(len(unit))
    np.testing.assert_allclose(own(rows, 0).cpu(), unit, atol=1e-6)
    assert spec(bench, "clip_it/image_target").target == "image"
    assert spec(bench, "clip_it/image_centroids").target == "image_centroids"
    few = other_targets(text(bench, "clip_it/image_centroids"), bench, at, "image_centroids")
    reports = paired_reports(text(bench, "clip_it"), bench, "train")
    assert len(few.features) == round(effective_number(reports))
    nearest = torch.cdist(torch.from_numpy(unit), few.features).argmin(dim=1)
    torch.testing.assert_close(few.features.norm(dim=1), torch.ones(len(few.features)))
    # Centroids at unit length: the nearest may differ from k-means' own on the border.
    assert (nearest == few.report).float().mean() > 0.8


def test_noise_targets_know_nothing_of_the_image_and_stay(bench: Workbench, monkeypatch) -> None:
    def drawn(setting: str, seed: int = 0) -> tuple[Targets, torch.Tensor]:
        asked = text(bench, setting, seed)
        at = choose_labels(asked, bench.dataset(CELL[0]))["train"].at
        return other_targets(asked, bench, at, "noise"), torch.from_numpy(at)

    own, rows = drawn("clip_it/noise_target")
    assert own.features.shape == (len(rows), bench.clip.width)
    torch.testing.assert_close(own.features.norm(dim=1), torch.ones(len(rows)))
    assert torch.equal(own(rows, 0), own(rows, 1)) and len(own.features.unique(dim=0)) == len(rows)
    few, chosen = drawn("clip_it/noise_target/labels_5")
    assert torch.equal(few.features, own.features[chosen])  # a patch keeps its direction
    assert not torch.equal(drawn("clip_it/noise_target", 1)[0].features, own.features)
    monkeypatch.setattr(bench, "image_embeddings", lambda *_: np.ones(own.features.shape, "f4"))
    assert torch.equal(drawn("clip_it/noise_target")[0].features, own.features)


def cosines(images: np.ndarray, texts: list[str], desk: Workbench) -> np.ndarray:
    embedded = embed_texts(desk.clip.text_tower, desk.clip.tokenizer, texts, "truncate").numpy()
    return images @ embedded.T / np.linalg.norm(images, axis=1, keepdims=True)


@pytest.mark.parametrize(("setting", "terms"), [("text/prompts", 1), ("text/terms", 5)])
def test_each_patch_has_the_nearest_prompt_or_terms(setting: str, terms: int, monkeypatch) -> None:
    desk = toy_bench(monkeypatch)
    asked = specs.resolve(desk, "toy", "phantom_clip", setting, 0).text
    assert asked is not None
    paired = paired_texts(asked, desk, SPLITS)
    choices = list(own_terms()) if terms > 1 else list(paired.texts)
    for split in SPLITS:
        near = cosines(desk.retriever_embeddings("toy", split), choices, desk)
        assert len(near) == len(paired.chosen[split])
        for row, text in zip(near, paired.chosen[split], strict=True):
            said = paired.texts[text].split(", ") if terms > 1 else [paired.texts[text]]
            found = [row[choices.index(each)] for each in said]
            np.testing.assert_allclose(found, np.sort(row)[::-1][:terms], atol=1e-6)


def test_controls_without_text_read_no_report(bench: Workbench, monkeypatch) -> None:
    for setting in (
        "clip_it/image_target", "clip_it/noise_target", "clip_it/architecture_only",
        "lora_only/self_distilled",
    ):  # fmt: skip
        asked = spec(bench, setting, seed=41)
        with monkeypatch.context() as patch:
            patch.setattr(text_stage, "stage_one", lambda *_: pytest.fail("read a report"))
            run.perform(asked, bench)


def test_a_study_of_controls_names_reports_of_another_organ(bench: Workbench) -> None:
    names = studies.settings(bench.profile, "controls", CELL[0])
    assert "clip_it/corpus_phantom-colon" in names and names[-1] == "clip_it"
    assert "clip_it/corpus_phantom-breast" in studies.settings(
        bench.profile, "controls", "phantom-crc"
    )


def test_the_steps_of_a_gain_sum_to_the_whole(bench: Workbench) -> None:
    names = dict.fromkeys(name for _, *pair in STEPS for name in pair)
    stored = [runs.get_or_run(spec(bench, name, s), bench) for name in names for s in (0, 1)]
    found = decomposition(stored)
    steps = found[found["step"] != WHOLE[0]]["gain"].sum()
    assert steps == pytest.approx(found[found["step"] == WHOLE[0]]["gain"].item())
    assert decomposition_words(found).count("[") == len(STEPS) + 1
