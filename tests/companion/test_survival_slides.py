"""Bags and cohorts as they are read, and phantom slides with their planted hazard."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from clipit_lib.encoders import registry
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest
from companion import paths
from companion.__main__ import main
from companion.profile import FileSlides, PhantomSlides, Workbench
from companion.survival import cohort as slides_of
from companion.survival import fold_metrics
from companion.survival.cohort import (
    SLIDES,
    Bag,
    Cohort,
    draw_slides,
    open_cohort,
    phantom_name,
    pixels,
    read_bag,
    read_cohort,
    write_bag,
)
from companion.survival.model import c_index

Change = Callable[[pd.DataFrame], pd.DataFrame]


def bag(seed: int = 0, patches: int = 5, width: int = 4) -> Bag:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((patches, width)).astype(np.float32)
    return Bag(features, rng.standard_normal((patches, 3)).astype(np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six slides in two folds, in both kinds of files."""
    (tmp_path / "bags").mkdir()
    for number in range(6):
        path, each = tmp_path / "bags" / f"s{number}", bag(number, patches=3 + number)
        if number % 2:
            write_bag(path.with_suffix(".h5"), each)
        else:
            save_file(each.arrays(), path.with_suffix(".safetensors"))
    clinical = pd.DataFrame({
        "slide": [f"s{n}" for n in range(6)], "time": [1, 2.5, 3, 4, 5, 6],
        "event": [1, 0, 1, 1, 0, 1], "fold": [1, 1, 1, 2, 2, 2], "note": "not read",
    })  # fmt: skip
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    return tmp_path


def reread(folder: Path, folds: int = 2, most: int | None = None) -> Cohort:
    return read_cohort(folder / "bags", folder / "clinical.csv", folds, most)


def rewrite(folder: Path, change: Change) -> None:
    """Change the clinical table; its cells are text."""
    path = folder / "clinical.csv"
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def rename(folder: Path, names: list[str]) -> None:
    """Call the slides something else, files and rows."""
    for number, name in enumerate(names):
        (path,) = (folder / "bags").glob(f"s{number}.*")
        path.rename(path.with_name(name + path.suffix))
    rewrite(folder, lambda t: t.assign(slide=names))


def test_a_cohort_is_read_as_it_was_written(folder: Path) -> None:
    cohort = reread(folder)
    assert cohort.folds == [1, 2]
    assert cohort.clinical["event"].tolist() == [True, False, True, True, False, True]
    assert cohort.clinical["time"].tolist() == [1, 2.5, 3, 4, 5, 6]
    for number, each in enumerate(cohort.bags):
        np.testing.assert_array_equal(each.features, bag(number, 3 + number).features)
        np.testing.assert_array_equal(each.retriever, bag(number, 3 + number).retriever)


def test_of_a_large_slide_patches_are_kept_evenly_and_in_pairs(folder: Path) -> None:
    cohort = reread(folder, most=4)
    assert "Slides of 4 patches or more, of which 4 are read: 5." in cohort.limits
    kept = cohort.bags[5]  # of 8 patches
    np.testing.assert_array_equal(kept.features, bag(5, 8).features[::2])
    np.testing.assert_array_equal(kept.retriever, bag(5, 8).retriever[::2])


def test_the_hash_follows_the_content_and_not_the_kind_of_file(folder: Path) -> None:
    before = reread(folder).content_hash
    (folder / "bags" / "s0.safetensors").unlink()
    write_bag(folder / "bags" / "s0.h5", bag(0, 3))
    assert reread(folder).content_hash == before
    write_bag(folder / "bags" / "s0.h5", bag(99, 3))
    assert reread(folder).content_hash != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns=["time", "fold"]), "no column time, fold"),
        (lambda t: t.assign(time=[1, 2, -3, 4, 5, 6]), "time '-3' of slide 's2'"),
        (lambda t: t.assign(time=[1, None, 3, 4, 5, 6]), "time '' of slide 's1'"),
        (lambda t: t.assign(time=["1", "soon", "3", "4", "5", "6"]), "time 'soon' of slide 's1'"),
        (lambda t: t.assign(event=[1, 0, 2, 1, 0, 1]), "event '2' of slide 's2'"),
        (lambda t: t.assign(fold=[1, 1, 1, 2, 2, 3]), "fold '3' of slide 's5'.*Known: 1, 2"),
        (lambda t: t.assign(fold=[1, 1, None, 2, 2, 2]), "fold '' of slide 's2'"),
        (lambda t: t.assign(event=[1, 0, 1, 0, 0, 0]), "no event in fold 2"),
        (lambda t: t.assign(slide=["s0", "s1", "s1", "s3", "s4", "s5"]), "slide 's1'.*once"),
        (lambda t: t.assign(slide=["s0", "s1", "gone", "s3", "s4", "s5"]), "no gone.h5 or gone"),
        (lambda t: t.iloc[:0], "no slides"),
        (lambda t: t.assign(time=["1", "2", "inf", "4", "5", "6"]), "time 'inf' of slide 's2'"),
        (lambda t: t.assign(time=["1", "1e39", "3", "4", "5", "6"]), "time '1e39' of slide 's1'"),
        (lambda t: t.assign(event=[1, "", 1, 1, 0, 1]), "event '' of slide 's1' .row 2."),
        (lambda t: t.assign(event=[1, 0, 1, "yes", 0, 1]), "event 'yes' of slide 's3'"),
        (lambda t: t.assign(slide=["s0", "s1", " s1", "s3", "s4", "s5"]), "slide 's1'.*once"),
        (lambda t: t.assign(**{"time ": 1}), "more than one column time"),
        (lambda t: t.assign(patient=[*"abcade"], time=1, event=1), "patient 'a' has fold 1, 2"),
        (lambda t: t.assign(patient=[*"aabcde"]), "patient 'a' has time 1.0, 2.5"),
        (lambda t: t.assign(patient=[*"aabcde"], time=1), "patient 'a' has event True, False"),
        (lambda t: t.assign(patient=["a", "b", " ", "c", "d", "e"]), "patient '' of slide 's2'"),
    ],
)
def test_a_wrong_csv_is_one_line(folder: Path, change: Change, said: str) -> None:
    rewrite(folder, change)
    with pytest.raises(ClipItError, match=said) as caught:
        reread(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": np.zeros((3, 7))}, "widths .*7"),
        ({"feats": np.zeros((3, 4))}, "no 'features'"),
        ({"features": np.zeros(4), "retriever": np.zeros((4, 3))}, r"float64 of shape \[4\]"),
        ({"features": np.zeros((0, 4))}, r"shape \[0, 4\]"),
        ({"features": np.zeros((3, 4)), "retriever": np.zeros((2, 3))}, "retriever has 2 patches"),
        ({"features": np.full((3, 4), np.nan)}, "NaN"),
        ({"features": np.full((3, 4), 1e300)}, "features holds .* what float32 cannot hold"),
        ({"features": np.full((3, 4), b"1.0")}, "features is .S3 of shape"),
        ({"features": np.array(1.0)}, r"features is float64 of shape \[\]"),
        ({"features": np.zeros((3, 4)), "coords": np.zeros((3, 2))}, "widths {'features': 4}"),
    ],
)
def test_a_wrong_bag_is_one_line(folder: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with h5py.File(folder / "bags" / "s3.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    with pytest.raises(ClipItError, match=said) as caught:
        reread(folder)
    assert "\n" not in str(caught.value) and "s3.h5" in str(caught.value)


def test_a_patient_is_one_row_and_one_bag_of_all_its_slides(folder: Path) -> None:
    rewrite(folder, lambda t: t.assign(
        patient=["x", "y", "y", "z", "x ", "x"], time=[1, 3, 3, 2, 1, 1], event=1,
        fold=[1, 1, 1, 2, 1, 1],
    ))  # fmt: skip
    cohort = reread(folder)
    assert cohort.clinical.to_dict("list") == {
        "slide": ["s0;s4;s5", "s1;s2", "s3"], "time": [1, 3, 2], "event": [True] * 3,
        "fold": [1, 1, 2], "patient": ["x", "y", "z"],
    }  # fmt: skip
    for name in ("features", "retriever"):
        parts = [getattr(bag(n, 3 + n), name) for n in (0, 4, 5)]
        np.testing.assert_array_equal(getattr(cohort.bags[0], name), np.concatenate(parts))
    assert "6 slides of 3 patients" in cohort.limits
    before = cohort.content_hash
    rewrite(folder, lambda t: t.assign(patient=["x", "y", "y", "w", "x", "x"]))
    assert reread(folder).content_hash != before


def test_a_patient_counts_once_in_the_c_index(folder: Path) -> None:
    rewrite(folder, lambda t: t.assign(
        patient=["x", "x", "x", "y", "z", "w"], time=[1, 1, 1, 2, 3, 4], event=1,
        fold=[1, 1, 1, 1, 1, 2],
    ))  # fmt: skip
    found = fold_metrics(reread(folder).clinical.assign(log_risk=[1.0, 2.0, 0.0, 0.0]))
    # Of x-y, x-z and y-z the first is wrong; slide by slide it would be 4 of 7.
    assert found["c_index"].tolist() == pytest.approx([2 / 3, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["TCGA-A1-0001-01Z-DX1", "TCGA-A1-0001-01Z-DX2", "TCGA-A1-0002-01Z-00-DX1",
          "TCGA-A1-0001-11A", "TCGA-A1-0003-DX1", "TCGA-A1-0003-DX2"],
         "Of 6 slides 5 look like those of 2 patients** (such as TCGA-A1-0001), 1 of whom"),
        (["P1_1", "P1_2", "P2-HE", "P3 1", "P4", "P5"],
         "Of 6 slides 2 look like those of 1 patients** (such as P1), 0 of whom"),
        (["slide_01", "slide_02", "slide_03", "2021-0001", "2021-0002", "2021-0003"], ""),
    ],
)  # fmt: skip
def test_slides_that_look_like_one_patient_are_counted(
    folder: Path, names: list[str], said: str
) -> None:
    rename(folder, names)
    limits = reread(folder).limits
    assert said in limits and ("patient" in limits) == (said != "")
    rewrite(folder, lambda t: t.assign(patient=[*"abcdef"]))
    assert "look like" not in reread(folder).limits


def test_bags_that_are_equal_are_named(folder: Path) -> None:
    assert "equal" not in reread(folder).limits
    (folder / "bags" / "s5.h5").write_bytes((folder / "bags" / "s1.h5").read_bytes())
    assert "equal another one's**: s1, s5." in reread(folder).limits


def test_what_is_not_used_is_named(folder: Path) -> None:
    write_bag(folder / "bags" / "more.h5", bag())
    rewrite(folder, lambda t: t.assign(Centre="p", age=50))
    said = reread(folder).limits
    assert "clinical.csv that are not used: note, Centre, age." in said
    assert "Bags without a row in clinical.csv that are not used: 1." in said


@pytest.mark.parametrize("name", ["Patient_ID", "case_submitter_id", "subject"])
def test_patients_under_another_name_are_not_passed_over(folder: Path, name: str) -> None:
    rewrite(folder, lambda t: t.assign(**{name: "p"}))
    with pytest.raises(ClipItError, match=f"column {name} may name patients .* Call it `patient`"):
        reread(folder)
    rewrite(folder, lambda t: t.assign(**{name: t["slide"]}))
    assert f"that are not used: note, {name}" in reread(folder).limits


def test_names_are_compared_without_blanks_and_in_one_form(folder: Path) -> None:
    whole, apart = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    assert whole != apart
    rename(folder, ["007", "7", "NA", whole, "s4.svs", "1e5"])
    expected = reread(folder)
    assert expected.clinical["slide"].tolist() == ["007", "7", "NA", whole, "s4.svs", "1e5"]
    rewrite(folder, lambda t: t.assign(
        slide=[" 007", "7 ", "NA", apart, "s4.svs", "\t1e5\u200b"], fold=" " + t["fold"]
    ).rename(columns={"slide": " slide", "time": "Time "}))  # fmt: skip
    assert reread(folder).content_hash == expected.content_hash
    (folder / "bags" / f"{whole}.h5").rename(folder / "bags" / f"{apart}.H5")
    assert reread(folder).content_hash == expected.content_hash


def test_a_slide_has_one_file(folder: Path) -> None:
    rename(folder, ["007", "s1", "s2", "s3", "s4", "s5"])
    rewrite(folder, lambda t: t.assign(slide=["7", *t["slide"][1:]]))
    with pytest.raises(ClipItError, match=r"no 7\.h5 or .*'007' is there.* lost its zeros"):
        reread(folder)
    rewrite(folder, lambda t: t.assign(slide=["007", *t["slide"][1:]]))
    write_bag(folder / "bags" / "s2.h5", bag())
    with pytest.raises(ClipItError, match=r"s2\.h5 and s2\.safetensors of one slide\. Keep one"):
        reread(folder)


def test_damaged_or_missing_files_are_one_line(folder: Path) -> None:
    (folder / "bags" / "s3.h5").write_bytes(b"not a bag")
    with pytest.raises(ClipItError, match="damaged"):
        read_bag(folder / "bags" / "s3.h5")
    with pytest.raises(ClipItError, match="no such folder"):
        read_cohort(folder / "nowhere", folder / "clinical.csv", 2)
    with pytest.raises(ClipItError, match="no such file"):
        read_cohort(folder / "bags", folder / "nowhere.csv", 2)


def concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    return c_index(np.ones((1, len(risk)), int), risk, time, event)[0]


def phantom(**changes: object) -> PhantomSlides:
    values = {"source": "phantom", "slides": 600, "patches": 2, "backbone": "phantom_vit_s16"}
    return PhantomSlides(**(values | changes))  # type: ignore[arg-type]


def test_the_planted_risk_orders_the_slides_and_a_shuffled_one_does_not() -> None:
    slides = draw_slides(phantom(), 5)
    time, event = slides.clinical["time"].to_numpy(), slides.clinical["event"].to_numpy(bool)
    # For log hazards of standard deviation 1, P(the higher hazard comes first) is
    # E[sigmoid(|difference|)], difference ~ N(0, 2); censoring hardly changes it.
    difference = np.abs(np.random.default_rng(0).normal(0, np.sqrt(2), 100_000))
    expected = (1 / (1 + np.exp(-difference))).mean()
    assert concordance(slides.log_hazard, time, event) == pytest.approx(expected, abs=0.03)
    shuffled = np.random.default_rng(1).permutation(slides.log_hazard)
    assert concordance(shuffled, time, event) == pytest.approx(0.5, abs=0.04)


def test_without_a_planted_effect_aggressiveness_says_nothing() -> None:
    none = draw_slides(phantom(beta=0.0), 5)
    time, event = none.clinical["time"].to_numpy(), none.clinical["event"].to_numpy(bool)
    aggressiveness = draw_slides(phantom(beta=1.0), 5).log_hazard
    assert (none.log_hazard == 0).all()
    assert concordance(aggressiveness, time, event) == pytest.approx(0.5, abs=0.04)


def test_censoring_and_folds_are_as_asked() -> None:
    clinical = draw_slides(phantom(censored=0.35), 5).clinical
    assert 1 - clinical["event"].mean() == pytest.approx(0.35, abs=0.05)
    seen = clinical.groupby("fold")["event"].agg(["sum", "size"])
    assert sorted(seen.index) == [1, 2, 3, 4, 5]
    assert np.ptp(seen["sum"]) <= 1 and np.ptp(seen["size"]) <= 1
    assert draw_slides(phantom(censored=0.0), 5).clinical["event"].all()


def test_aggressive_slides_look_aggressive() -> None:
    slides = draw_slides(phantom(patches=10), 5)
    latents, risk = slides.latents, np.repeat(slides.log_hazard, 10)
    for name, sign in (("invasion", 1), ("pleomorphism", 1), ("fat", -1)):
        assert sign * np.corrcoef(getattr(latents, name), risk)[0, 1] > 0.2, name
    assert abs(np.corrcoef(latents.haematoxylin, risk)[0, 1]) < 0.1  # stain says nothing


def test_slides_come_from_a_seed_stream_of_their_own() -> None:
    from companion.phantom.latents import WORLDS, draw_dataset
    from companion.phantom.reports import PRETRAINING, REPORTS

    assert SLIDES not in (PRETRAINING, REPORTS, *range(len(WORLDS)))
    slides = draw_slides(phantom(slides=10, patches=4), 5)
    data, _ = draw_dataset("bach", 40, 40, 40, seed=0)
    assert not set(slides.latents.patient) & set(data.patient)
    assert not set(slides.latents.cellularity) & set(data.cellularity)


def test_a_slide_is_drawn_alike_alone_and_among_others() -> None:
    settings = phantom(slides=3, side=32)
    slides = draw_slides(settings, 2)
    first, second = (pixels(slides, settings, 2) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 32, 32, 3) and (first != pixels(slides, settings, 1)).any()


def test_phantom_slides_are_named_by_what_they_are_made_from(bench: Workbench) -> None:
    settings, cohort = bench.profile.survival, open_cohort(bench.profile)
    assert settings is not None and cohort.content_hash == phantom_name(bench.profile)
    made = paths.cache() / "slides" / f"phantom-{cohort.content_hash}" / "made.json"
    assert digest(canonical_json(json.loads(made.read_text()))) == cohort.content_hash

    def name(retriever: str = bench.profile.retriever, **changes: object) -> str:
        survival = settings.model_copy(update=changes)
        return phantom_name(
            bench.profile.model_copy(update={"survival": survival, "retriever": retriever})
        )

    others = [
        name("phantom_clip_noisy"), name(folds=4),
        name(slides=settings.slides.model_copy(update={"seed": 9})),
    ]  # fmt: skip
    assert len({cohort.content_hash, *others}) == 4
    assert name(hidden=99, seeds=(9,)) == cohort.content_hash  # of the model alone


Patches = np.ndarray


@pytest.fixture
def tiles(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patches:
    """Folders of 3, 2 and 2 tiles, a clinical table, and a profile that says where bags lie."""
    own = FileSlides(source="files", bags=str(tmp_path / "bags"), clinical=str(tmp_path / "c.csv"))
    survival = bench.profile.survival.model_copy(update={"slides": own, "folds": 2})
    profile = bench.profile.model_copy(update={"survival": survival})
    monkeypatch.setattr(slides_of, "load_profile", lambda name: profile)
    pixels = np.array(bench.dataset("phantom-pcam").pixels[:7])
    for number, patch in enumerate(pixels):
        folder = tmp_path / "tiles" / f"s{(0, 0, 0, 1, 1, 2, 2)[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patch).save(folder / f"{number}.png")
    clinical = pd.DataFrame({"slide": ["s0", "s1", "s2"], "time": [3, 2, 1], "event": 1,
                             "fold": [1, 2, 2]})  # fmt: skip
    clinical.to_csv(tmp_path / "c.csv", index=False)
    return pixels


def embedded(bench: Workbench, pixels: Patches) -> list[Patches]:
    """By the profile's first backbone and its retriever's image half, one model after the other."""
    backbone = registry.load_backbone(bench.profile.backbones[0], bench.sources)
    pairs = ((backbone.model.eval(), backbone.transform),
             (bench.clip.image_tower, bench.clip.transform))  # fmt: skip
    with torch.inference_mode():
        return [model(transform(pixels)).numpy() for model, transform in pairs]


def test_folders_of_tiles_become_the_bags_that_a_cohort_is_read_from(
    bench: Workbench, tiles: Patches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiles" / "s1" / "notes.txt").write_text("of the scanner")
    command = ["bags", str(tmp_path / "tiles"), "-p", "own"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "3 of 3 slides made in" in said.out and "1 files passed over" in said.err
    found = open_cohort(slides_of.load_profile("own"))
    assert [len(each.features) for each in found.bags] == [3, 2, 2]
    bags = Bag.joined(found.bags)
    for ours, expected in zip((bags.features, bags.retriever), embedded(bench, tiles), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    # What is there is kept, also where a later slide cannot be read; that one has no file.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bags").iterdir()}
    (tmp_path / "tiles" / "s3").mkdir()
    (tmp_path / "tiles" / "s3" / "0.png").write_bytes(b"cut")
    assert main(command) == 2
    said = capsys.readouterr()
    assert ", 3 were there" in said.out and "not a readable image" in said.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bags").iterdir()} == before
    # Bags of other encoders are not mixed with these.
    assert main([*command, "--backbone", bench.profile.retriever]) == 2
    assert "s0.h5: made otherwise than is asked for" in capsys.readouterr().err


def test_a_large_image_becomes_a_bag_of_its_tiles(
    bench: Workbench, tiles: Patches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    side = tiles.shape[1]
    glass = np.full((side, side, 3), 250, np.uint8)
    Image.fromarray(np.hstack([*tiles[:2], glass, tiles[2]])).save(tmp_path / "s0.png")
    command = ["bags", str(tmp_path / "s0.png"), "-p", "own", "--tiles", str(side)]
    assert main(command) == 0
    assert "s0.png: 4 tiles" in capsys.readouterr().err
    bag = read_bag(tmp_path / "bags" / "s0.h5")
    np.testing.assert_allclose(bag.features, embedded(bench, tiles[:3])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["bags"], "no folder of tiles"),
        (["tiles/s0/0.png"], "Add --tiles SIDE"),
        (["tiles", "again"], "two slides are called 's0'"),
        (["tiles", "--mpp", "0.5"], "Add --tiles SIDE"),
    ],
)
def test_what_is_no_slide_is_said_in_a_line(
    tiles: Patches, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, given, said
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "tiles")
    assert main(["bags", *given, "-p", "own"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("error: ")
    assert not (tmp_path / "bags").exists()
