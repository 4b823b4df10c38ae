"""The survival models, their training by folds, the run store and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from clipit_lib.training import History
from companion import paths
from companion import profile as profile_
from companion import survival as study
from companion.figures.survival import survival_figure
from companion.profile import FileSlides, Workbench
from companion.survival import SETTINGS
from companion.survival import model as text
from companion.survival.cohort import Bag, Cohort, open_cohort, read_cohort, write_bag
from companion.survival.model import (
    AttentionMil,
    FoldTask,
    PaddedSlides,
    SurvivalModel,
    cox_loss,
    split_rows,
)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gated_attention_by_hand() -> None:
    model = AttentionMil(4, 3, 0.0).eval()
    bag = some(5, 4).double().numpy()
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    hidden = np.maximum(bag @ weights["hidden.0.weight"].T + weights["hidden.0.bias"], 0)
    content = np.tanh(hidden @ weights["content.weight"].T + weights["content.bias"])
    gate = 1 / (1 + np.exp(-(hidden @ weights["gate.weight"].T + weights["gate.bias"])))
    score = np.exp((content * gate) @ weights["score.weight"][0])
    expected = weights["cox.weight"][0] @ ((score / score.sum()) @ hidden)
    risk = model(torch.tensor(bag).float()[None], torch.ones(1, 5, dtype=torch.bool))
    assert risk.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("model", [SurvivalModel(4, 8, 0.25), SurvivalModel(4, 8, 0.25, 6)])
def test_risk_knows_neither_order_nor_padding(model: torch.nn.Module) -> None:
    model.eval()
    bag, mask = some(1, 5, 4), torch.ones(1, 5, dtype=torch.bool)
    risk, _ = model(bag, mask)
    shuffled, _ = model(bag[:, [3, 1, 4, 0, 2]], mask)
    longer = torch.cat([bag, 100 * some(1, 3, 4)], dim=1)
    shown = torch.cat([mask, torch.zeros(1, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(shuffled, risk)
    torch.testing.assert_close(model(longer, shown)[0], risk)


def test_clip_it_starts_as_the_average_of_its_branches() -> None:
    model = SurvivalModel(4, 8, 0.0, 6).eval()
    bag, mask = some(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)
    log_risk, predicted = model(bag, mask)
    distilled = torch.nn.functional.normalize(model.distillation(bag), dim=-1)
    expected = (model.visual(bag, mask) + model.text(distilled, mask)) / 2
    torch.testing.assert_close(log_risk, expected)
    torch.testing.assert_close(predicted, model.distillation(bag))


def synthetic(signal: float, slides: int = 120) -> Cohort:
    """Slides of which a third of the patches shows the hazard in one feature."""
    rng = np.random.default_rng(0)
    hazard = rng.standard_normal(slides)
    bags = []
    for each in hazard:
        features = rng.standard_normal((6, 5))
        features[:2, 0] += signal * each
        features[:2, 1] += 3.0
        bags.append(Bag(features.astype(np.float32), rng.random((6, 4)).astype(np.float32)))
    clinical = pd.DataFrame({
        "slide": [str(n) for n in range(slides)], "time": rng.exponential(np.exp(-2 * hazard)),
        "event": rng.random(slides) < 0.7, "fold": np.arange(slides) % 5 + 1,
    })  # fmt: skip
    return Cohort(clinical, tuple(bags), f"synthetic-{signal}")


def test_loss_is_cox_plus_lambda_times_the_mean_distance_over_real_patches() -> None:
    cohort = synthetic(1.0, 10)
    first = Bag(cohort.bags[0].features[:3])
    cohort = replace(cohort, bags=(first, *cohort.bags[1:]))
    slides, rows = PaddedSlides.of(cohort), torch.arange(10)
    texts, report = some(7, 4), torch.randint(7, (10, 6), generator=torch.Generator())
    model = SurvivalModel(5, 8, 0.0, 4).eval()
    everything = np.arange(10)
    task = FoldTask(model, slides, everything, everything, (report, texts), 0.5)
    parts = task.loss(model, rows, torch.Generator())
    log_risk, distilled = model(slides.patches, slides.mask)
    distances = [
        1 - torch.cosine_similarity(distilled[i, k], texts[report[i, k]], dim=0)
        for i in range(10)
        for k in range(3 if i == 0 else 6)
    ]
    assert len(distances) == 57
    torch.testing.assert_close(parts["distillation"], 0.5 * torch.stack(distances).mean())
    torch.testing.assert_close(parts["cox"], cox_loss(log_risk, slides.time, slides.event))
    assert set(FoldTask(model, slides, everything, everything, None, 0.0).loss(
        model, rows, torch.Generator()
    )) == {"cox"}  # fmt: skip


def test_folds_never_meet_and_settings_share_them() -> None:
    cohort = synthetic(1.0)
    held_out = []
    for fold in cohort.folds:
        train, validation, held = split_rows(cohort, fold, 0.2, seed=3)
        assert sorted([*train, *validation, *held]) == list(range(len(cohort)))
        assert set(cohort.clinical["fold"].iloc[held]) == {fold}
        assert len(validation) == pytest.approx(0.2 * 96, abs=1.5)
        assert cohort.clinical["event"].iloc[validation].any()
        held_out += [*held]
        again = split_rows(cohort, fold, 0.2, seed=3)
        assert all((a == b).all() for a, b in zip(again, (train, validation, held), strict=True))
    assert sorted(held_out) == list(range(len(cohort)))


def test_validation_has_an_event_and_a_censored_slide_whatever_its_share() -> None:
    cohort = synthetic(1.0, 30)
    _, validation, _ = split_rows(cohort, 1, 0.0, seed=0)
    assert cohort.clinical["event"].iloc[validation].tolist() in ([True, False], [False, True])
    _, half, _ = split_rows(cohort, 1, 0.5, seed=0)
    event = cohort.clinical["event"][cohort.clinical["fold"] != 1]
    assert cohort.clinical["event"].iloc[half].sum() == round(0.5 * event.sum())
    # Each fold draws its own, even from the same slides.
    elsewhere = replace(cohort, clinical=cohort.clinical.assign(fold=3))
    one, two = (split_rows(elsewhere, fold, 0.5, seed=0)[1] for fold in (1, 2))
    assert one.tolist() != two.tolist()


def spec(cohort: Cohort, setting: str = "unimodal", epochs: int = 6) -> study.SurvivalSpec:
    training = profile_.SlideTraining(epochs=epochs, learning_rate=1e-2)
    width = None if setting == "unimodal" else 4
    return study.SurvivalSpec(
        kernels="any", setting=setting, seed=0, cohort_hash=cohort.content_hash, folds=5,
        hidden=16, dropout=0.1, training=training, validation=0.2, text_width=width,
    )  # fmt: skip


def test_it_learns_a_planted_hazard_and_finds_none_where_there_is_none(bench: Workbench) -> None:
    cohort = synthetic(signal=2.0)
    predictions, history, _ = study.perform(
        spec(cohort, "clip_it/architecture_only"), bench, cohort
    )
    assert study.fold_metrics(predictions)["c_index"].mean() > 0.7
    assert set(history["fold"]) == {1, 2, 3, 4, 5} and "distillation" not in history
    nothing = synthetic(signal=0.0)
    predictions, *_ = study.perform(spec(nothing), bench, nothing)
    assert study.fold_metrics(predictions)["c_index"].mean() == pytest.approx(0.5, abs=0.12)


def test_seeds_begin_with_other_weights_and_draw_other_batches(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []

    def fit(task: FoldTask, training: object, seed: int, **rest: object) -> History:
        asked.append((sum(p.abs().sum().item() for p in task.model.parameters()), seed))
        return History()

    monkeypatch.setattr(study, "fit", fit)
    own = synthetic(1.0, 30)
    for seed in (0, 1):
        study.perform(spec(own).model_copy(update={"seed": seed}), bench, own)
    assert [seed for _, seed in asked] == [0] * 5 + [1] * 5
    assert len({weights for weights, _ in asked}) == 10


def test_stored_survival_runs_keep_their_names() -> None:
    """A field that is added is None: not in the key."""
    assert spec(replace(synthetic(0.0, 10), content_hash="c")).key == "45eef2cba0102d54"


@pytest.fixture(scope="module")
def cohort(bench: Workbench) -> Cohort:
    return open_cohort(bench.profile)


@pytest.fixture(scope="module")
def stored(bench: Workbench, cohort: Cohort) -> list[study.SurvivalRun]:
    seeds = bench.profile.survival.seeds  # type: ignore[union-attr]
    specs = [study.resolve(bench, cohort, s, seed) for seed in seeds for s in SETTINGS]
    return [study.get_or_run(each, bench, cohort) for each in specs]


def test_phantom_slides_are_kept_and_read_back(bench: Workbench, cohort: Cohort) -> None:
    settings = bench.profile.survival
    assert settings is not None and cohort.planted is not None
    assert len(cohort) == settings.slides.slides and cohort.folds == [1, 2, 3, 4, 5]
    assert {len(bag.features) for bag in cohort.bags} == {settings.slides.patches}
    assert cohort.bags[0].retriever.shape[1] == bench.clip.width
    again = open_cohort(bench.profile)
    assert again.content_hash == cohort.content_hash and "phantom" in again.limits.lower()


def test_slides_of_the_user_are_read_below_the_data_folder(
    bench: Workbench, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slide, bag in zip(cohort.clinical["slide"], cohort.bags, strict=True):
        write_bag(tmp_path / "mbc" / f"{slide}.h5", bag)
    table = cohort.clinical.assign(event=cohort.clinical["event"].astype(int))
    table.to_csv(tmp_path / "clinical.csv", index=False)
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    slides = FileSlides(source="files", bags="mbc", clinical="clinical.csv", licence="ours")
    survival = bench.profile.survival.model_copy(update={"slides": slides})  # type: ignore[union-attr]
    opened = open_cohort(bench.profile.model_copy(update={"survival": survival}))
    # These are named by what they hold, whatever file it lies in.
    made = paths.cache() / "slides" / f"phantom-{cohort.content_hash}"
    assert opened.content_hash == read_cohort(made / "bags", made / "clinical.csv", 5).content_hash
    for ours, theirs in zip(opened.bags, cohort.bags, strict=True):
        np.testing.assert_array_equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.retriever, theirs.retriever)
    pd.testing.assert_frame_equal(opened.clinical, cohort.clinical)
    assert opened.planted is None and "ours" in opened.limits


def test_patches_are_paired_with_the_most_similar_report(bench: Workbench, cohort: Cohort) -> None:
    profile = bench.profile
    reports, texts = text.pairs(
        bench, cohort, profile.retriever, profile.survival.corpus, profile.text_stage.long_text
    )
    unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    for slide in (0, len(cohort) - 1):
        similarity = cohort.bags[slide].retriever @ unit.T
        chosen = similarity[np.arange(len(similarity)), reports[slide]]
        # Untrained encoders give nearly equal similarities: compare values, not indices.
        np.testing.assert_allclose(chosen, similarity.max(axis=1), rtol=1e-5)


def test_every_slide_is_predicted_once_and_image_only(
    cohort: Cohort, stored: list[study.SurvivalRun]
) -> None:
    for run in stored:
        predictions = run.predictions()
        assert predictions["slide"].tolist() == cohort.clinical["slide"].tolist()
        assert predictions["log_risk"].notna().all() and predictions["event"].dtype == bool
        assert ("distillation" in run.history()) == (run.spec.setting == "clip_it")
        assert run.done()["key"] == run.key == run.spec.key


def test_predictions_name_the_patient_where_it_is_known(bench: Workbench) -> None:
    cohort = synthetic(1.0, 20)
    patients = [f"{n:03d}" for n in range(20)]
    cohort = replace(cohort, clinical=cohort.clinical.assign(patient=patients))
    found = study.get_or_run(spec(cohort, epochs=1), bench, cohort).predictions()
    assert found.columns.tolist() == ["slide", "time", "event", "fold", "patient", "log_risk"]
    assert found["patient"].tolist() == patients and len(study.fold_metrics(found)) == 5


def test_a_stored_run_is_read_and_an_interrupted_one_is_repeated(
    bench: Workbench, cohort: Cohort, stored: list[study.SurvivalRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = stored[2].predictions()
    assert stored[2].folder.parent == paths.results("smoke") / "survival_runs"
    with monkeypatch.context() as patch:
        patch.setattr(study, "perform", lambda *_: pytest.fail("it was run again"))
        study.get_or_run(stored[2].spec, bench, cohort)
    (stored[2].folder / runs.DONE).unlink()
    again = study.get_or_run(stored[2].spec, bench, cohort)
    pd.testing.assert_frame_equal(again.predictions(), before)  # the same to the last digit


def test_a_key_follows_all_that_can_change_a_run_and_nothing_else(
    bench: Workbench, cohort: Cohort
) -> None:
    def key(setting: str = "clip_it", seed: int = 0, **changes: object) -> str:
        survival = bench.profile.survival.model_copy(update=changes)  # type: ignore[union-attr]
        profile = bench.profile.model_copy(update={"survival": survival})
        return study.resolve(Workbench(profile), cohort, setting, seed).key

    keys = [
        key(), key(seed=1), key(hidden=17), key(distillation_weight=0.5), key("unimodal"),
        key("clip_it/architecture_only"), key(corpus="phantom-colon"),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    for setting in ("unimodal", "clip_it/architecture_only"):  # neither reads a report
        assert key(setting, corpus="phantom-colon", distillation_weight=0.5) == key(setting)
    other = replace(cohort, content_hash="other")
    assert study.resolve(bench, other, "unimodal", 0).key != key("unimodal")


def test_lambda_weighs_the_distillation_of_a_run(bench: Workbench, cohort: Cohort) -> None:
    whole = study.resolve(bench, cohort, "clip_it", 0)
    half = whole.model_copy(update={"distillation_weight": 0.5 * whole.distillation_weight})
    first, second = (
        study.perform(each, bench, cohort)[1]["distillation"].iloc[0] for each in (whole, half)
    )
    assert second == pytest.approx(0.5 * first, rel=0.1)


def test_clip_it_without_retriever_embeddings_says_so(bench: Workbench, cohort: Cohort) -> None:
    bare = replace(cohort, bags=tuple(replace(bag, retriever=None) for bag in cohort.bags))
    with pytest.raises(ClipItError, match="no retriever embeddings"):
        text.pairs(bench, bare, bench.profile.retriever, "unread", "truncate")
    with pytest.raises(ClipItError, match="unknown setting 'lora_only'"):
        study.resolve(bench, cohort, "lora_only", 0)
    silent = bench.profile.model_copy(update={"survival": None})
    with pytest.raises(ClipItError, match="no survival section"):
        open_cohort(silent)


def test_tables_say_what_the_predictions_say(
    cohort: Cohort, stored: list[study.SurvivalRun]
) -> None:
    table = study.run_table(stored)
    assert table.columns.tolist() == ["fold", "setting", "seed", "c_index", "iauc", "run"]
    assert len(table) == 5 * len(stored)
    limits = study.intervals(stored, table, draws=50)
    means = table.groupby("setting")["c_index"].mean()
    rows = limits[limits["metric"] == "c_index"].set_index(["setting", "over"])
    assert rows.loc[("clip_it", ""), "value"] == pytest.approx(means["clip_it"])
    gain = rows.loc[("clip_it", "unimodal")]
    assert gain["value"] == pytest.approx(means["clip_it"] - means["unimodal"])
    assert (limits["low"] <= limits["high"]).all()
    planted = study.planted_metrics(cohort)
    assert planted is not None and study.planted_metrics(synthetic(0.0, 10)) is None
    said = study.sentences(table, limits, study.halves(stored, "clip_it"), planted)
    assert "not defined" not in said
    assert f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" in said
    assert f"{planted['c_index'].mean():.3f}" in said and "+0.052" in said
    summary = study.summary_table(table, limits)
    assert summary["paper's mean"].tolist() == ["0.609", "no such row", "0.661", "0.634",
                                                "no such row", "0.699"]  # fmt: skip


class Predicted(study.SurvivalRun):
    """A run whose risks are given: a number of noise, none is perfect."""

    def predictions(self) -> pd.DataFrame:
        time = np.tile(np.arange(1.0, 13), 2)
        noise = {"unimodal": 9.0, "clip_it/architecture_only": 3.0, "clip_it": 0.0}
        drawn = np.random.default_rng(self.spec.seed).standard_normal(24)
        return pd.DataFrame({
            "slide": np.arange(24).astype(str), "time": time, "event": True,
            "fold": np.repeat([1, 2], 12), "log_risk": noise[self.spec.setting] * drawn - time,
        })  # fmt: skip


def test_intervals_are_percentiles_of_their_own_settings() -> None:
    own = synthetic(0.0, 10)
    made = [
        Predicted(Path(f"{setting}{seed}"), spec(own, setting).model_copy(update={"seed": seed}))
        for setting in SETTINGS
        for seed in (0, 1)
    ]
    limits = study.intervals(made, study.run_table(made), 200)
    frames = {s: [run.predictions() for run in made if run.spec.setting == s] for s in SETTINGS}
    drawn = text.bootstrap(frames, 200)
    assert len(limits) == 2 * (3 + 2)
    for metric, setting, over, value, low, high in limits.itertuples(index=False):
        values = drawn[setting, metric] - (drawn[over, metric] if over else 0)
        assert (low, high) == pytest.approx(np.percentile(values, [2.5, 97.5]))
        assert low <= value <= high
    perfect = limits.query("setting == 'clip_it' and over == ''")
    assert (perfect[["value", "low", "high"]] == 1).all(axis=None)
    assert (limits.query("over == 'unimodal'")["low"] > 0).all()


def test_halves_are_split_within_folds_by_rank(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "slide": list("abcdefgh"), "time": np.arange(8.0), "event": True,
        "fold": [1, 1, 1, 1, 2, 2, 2, 2], "log_risk": [1, 2, 3, 4, 104, 103, 102, 101.0],
    })  # fmt: skip
    risks = (frame["log_risk"], 10 * frame["log_risk"] - 3)
    made = [kept(tmp_path / str(seed), frame, risk) for seed, risk in enumerate(risks)]
    split = study.halves(made, "clip_it")
    assert split["high"].tolist() == [False, False, True, True, True, True, False, False]
    # Places among the slides of other folds do not count: a is last in one seed, by 1000 or by 4.
    other = pd.Series([1000, 1, 2, 3, 104, 103, 102, 101.0])
    two = [made[0], kept(tmp_path / "other", frame, other)]
    assert study.halves(two, "clip_it")["high"].tolist()[:4] == [False, False, True, True]


def kept(
    folder: Path, frame: pd.DataFrame, risk: pd.Series, setting: str = "clip_it"
) -> study.SurvivalRun:
    """A stored run with these predictions."""
    folder.mkdir()
    frame.assign(log_risk=risk).to_csv(folder / study.PREDICTIONS, index=False)
    return study.SurvivalRun(folder, spec(synthetic(0.0, 10), setting))


def test_names_of_slides_are_text_when_predictions_are_read(tmp_path: Path) -> None:
    names = ["007", "NA", "1e5", "null"]
    frame = pd.DataFrame({"slide": names, "event": [True, False] * 2, "patient": names})
    found = kept(tmp_path / "run", frame, pd.Series([0.1, -2, 3, 1e-9])).predictions()
    assert found["slide"].tolist() == found["patient"].tolist() == names
    assert found["log_risk"].tolist() == [0.1, -2, 3, 1e-9] and found["event"].dtype == bool


def test_a_fold_in_which_nothing_can_be_compared_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "slide": list("abcdefgh"), "time": [1, 2, 3, 5, 5, 1, 2, 3.0], "event": True,
        "fold": [1, 1, 1, 2, 2, 3, 3, 3],
    })  # fmt: skip
    risks = {
        "unimodal": pd.Series([3, 2, 1, 0, 0, 3, 2, 1.0]),  # all three pairs of both folds right
        "clip_it": pd.Series([1, 2, 3, 0, 0, 3, 1, 2.0]),  # none of fold 1, two of fold 3
    }
    stored = [kept(tmp_path / name, frame, risk, name) for name, risk in risks.items()]
    table = study.run_table(stored)
    assert table["c_index"].tolist() == pytest.approx([1, np.nan, 1, 0, np.nan, 2 / 3], nan_ok=True)
    limits, split = study.intervals(stored, table, 50), study.halves(stored, "clip_it")
    means = limits[(limits["metric"] == "c_index") & (limits["over"] == "")]["value"]
    assert means.tolist() == pytest.approx([1, 1 / 3]) and limits.notna().all(axis=None)
    summary = study.summary_table(table, limits)
    assert summary["fold 2"].tolist() == ["not defined"] * 4 and summary["fold 3"][0] == "1.000"
    said = study.sentences(table, limits, split, None)
    for metric in ("C-index", "iAUC"):
        assert f"- {metric} is not defined in fold 2: no event is seen there before" in said
    assert said.count("means and intervals are over fold 1, 3.") == 2
    left, right = survival_figure(table, limits, split).axes
    labels = [label.get_text() for label in left.get_xticklabels()]
    assert labels == ["1", "2\nnot defined", "3", "mean of\n1, 3"]
    # The lower half of each fold: events at 1, 5 and 2 months.
    curve = right.lines[0].get_xydata()
    np.testing.assert_allclose(curve, [[0, 1], [1, 2 / 3], [2, 1 / 3], [5, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time": 5.0}, "iAUC is defined in no fold"),  # C-index: an event, and censored later
        ({"time": 5.0, "event": True}, "C-index is defined in no fold"),
        ({"event": [True] * 2 + [False] * 8, "fold": [1, 2] * 5}, "no event is left to train on"),
    ],
)
def test_follow_up_that_cannot_be_learned_from_is_one_line(
    bench: Workbench, changes: dict[str, object], said: str
) -> None:
    cohort = synthetic(1.0, 10)
    cohort = replace(cohort, clinical=cohort.clinical.assign(**changes))
    with pytest.raises(ClipItError, match=said) as caught:
        study.perform(spec(cohort), bench, cohort)
    assert "\n" not in str(caught.value)
