"""Profiles and run keys: strict, frozen, and sensitive to what matters."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from clipit_lib import paths, run, runs, text
from clipit_lib.errors import ClipItError
from clipit_lib.inputs import Inputs
from companion import specs
from companion.profile import Workbench, load_profile, read_profile

SMOKE = (Path(__file__).parent.parent / "profiles" / "smoke.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(p.stem for p in paths.profiles().glob("*.yaml")))
def test_every_profile_reads_and_names_known_parts(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert {settings.corpus for settings in profile.data.values()} <= set(profile.corpora)
    assert set(profile.settings) <= set(specs.SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seeds: [0, 1]", "seeds: [0, one]"), r"seeds\.1: Input should be a valid integer"),
        (("retriever:", "retreiver:"), r"retriever: Field required|retreiver: Extra inputs"),
        (("epochs: 5", "epochs: 0"), r"probe\.epochs: Input should be greater than 0"),
        (("world: pcam", "world: liver"), r"world: Input should be 'pcam', 'bach' or 'crc'"),
        (("name: smoke", "name: [smoke"), "not YAML"),
    ],
)
def test_a_wrong_profile_names_the_key(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(SMOKE.replace(*change), encoding="utf-8")
    with pytest.raises(ClipItError, match=said) as caught:
        read_profile(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


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
    ]
    assert len({base.key, *(other.key for other in others)}) == 8


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
            perform(asked, bench)
    assert runs.find(bench.profile.name, asked.key) is None
    store = paths.runs(bench.profile.name)
    assert [path.name for path in store.glob(f"*{asked.key}*")] == [f".{asked.key}.lock"]
