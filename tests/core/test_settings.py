"""Profiles and run keys: strict, frozen, and sensitive to what matters."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from clipit_lib import run, runs, text
from clipit_lib.data.reports import wording
from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest
from clipit_lib.inputs import Inputs
from clipit_lib.settings import (
    Descent,
    Lora,
    Pairing,
    PhantomPretraining,
    Probe,
    RunSpec,
    Strict,
    TextSpec,
    TextStage,
    Training,
)
from companion import paths, specs
from companion.paper import PAPER, SWITCHES, switched
from companion.profile import Chosen, FoundWith, Workbench, load_profile, read_profile
from companion.reading import plain

SMOKE = (Path(__file__).parents[2] / "profiles" / "smoke.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(p.stem for p in paths.profiles().glob("*.yaml")))
def test_every_profile_reads_and_names_known_parts(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert {settings.corpus for settings in profile.data.values()} <= set(profile.corpora)
    assert set(profile.settings) <= set(specs.SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("\nseeds: [0, 1]", "\nseeds: [0, one]"),
         "line 15, column 12: seeds: Input should be a valid integer (got 'one')"),
        (("retriever:", "retreiver:"),
         "line 14, column 1: retreiver: unknown key; perhaps retriever is meant. Fix"),
        (("probe: {", "probe: {lr: 1, "), "probe.lr: unknown key. Fix"),
        (("epochs: 5", "epochs: 0"), "probe.epochs: Input should be greater than 0 (got '0')"),
        (("epochs: 5", "epochs: 010"), "probe.epochs: Input should be a valid integer (got '010')"),
        (("world: pcam", "world: liver"),
         "line 4, column 42: data.phantom-pcam.world: Input should be 'pcam', 'bach' or 'crc'"),
        (("organ: breast, ", ""), "corpora.phantom-breast.organ: Field required. Fix"),
        (("name: smoke", "name: [smoke"), "line 2, column 8: not YAML: expected ',' or ']'"),
        (("name:", "name: smoke\nname:"), "line 2, column 1: not YAML: name is given twice"),
        (("lora: {", "\tlora: {"), "line 20, column 1: not YAML: found character '\\t'"),
        (("smoke\n", "'smoke\n"), "while scanning a quoted scalar of line 1"),
        (("smoke\n", '"C:\\path"\n'), "line 1, column 11: not YAML: found unknown escape"),
        (("smoke\n", "smo\x07ke\n"), "line 1: not YAML: \\x07 is no character of a text"),
        (("\nseeds: [0, 1]", "\nseeds: [0, 1, 0]"), "seeds: 0 is given twice"),
        (("backbones: [", "backbones: [phantom_vit_s16, "),
         "backbones: phantom_vit_s16 is given twice"),
        (("clips: [", "clips: [phantom_clip_noisy, "), "phantom_clip_noisy is given twice"),
        (("map:\n    settings: [", "map:\n    settings: [clip_it, "),
         "studies.map.settings: clip_it is given twice"),
        (("own: {datasets: [", "own: {datasets: [phantom-pcam, "),
         "studies.own.datasets: phantom-pcam is given twice"),
        (("table7: {", "table7: {seeds: [1, 1]"), "studies.table7.seeds: 1 is given twice"),
        (("hidden: 16\n  seeds: [0, 1]", "hidden: 16\n  seeds: [1, 1]"),
         "survival.seeds: 1 is given twice"),
    ],
)  # fmt: skip
def test_a_wrong_profile_names_the_key(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "wrong.yaml"
    assert change[0] in SMOKE
    path.write_text(SMOKE.replace(*change, 1), encoding="utf-8")
    with pytest.raises(ClipItError) as caught:
        read_profile(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}, line ")


def test_a_value_without_quotes_is_what_is_wanted_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for written, rate in (("1e-4", 1e-4), ("1E5", 1e5), ("1e6", 1e6), (".5e3", 500.0), ("1", 1.0)):
        path.write_text(SMOKE.replace("epochs: 5", f"learning_rate: {written}"), encoding="utf-8")
        assert read_profile(path).probe.learning_rate == rate
    for name in ("0", "no", "on", "1e3", "007", "2020-1-2", "1:30", "null", "2020-01-01", "'true'"):
        path.write_text(
            SMOKE.replace("name: smoke", f"name: {name}").replace("phantom-colon", name)
            + f"training_for:\n  phantom-crc: {{precision: no, augment: {'yes'}}}\n",
            encoding="utf-8",
        )
        profile, text = read_profile(path), name.strip("'")
        assert profile.name == profile.data["phantom-crc"].corpus == text
        assert text in profile.corpora and "phantom-colon" not in profile.corpora
        crc = profile.training_for["phantom-crc"]
        assert (crc.precision, crc.augment) == ("no", True)
    assert plain("[1e-4, no, 7]", "here") == [1e-4, False, 7]


def test_unknown_profile_lists_the_known() -> None:
    with pytest.raises(ClipItError, match=r"unknown profile 'nope'.*demo.*pilot.*smoke"):
        load_profile("nope")


def test_profiles_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_profile("smoke").name = "other"  # type: ignore[misc]


def spec(bench: Workbench, setting: str = "clip_it", seed: int = 0, **changes: object):
    return specs.resolve(bench, "phantom-crc", "phantom_vit_s16", setting, seed, **changes)


def test_the_key_follows_what_changes_a_result(bench: Workbench) -> None:
    base = spec(bench)
    assert base.key == spec(bench).key
    others = [
        spec(bench, seed=1),
        spec(bench, "lora_only"),
        spec(bench, distillation_weight=0.5),
        spec(bench, label_noise=0.3),
        spec(bench, labels_per_class=5),
        spec(bench, "clip_it/random_reports"),
        spec(bench, "clip_it/architecture_only"),
        *(spec(bench, f"lora_only/{brake}") for brake in BRAKES),
    ]
    assert len({base.key, *(other.key for other in others)}) == 8 + len(BRAKES)


BRAKES: dict[str, dict[str, object]] = {
    "smoothing_5": {"smoothing": 0.05},
    "mixup_0.2": {"mixup": 0.2},
    "averaged_90": {"averaged": 0.9},
    "self_distilled": {"target": "soft_labels", "distillation_weight": 1.0},
    "self_distilled/lambda_3": {"target": "soft_labels", "distillation_weight": 3.0},
    "smoothing_10/label_noise_40": {"smoothing": 0.1, "label_noise": 0.4},
    "mixup_0.1/averaged_80/labels_5": {"mixup": 0.1, "averaged": 0.8, "labels_per_class": 5},
}


@pytest.mark.parametrize("brake", BRAKES)
def test_a_brake_changes_what_its_name_says(bench: Workbench, brake: str) -> None:
    plain, asked = spec(bench, "lora_only"), spec(bench, f"lora_only/{brake}")
    assert asked == plain.model_copy(update=BRAKES[brake] | {"setting": asked.setting})
    assert asked.text is None and asked.branch is None


def test_targets_and_their_weights_combine(bench: Workbench) -> None:
    for target in ("image", "noise"):
        asked = spec(bench, f"clip_it/{target}_target/lambda_3/label_noise_40")
        assert (asked.target, asked.distillation_weight, asked.label_noise) == (target, 3.0, 0.4)


@pytest.mark.parametrize(
    "setting",
    [
        "unimodal/smoothing_10", "contrastive/averaged_90", "text/mixup_0.2", "text/lambda_3",
        "clip_it/image_target/mixup_0.2", "clip_it/mixup_0.2", "lora_only/lambda_3",
        "lora_only/smoothing_10/protocol_released", "clip_it/switch_double_softmax/smoothing_10",
        "clip_it/architecture_only/lambda_3", "lora_only/averaged_0", "lora_only/averaged_100",
        "lora_only/mixup_0", "lora_only/smoothing_0", "clip_it/unlabelled_100",
        "lora_only/labels_5/unlabelled_100", "clip_it/soft_labels/labels_5/unlabelled_100",
        "clip_it/architecture_only/labels_5/unlabelled_100", "clip_it/labels_5/unlabelled_0",
        "clip_it/labels_5/unlabelled_101", "clip_it/smoothing_10/labels_5/unlabelled_100",
        "text/labels_5/unlabelled_100", "lora_only/pair_noise_20/label_noise_20",
        "clip_it/own_50/report_rank_2", "clip_it/random_reports/report_rank_2",
        "lora_only/own_50", "unimodal/report_rank_2", "lora_only/corpus_phantom-colon",
        "lora_only/word_dropout_30", "unimodal/long_text_chunk",
        "lora_only/retriever_phantom_clip_noisy", "clip_it/architecture_only/report_rank_2",
        "lora_only/passes_3", "text/labels_5/passes_3", "zero_shot/labels_5/passes_3",
        "clip_it/labels_5/unlabelled_50/passes_3", "lora_only/text_passes_3",
        "clip_it/image_target/text_passes_3", "clip_it/noise_target/long_text_chunk",
        "text/class_prompts_50", "lora_only/labels_5/passes_0", "clip_it/text_passes_0",
    ],
)  # fmt: skip
def test_a_part_of_a_name_that_can_do_nothing_is_refused(bench: Workbench, setting: str) -> None:
    with pytest.raises(ClipItError, match=f"setting '{setting}': .*can") as caught:
        specs.resolve(bench, "phantom-crc", "phantom_clip", setting, 0)
    assert "\n" not in str(caught.value)


def test_stored_runs_keep_their_names() -> None:
    """No default of the method changes, and a field that is added is None: not in the key."""
    own = {"kernels": "any", "dataset": "d", "data_hash": "0", "seed": 0}
    text = TextSpec(
        **own, retriever="r", retriever_hash="0", corpus="c", corpus_hash="0", pairing=Pairing(),
        training=TextStage(), lora=Lora(),
    )  # fmt: skip
    whole = RunSpec(
        **own, backbone="b", backbone_hash="0", setting="clip_it", pretraining=None,
        normalisation="own", probe=Probe(), adaptation="lora", lora=Lora(), training=Training(),
        protocol=PAPER, branch="late", text=text, distillation_weight=1.0,
    )  # fmt: skip
    switches = (whole.model_copy(update={"protocol": switched(name)}).key for name in SWITCHES)
    assert digest(*switches) == "5c9576e72ef5456a"
    assert (text.key, whole.key) == ("42a82e8f088d3e9e", "77c65c60fdc7d1e0")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Lora, {"dropout": 1.0}), (Lora, {"rank": 0}), (Lora, {"rank": "4"}),
        (Lora, {"ranks": 4}), (Descent, {"learning_rate": 0.0}),
        (Descent, {"learning_rate": float("inf")}), (Descent, {"weight_decay": -1e-9}),
        (PhantomPretraining, {"images": 1, "clip_epochs": 1, "vision_epochs": 1, "seed": -1}),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(kind: type[Strict], values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind(**values)


def test_a_setting_without_text_does_not_depend_on_the_text(bench: Workbench) -> None:
    for setting in ("unimodal", "lora_only"):
        resolved = spec(bench, setting)
        assert resolved.text is None and resolved.branch is None
        assert resolved.distillation_weight is None
    assert spec(bench, "unimodal").training is None


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (("liver", "phantom_vit_s16", "clip_it"), "unknown dataset 'liver'"),
        (("phantom-crc", "resnet", "clip_it"), "unknown backbone 'resnet'"),
        (("phantom-crc", "phantom_vit_s16", "magic"), "unknown setting 'magic'"),
    ],
)
def test_unknown_parts_are_named(bench: Workbench, cell: tuple[str, str, str], said: str) -> None:
    with pytest.raises(ClipItError, match=said):
        specs.resolve(bench, *cell, 0)


def test_an_encoder_not_trained_yet_is_said_before_anything_is_trained(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = specs.resolve(bench, "phantom-crc", "phantom_vit_b8", "clip_it", 0)
    for module, name in ((run, "probe"), (text, "_train"), (Inputs, "backbone")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("something began"))
    for perform in (runs.get_or_run, run.perform):
        with pytest.raises(
            ClipItError,
            match=r"encoder phantom_vit_b8 has not been trained yet\. Run notebook 00_encoders",
        ):
            perform(asked, Workbench(bench.profile, download=False))
    assert runs.find(bench.profile.name, asked.key) is None
    store = paths.runs(bench.profile.name)
    assert [path.name for path in store.glob(f"*{asked.key}*")] == [f".{asked.key}.lock"]


def test_where_each_value_comes_from(bench: Workbench) -> None:
    def of(setting: str, **changes: object) -> dict[str, str]:
        table = specs.origins(bench, spec(bench, setting, **changes))
        assert list(table.columns) == ["field", "value", "origin"] and table["field"].is_unique
        return dict(zip(table["field"], table["origin"], strict=True))

    usual = of("clip_it")
    assert set(usual.values()) == {"call", "setting", "profile", "default", "found"}
    expected = {
        "seed": "call", "backbone": "call", "setting": "call",
        "data_hash": "found", "text.corpus_hash": "found", "kernels": "found",
        "adaptation": "setting", "branch": "setting", "text.pairing.rank": "setting",
        "training.epochs": "profile", "text.training.epochs": "profile", "lora.rank": "profile",
        "text.lora.alpha": "profile", "text.retriever": "profile", "text.corpus": "profile",
        "pretraining.images": "profile",
        "training.batch_size": "default", "text.training.long_text": "default",
        "lora.dropout": "default", "distillation_weight": "default", "label_noise": "default",
        "protocol.checkpoint": "default", "normalisation": "default",
        "protocol.text_stage": "default", "text.stage": "default",
        "pretraining.learning_rate": "default",
    }  # fmt: skip
    assert {field: usual[field] for field in expected} == expected
    # The same values, each named by something else.
    assert of("clip_it/lambda_3")["distillation_weight"] == "setting"
    assert of("clip_it/lora_rank_2")["text.lora.rank"] == "setting"
    assert of("clip_it/retriever_phantom_clip_noisy")["text.retriever"] == "setting"
    assert of("clip_it/switch_double_softmax")["protocol.double_softmax"] == "setting"
    assert of("lora_only/labels_5")["labels_per_class"] == "setting"
    assert of("clip_it/class_prompts")["text.class_texts"] == "found"
    assert of("clip_it/class_prompts")["text.templates"] == "default"
    assert of("clip_it", distillation_weight=0.5)["distillation_weight"] == "call"
    released = Workbench(bench.profile.model_copy(update={"protocol": "released"}))
    table = specs.origins(released, spec(released)).set_index("field")["origin"]
    assert table["protocol.checkpoint"] == table["text.double_softmax"] == "profile"


def test_what_a_search_chose_comes_from_the_profile(bench: Workbench) -> None:
    chosen = Chosen(
        lora=Lora(rank=2),
        lora_targets="all",
        distillation_weight=0.3,
        found_with=FoundWith(trials=1, seeds=(9,), validation=1.0),
    )
    cells = {"phantom-crc": {"phantom_vit_s16": {"clip_it": chosen}}}
    tuned = Workbench(bench.profile.model_copy(update={"cells": cells}))
    table = specs.origins(tuned, spec(tuned)).set_index("field")["origin"]
    of_search = ["lora.rank", "text.lora.rank", "distillation_weight", "text.lora_targets"]
    assert set(table[of_search]) == {"profile"} and table["lora.alpha"] == "default"


def test_each_clip_is_asked_with_its_own_templates(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = load_profile("paper")
    asked = {name: paper.templates_of(name) for name in (*paper.retrievers, "plip")}
    assert asked == {"conch": "conch", "quiltnet": "quiltnet", "clip": "conch", "plip": "conch"}
    other = "phantom_clip_noisy"
    row = replace(registry.entry(other), templates="quiltnet")
    monkeypatch.setitem(registry.ENCODERS, other, row)

    def named(desk: Workbench, backbone: str, setting: str) -> tuple[str | None, str | None]:
        found = specs.resolve(desk, "phantom-pcam", backbone, setting, 0)
        by_prompts = found.contrastive or found.text
        assert by_prompts is not None
        return by_prompts.templates, by_prompts.wording

    conch, quiltnet = (("conch", wording("conch")), ("quiltnet", wording("quiltnet")))
    assert named(bench, "phantom_clip", "zero_shot") == conch
    assert named(bench, other, "zero_shot") == named(bench, other, "contrastive") == quiltnet
    assert named(bench, other, "text/prompts") == conch  # by the profile's retriever
    assert named(bench, "phantom_clip", f"text/prompts/retriever_{other}") == quiltnet
    told = Workbench(bench.profile.model_copy(update={"templates": "quiltnet"}))
    assert named(told, "phantom_clip", "zero_shot") == quiltnet
    with pytest.raises(ClipItError, match="unknown retriever 'phantom_vit_s16'"):
        named(told, "phantom_vit_s16", "zero_shot")
