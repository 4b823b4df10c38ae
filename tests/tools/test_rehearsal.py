"""A part of the rehearsal of `paper`, by its notebooks, and how it is told from results."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from clipit_lib import runs
from clipit_lib.encoders import registry
from clipit_lib.encoders.weights import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text
from companion import doctor, paths, rehearsal, rehearse, report, studies
from companion.__main__ import main
from companion.deploy import export
from companion.exported import load_classifier
from companion.measures import knn_purity
from companion.profile import Profile, Workbench, load_profile
from companion.survival.cohort import open_cohort

pytestmark = pytest.mark.slow
OURS = rehearsal.TABLE  # before `given` makes it smaller still
KEPT = {"data": ["pcam"], "corpora": ["tcga-breast"]}
PART = {
    "name": "part", "backbones": ["kaiko_vits16"], "retriever": "quiltnet", "clips": [],
    "training_for": {}, "studies": {"table2": {"backbones": ["quiltnet"]}},
    "survival": {"slides": {"source": "files", "bags": "bags", "clinical": "clinical.csv"},
                 "corpus": "tcga-breast"},
}  # fmt: skip
NOTEBOOKS: dict[str, dict[str, str]] = {
    "00_doctor": {}, "01_pairing": {"dataset": "pcam"}, "03_table1": {}, "04_table2_multimodal": {},
}  # fmt: skip


def run_notebook(name: str, **values: str) -> None:
    """All cells, in this process, with parameters injected as papermill does."""
    read = json.loads((paths.notebooks() / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "code"]
    cells.insert(1, "\n".join(["# Parameters", *(f"{k} = {v!r}" for k, v in values.items())]))
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    for source in cells:
        shell.run_cell(source, store_history=True).raise_error()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A copy of `paper` that has a part of its cells, as its rehearsal is named."""
    own = yaml.safe_load((paths.profiles() / "paper.yaml").read_text(encoding="utf-8"))
    own |= {part: {name: own[part][name] for name in names} for part, names in KEPT.items()}
    path = tmp_path_factory.mktemp("own") / "part.yaml"
    own["data"]["pcam"]["folder"] = str(path.parent / "nothing of the user is read or written")
    path.write_text(yaml.safe_dump(own | PART), encoding="utf-8")
    fewer = {"profile": rehearsal.TABLE.profile | {"seeds": [0]},
             "images": {"pcam": {"train": 8, "validation": 2, "test": 6}}}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "TABLE", rehearsal.TABLE.model_copy(update=fewer))
        (path.parent / "conch").mkdir()  # though it can be imported, no package
        patch.syspath_prepend(str(path.parent))
        assert main(["rehearse", "--profile", str(path)]) == 0
        patch.syspath_prepend(rehearsal.packages())
        patch.setenv("MPLBACKEND", "agg")
        yield f"{path}{rehearsal.SUFFIX}"


@pytest.fixture(scope="module")
def profile(given: str) -> Profile:
    return load_profile(given)


@pytest.fixture(scope="module")
def stored(given: str, profile: Profile) -> dict[tuple[str, str], runs.StoredRun]:
    """What the notebooks have run, by backbone and setting."""
    for name, values in NOTEBOOKS.items():
        run_notebook(name, profile=given, **values)
    return {(run.spec.backbone, run.spec.setting): run for run in runs.stored(profile.name)}


Found = dict[tuple[str, str], runs.StoredRun]


@pytest.mark.slow
def test_its_notebooks_run_and_meet_the_clip_in_all_five_roles(stored: Found) -> None:
    roles = {("quiltnet", name) for name in studies.TABLE2}
    settings = {("kaiko_vits16", name) for name in ("unimodal", "lora_only", "clip_it")}
    assert stored.keys() == settings | roles
    text = stored["kaiko_vits16", "clip_it"].spec.text
    assert text is not None and text.retriever == "quiltnet" and text.lora is not None
    for each in roles:
        assert stored[each].predictions().filter(like="logit").notna().all(axis=None)
    # Both halves of the contrastive one have learned.
    with (stored["quiltnet", "contrastive"].folder / runs.MODEL).open("rb") as file:
        names = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {n.split(".")[0] for n in names if "lora_B" in n} == {"image_tower", "text_tower"}


def test_the_doctor_finds_it_whole(profile: Profile) -> None:
    found = [*doctor.data(profile), *doctor.reports(profile), *doctor.slides(profile)]
    found += doctor.models(profile)
    assert len(found) > 5 and not [each for each in found if each.severity is doctor.FAIL]


def test_nothing_can_take_it_for_results(stored: Found, profile: Profile) -> None:
    assert (profile.name, profile.depth) == ("part-rehearsal", rehearsal.TABLE.depth)
    for run in stored.values():
        assert run.spec.depth == 1 and (run.spec.text is None or run.spec.text.depth == 1)
        assert run.key != run.spec.model_copy(update={"depth": None}).key
        assert rehearsal.MARK in json.loads((run.folder / runs.CARD).read_text())["limits"]
    for name in ("table1", "table2"):
        assert rehearsal.MARK in (paths.tables(profile.name) / f"{name}.md").read_text()
        picture = paths.figures(profile.name) / f"{name}.svg"
        assert "A rehearsal, no result." in picture.read_text()
    executed = paths.results(profile.name) / "notebooks" / "03_table1.ipynb"
    write_text(executed, (paths.notebooks() / executed.name).read_text(encoding="utf-8"))
    page = report.page(profile)
    assert "<h1>A rehearsal, no result. A companion" in page and "numbers mean nothing" in page


def test_a_run_of_it_is_deployed(stored: Found, profile: Profile, tmp_path: Path) -> None:
    images = Workbench(profile).dataset("pcam").pixels[:2]
    for cell in (("kaiko_vits16", "clip_it"), ("quiltnet", "zero_shot")):
        folder = export(stored[cell], tmp_path / cell[0], onnx=False)
        assert load_classifier(folder).probabilities(images).shape == (2, 2)
        assert rehearsal.MARK in next(folder.glob("*.md")).read_text()


def test_neither_its_data_nor_its_weights_pass_for_real_ones(profile: Profile) -> None:
    small = profile.data["pcam"]
    assert not list(small.problems())
    assert len(small.open("pcam").samples) == 16
    real = small.model_copy(update={"rehearsal": None})  # its cache is not that of the miniature
    with pytest.raises(ClipItError, match=r"not the published PCAM \(8 train images, expected 262"):
        real.open("pcam")
    for name, place in profile.weights.items():
        with pytest.raises(ClipItError, match="does not fit"):
            registry.load_backbone(name, Sources(copies={name: place}))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("plip", 512),
        ("conch", 512),
        ("kaiko_vitl14", 1024),
        ("h0_mini", 768),
        ("pathgen_clip", 512),
        ("keep", 768),
    ],
)
def test_other_models_have_their_authors_layout(
    given: str, name: str, width: int, tmp_path: Path
) -> None:
    path = tmp_path / registry.published()[name].file
    rehearse.write_weights(path, name)
    sources = Sources(copies={name: str(path)}, depth=1)
    encoder = registry.load_backbone(name, sources)
    side = encoder.transform.size
    with torch.inference_mode():
        assert encoder.model(torch.rand(1, 3, side, side)).shape == (1, width)
        if registry.entry(name).text_targets:
            clip = registry.load_clip(name, sources)
            ids = clip.tokenizer.windows(["a gland " * 90], "truncate").ids
            assert clip.text_tower(ids).shape == (1, width)


def test_slides_are_made_where_survival_is_asked_for(given: str, profile: Profile) -> None:
    cohort = open_cohort(profile)
    assert len(cohort) == rehearsal.TABLE.slides and cohort.folds == [1, 2]
    assert cohort.retriever[0].shape == (rehearsal.TABLE.patches, 512)


def test_its_test_patches_have_the_neighbours_that_are_asked_for() -> None:
    shown = studies.cells(load_profile(f"paper{rehearsal.SUFFIX}"), "tsne")[0][0]
    neighbours = inspect.signature(knn_purity).parameters["k"].default
    assert OURS.images[shown]["test"] > neighbours


def test_what_is_not_published_is_not_rehearsed() -> None:
    with pytest.raises(ClipItError, match=r"profile smoke: no miniature of phantom-pcam"):
        load_profile("smoke-rehearsal")
