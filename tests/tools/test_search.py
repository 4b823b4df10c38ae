"""The search: exact and equal budgets, resumable, on validation alone, flowing into the runs."""

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.trial import TrialState
from sklearn.metrics import log_loss

from clipit_lib import runs
from clipit_lib.errors import ClipItError, Diverged
from clipit_lib.settings import Lora
from companion import paths, search, specs
from companion.__main__ import main
from companion.measures import cross_entropy
from companion.paper import PROTOCOLS
from companion.profile import Search, SearchSpace, Workbench, load_profile, searched_path
from companion.search import Task

CELL = ("phantom-pcam", "phantom_vit_s16")
BUDGET = Search(trials=2, seeds=(1000,))


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of profiles that tests may write into."""
    folder = tmp_path_factory.mktemp("profiles")
    shutil.copy(paths.profiles() / "smoke.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "profiles", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def task(bench: Workbench) -> Task:
    return Task(bench.profile, *CELL, BUDGET)


Run = Callable[..., pd.DataFrame]
COMMAND = ["search", "--profile", "smoke", "--dataset", CELL[0], "--backbone", CELL[1]]
COMMAND += ["--seeds", "1000"]


@pytest.fixture(scope="module")
def trials(bench: Workbench, task: Task, profiles: Path) -> pd.DataFrame:
    """What the command leaves after two trials a setting."""
    main([*COMMAND, "--trials", "2"])
    return pd.read_csv(task.folder / f"{task.name}.csv")


def check_budget(trials: pd.DataFrame, task: Task, bench: Workbench) -> None:
    """Each setting has exactly two trials, and the runs are those that its rows state."""
    assert trials["setting"].tolist() == ["lora_only", "lora_only", "clip_it", "clip_it"]
    assert trials["number"].tolist() == [0, 1, 0, 1]
    for setting in search.SETTINGS:
        every = search.study(task, bench, setting).trials
        assert [trial.state for trial in every] == [TrialState.COMPLETE] * 2
    for _, row in trials.iterrows():
        spec = runs.read(paths.runs("smoke") / row["runs"]).spec
        assert (spec.setting, spec.seed) == (row["setting"], 1000)
        assert spec.lora == Lora(rank=row["rank"], alpha=row["alpha"])
        assert spec.protocol is not None and spec.protocol.lora_targets == row["targets"]
        if row["setting"] == "clip_it":
            assert spec.distillation_weight == row["lambda"]
    without_text = trials["setting"] == "lora_only"
    assert trials["lambda"].isna().tolist() == without_text.tolist()


def test_settings_get_one_exact_and_equal_budget(
    trials: pd.DataFrame, task: Task, bench: Workbench
) -> None:
    check_budget(trials, task, bench)


@pytest.mark.slow
def test_processes_share_one_exact_and_equal_budget(
    task: Task, bench: Workbench, profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    main([*COMMAND, "--trials", "2", "--processes", "2"])
    check_budget(pd.read_csv(task.folder / f"{task.name}.csv"), task, bench)


def test_more_trials_go_on_and_fewer_take_the_first(
    trials: pd.DataFrame, task: Task, monkeypatch
) -> None:
    monkeypatch.setattr(runs, "perform", lambda *_: pytest.fail("trained again"))
    again = search.search(task)
    pd.testing.assert_frame_equal(again, trials, rtol=1e-4)
    fewer = search.search(Task(task.profile, *CELL, Search(trials=1, seeds=(1000,))))
    pd.testing.assert_frame_equal(fewer, again[again["number"] == 0].reset_index(drop=True))


def test_a_value_is_validation_cross_entropy_whatever_the_test_predictions(
    trials: pd.DataFrame, tmp_path: Path
) -> None:
    row = trials.iloc[-1]
    run = runs.read(paths.runs("smoke") / row["runs"])
    frame = run.predictions("validation")
    logits = frame.filter(like="logit_").to_numpy(float)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert row["validation"] == pytest.approx(log_loss(frame["label"], chances), rel=1e-5)
    # The kept weights are those with the lowest value that training saw.
    assert row["validation"] == pytest.approx(run.history()["validation"].min(), rel=1e-4)

    spoilt = tmp_path / run.key
    shutil.copytree(run.folder, spoilt)
    every = pd.read_parquet(spoilt / runs.PREDICTIONS)
    every.loc[every["split"] == "test", ["label", "logit_0", "logit_1"]] = [7, np.nan, -np.inf]
    every.to_parquet(spoilt / runs.PREDICTIONS)
    with_spoilt = cross_entropy(runs.read(spoilt).predictions("validation"))
    assert with_spoilt == pytest.approx(row["validation"], rel=1e-5)


def test_what_is_chosen_becomes_part_of_the_profile(
    trials: pd.DataFrame, bench: Workbench, capsys
) -> None:
    profile = load_profile("smoke")
    tuned = Workbench(profile)
    for setting, own in trials.groupby("setting"):
        best = own.sort_values("validation", kind="stable").iloc[0]
        assert specs.resolve(tuned, *CELL, str(setting), 1000).key == best["runs"]
    found = profile.cells[CELL[0]][CELL[1]]["clip_it"]
    assert found.found_with is not None
    assert (found.found_with.trials, found.found_with.seeds) == (2, (1000,))
    control = specs.resolve(tuned, *CELL, "clip_it/random_reports", 0)
    assert (control.lora, control.distillation_weight) == (found.lora, found.distillation_weight)
    without_text = specs.resolve(tuned, *CELL, "clip_it/architecture_only", 0)
    assert (without_text.lora, without_text.distillation_weight) == (found.lora, 0.0)
    other = (CELL[0], bench.profile.retriever)  # no other backbone on the same data set either
    for cell, setting in (
        (CELL, "unimodal"),
        (("phantom-crc", CELL[1]), "clip_it"),
        (other, "clip_it"),
    ):
        assert specs.resolve(tuned, *cell, setting, 0) == specs.resolve(bench, *cell, setting, 0)
    capsys.readouterr()  # of what had to be decoded
    main(["search", "--profile", "smoke", "--show"])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and f"rank {found.lora.rank}, alpha {found.lora.alpha}" in shown[1]
    assert "best of 2 trials, seeds 1000" in shown[1]


def test_the_search_does_not_begin_where_it_ended(
    trials: pd.DataFrame, task: Task, bench: Workbench
) -> None:
    """Chosen values are no part of a study's name: the same command finds the same study."""
    again = Task(load_profile("smoke"), *CELL, BUDGET)
    assert again.profile.cells
    for setting in search.SETTINGS:
        names = [
            search.study(each, Workbench(each.profile), setting).study_name
            for each in (task, again)
        ]
        assert names[0] == names[1]


def hand_made(**validation: list[float]) -> pd.DataFrame:
    rows = [
        {"setting": setting, "number": i, "rank": 4 * 2**i, "alpha": 2 * 2**i,
         "targets": "all", "lambda": 0.1 * (i + 1) if setting == "clip_it" else np.nan,
         "validation": value, "runs": ""}
        for setting, values in validation.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_lowest_is_chosen_and_the_first_of_equals(task: Task) -> None:
    table = hand_made(clip_it=[0.7, 0.4, 0.4], lora_only=[0.5, np.inf, 0.3])
    best = search.chosen(task, table)
    assert best["clip_it"].lora == Lora(rank=8, alpha=4)
    assert best["clip_it"].distillation_weight == pytest.approx(0.2)
    assert best["lora_only"].lora == Lora(rank=16, alpha=8)
    assert best["lora_only"].distillation_weight is None
    with pytest.raises(ClipItError, match="every trial of clip_it diverged"):
        search.chosen(task, hand_made(clip_it=[np.inf], lora_only=[1.0]))


@pytest.fixture
def own_profiles(tmp_path: Path, monkeypatch) -> Path:
    shutil.copy(paths.repository() / "profiles" / "smoke.yaml", tmp_path)
    monkeypatch.setattr(paths, "profiles", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", [None, "", "{}\n", "# nothing yet\n"])
def test_nothing_searched_changes_no_run(bench: Workbench, own_profiles: Path, text) -> None:
    if text is not None:
        searched_path("smoke").parent.mkdir()
        searched_path("smoke").write_text(text, encoding="utf-8")
    profile = load_profile("smoke")
    assert profile.cells == {} and profile == bench.profile
    spec = specs.resolve(Workbench(profile), *CELL, "clip_it", 0)
    assert spec == specs.resolve(bench, *CELL, "clip_it", 0)
    assert spec.lora == Lora(rank=4, alpha=4) and spec.distillation_weight == 1.0
    assert spec.protocol == PROTOCOLS["paper"]


def test_data_sets_are_kept_beside_each_other_and_reach_the_runs(
    own_profiles: Path, task: Task
) -> None:
    (task.folder / search.STUDIES).mkdir(parents=True, exist_ok=True)
    other = Task(task.profile, "phantom-crc", CELL[1], BUDGET)
    for each, value in ((task, 0.6), (other, 0.5), (task, 0.4)):
        table = hand_made(lora_only=[value], clip_it=[value])
        values = search.chosen(each, table)
        search.keep_chosen(each, values)
        assert load_profile("smoke").cells[each.dataset][each.backbone] == values
    profile = load_profile("smoke")
    assert set(profile.cells) == {"phantom-pcam", "phantom-crc"}

    tuned = Workbench(profile)
    for setting, weight in (("lora_only", None), ("clip_it", 0.1)):
        spec = specs.resolve(tuned, *CELL, setting, 0)
        assert spec.lora == Lora(rank=4, alpha=2) and spec.distillation_weight == weight
        assert spec.protocol == PROTOCOLS["paper"].model_copy(update={"lora_targets": "all"})
    own = specs.resolve(tuned, *CELL, "clip_it", 0, lora=Lora(rank=2), distillation_weight=3.0)
    assert (own.lora, own.distillation_weight) == (Lora(rank=2), 3.0)


WRONG = "lora: {rank: 8, alpha: 8}, found_with: {trials: 1, seeds: [1], validation: 1}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"phantom-pcam: {{uni: {{clip_it: {{{WRONG}, lamda: 1.0}}}}}}",
            "clip_it.lamda: unknown key",
        ),
        (f"phantom-pcam: {{uni: {{clipit: {{{WRONG}}}}}}}", "'lora_only' or 'clip_it'"),
        (f"liver: {{uni: {{clip_it: {{{WRONG}}}}}}}", "unknown dataset 'liver'"),
        (f"phantom-pcam: {{resnet: {{clip_it: {{{WRONG}}}}}}}", "unknown backbone 'resnet'"),
        ("phantom-pcam: {uni: {clip_it: {distillation_weight: 1}}}", "lora: Field required"),
        (
            f"phantom-pcam: {{uni: {{clip_it: {{{WRONG}}}}}}}".replace("8,", "many,"),
            "valid integer",
        ),
        ("- a list", "the whole file: Input should be an object"),
        ("phantom-pcam: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_said_in_one_line(own_profiles: Path, text: str, said: str) -> None:
    searched_path("smoke").parent.mkdir()
    searched_path("smoke").write_text(text, encoding="utf-8")
    with pytest.raises(ClipItError, match=said) as caught:
        load_profile("smoke")
    assert "\n" not in str(caught.value) and "searched/smoke.yaml" in str(caught.value)


def test_a_profile_says_values_of_a_cell_itself_and_a_search_goes_before(
    own_profiles: Path,
) -> None:
    path, clip = own_profiles / "smoke.yaml", "phantom_clip"
    said = {CELL[0]: {CELL[1]: {"clip_it": {"lora": {"rank": 8, "alpha": 2},
                                            "distillation_weight": 0.7}}}}  # fmt: skip
    with path.open("a", encoding="utf-8") as file:
        file.write(f"cells: {json.dumps(said)}\n")

    def tuned(setting: str, backbone: str = CELL[1]) -> tuple[Lora, float]:
        own, _ = load_profile("smoke").tuned(CELL[0], backbone, setting)
        return own.lora, own.distillation_weight

    ours, usual = (Lora(rank=8, alpha=2), 0.7), (Lora(rank=4, alpha=4), 1.0)
    assert tuned("clip_it") == tuned("clip_it/random_reports") == ours
    assert tuned("lora_only") == tuned("unimodal") == tuned("clip_it", clip) == usual
    searched_path("smoke").parent.mkdir()
    found = f"{CELL[0]}: {{{CELL[1]}: {{lora_only: {{{WRONG}}}}}}}"
    searched_path("smoke").write_text(found, encoding="utf-8")
    assert tuned("lora_only") == (Lora(rank=8, alpha=8), 1.0)
    assert tuned("clip_it") == usual  # a search is of both settings
    path.write_text(path.read_text(encoding="utf-8").replace('"phantom_vit_s16": {', '"resnet": {'))
    with pytest.raises(ClipItError, match=r"smoke.yaml: unknown backbone 'resnet'"):
        load_profile("smoke")


def test_seeds_of_the_evaluation_are_refused(bench: Workbench) -> None:
    with pytest.raises(ClipItError, match=r"the seeds \[1\] are evaluated with"):
        search.search(Task(bench.profile, *CELL, Search(trials=1, seeds=(1, 1000))))
    for name in (path.stem for path in paths.profiles().glob("*.yaml")):
        assert not set(Search().seeds) & set(load_profile(name).seeds)


def test_mistakes_are_said_before_the_first_trial(own_profiles: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(runs, "perform", lambda *_: pytest.fail("a trial began"))

    def said(*changed: str) -> str:
        assert main([*COMMAND, *changed]) == 2
        return str(capsys.readouterr().err)

    assert "unknown dataset 'liver'" in said("--dataset", "liver")
    assert "unknown backbone 'resnet'" in said("--backbone", "resnet")
    shutil.rmtree(searched_path("smoke").parent, ignore_errors=True)
    searched_path("smoke").parent.write_text("a file where the folder should be")
    assert re.search("cannot write here.*part of the profile", said())


def test_a_mistake_in_another_process_is_passed_on(task: Task, monkeypatch) -> None:
    mistake = pickle.loads(pickle.dumps(Diverged("not finite", "a run", "Lower it")))
    assert type(mistake) is Diverged and str(mistake) == "a run: not finite. Lower it"
    assert mistake.where == "a run"

    def full(*_: object) -> None:
        raise ClipItError("writing failed", "a disk", "Free space")

    monkeypatch.setattr(search, "work", full)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    monkeypatch.setattr(search, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    with pytest.raises(ClipItError, match=r"a disk: writing failed\. Free space"):
        search.search(task, 2)


def test_a_search_begins_with_the_profiles_own_values_where_it_can(
    bench: Workbench, task: Task
) -> None:
    narrow = SearchSpace(ranks=(8, 16), distillation_weight=(2.0, 3.0))
    for space, wanted in (
        (SearchSpace(), {"rank": 4, "scale": 1.0, "targets": "attention_mlp", "lambda": 1.0}),
        (narrow, {"scale": 1.0, "targets": "attention_mlp"}),
    ):
        own = Task(task.profile, *CELL, Search(trials=1, seeds=(2000,), space=space))
        queued = search.study(own, bench, "clip_it").trials[0]
        assert queued.state == TrialState.WAITING
        assert queued.system_attrs["fixed_params"] == wanted


def test_a_space_holds_what_a_specification_can_say() -> None:
    rng = np.random.default_rng(0)
    sampled = search.distributions(SearchSpace(), "clip_it")
    assert set(sampled) - set(search.distributions(SearchSpace(), "lora_only")) == {"lambda"}
    for _ in range(50):
        names = ("rank", "scale", "targets")
        parameters = {name: rng.choice(sampled[name].choices).item() for name in names}
        parameters["lambda"] = rng.uniform(0.01, 10)
        found = search.candidate_of(parameters, 0.0)
        assert found.lora.alpha / found.lora.rank == parameters["scale"]
        assert found.distillation_weight == pytest.approx(parameters["lambda"], rel=0.006)
