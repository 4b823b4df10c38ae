"""What others' tools read of a folder of results is valid, complete and of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from clipit_lib.files import file_digest
from clipit_lib.paths import repository
from companion import archived, provenance
from companion.__main__ import main

RESULTS = repository() / "results"
PROFILES = sorted(path.parent.name for path in RESULTS.glob(f"*/{archived.PREDICTIONS}"))
NEEDED = "requirements-provenance.lock is not installed"


def graph(profile: str) -> dict[str, dict[str, Any]]:
    held = json.loads((RESULTS / profile / provenance.CRATE).read_text(encoding="utf-8"))
    return {each["@id"]: each for each in held["@graph"]}


def linked_to(folder: Path, source: Path) -> Path:
    """A folder of results whose files are those of another, so that what is written is apart."""
    (folder / "tables").mkdir(parents=True)
    for path in [*source.glob("*.*"), *source.glob("tables/*")]:
        (folder / path.relative_to(source)).symlink_to(path)
    return folder


@pytest.mark.parametrize("profile", PROFILES)
def test_the_committed_descriptions_are_what_the_command_writes(
    profile: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = linked_to(tmp_path / "results" / profile, RESULTS / profile)
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    assert main(["provenance", "--profile", profile]) == 0
    for name in (f"{profile}/{provenance.CROISSANT}", f"{profile}/{provenance.CRATE}", "sbom.json"):
        again, held = folder.parent / name, RESULTS / name
        assert again.read_bytes() == held.read_bytes(), f"python -m companion provenance: {name}"
        assert not again.is_symlink() and held.stat().st_size < 200_000


@pytest.mark.parametrize("profile", PROFILES)
def test_a_crate_lists_every_file_with_its_checksum_and_who_made_it(profile: str) -> None:
    held = graph(profile)
    files = {name: each for name, each in held.items() if each["@type"] == "File"}
    tables = {f"tables/{path.name}" for path in (RESULTS / profile / "tables").iterdir()}
    assert tables | {archived.PREDICTIONS, archived.RUNS, "report.html"} <= set(files)
    for name, each in files.items():
        path = RESULTS / profile / name
        assert (each["sha256"], int(each["contentSize"])) == (
            file_digest(path), path.stat().st_size,
        )  # fmt: skip
    by = {
        file["@id"]: held[action["instrument"][0]["@id"]]["name"]
        for action in held.values()
        if action["@type"] == "CreateAction"
        for file in action["result"]
    }
    assert set(by) == set(files)
    expected = {"tables/table1_tests.md": "notebooks/03_table1.ipynb",
                "tables/inference_cost.csv": "notebooks/12_inference_cost.ipynb",
                "runs.csv": "companion collect"}  # fmt: skip
    assert {name: by[name] for name in expected} == expected
    listed = yaml.safe_load((repository() / "codecheck.yml").read_text(encoding="utf-8"))
    here = f"results/{profile}/"
    checked = {each["file"]: each["sha256"] for each in listed["manifest"]}
    ours = {here + name: each["sha256"] for name, each in files.items()}
    of_profile = {name for name in checked if name.startswith(here)}
    assert of_profile and {name: ours[name] for name in of_profile} == {
        name: checked[name] for name in of_profile
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_a_crate_is_one_to_its_own_library(profile: str) -> None:
    rocrate = pytest.importorskip("rocrate.rocrate", reason=NEEDED)
    read = rocrate.ROCrate(RESULTS / profile)
    files = [each for each in read.data_entities if each.type == "File"]
    assert len(files) > 30 and all((RESULTS / profile / each.id).is_file() for each in files)
    (licence,), (paper,) = read.root_dataset["license"], read.root_dataset["citation"]
    assert licence.id == "https://spdx.org/licenses/MIT" and "2504.16181" in paper.id
    software = {each["name"]: each["softwareVersion"]
                for each in read.get("#clipit-companion")["softwareRequirements"]}  # fmt: skip
    assert software["torch"].startswith("2.")


# Of its own libraries: rdflib, and pandas as it is called there.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index is deprecated")
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_croissant_is_valid_and_gives_the_rows_of_the_files() -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason=NEEDED)
    folder = RESULTS / "demo"
    data = mlcroissant.Dataset(folder / provenance.CROISSANT)
    assert data.metadata.ctx.issues.report() == ""
    for name in (archived.RUNS, archived.PREDICTIONS, archived.RISKS):
        stem = name.partition(".")[0]
        row = next(iter(data.records(stem)))
        frame = pd.read_csv(folder / name) if name.endswith("csv") else None
        first = (pd.read_parquet(folder / name) if frame is None else frame).iloc[0]
        assert list(row) == [f"{stem}/{column}" for column in first.index]
        for column, value in first.items():
            found = row[f"{stem}/{column}"]
            assert (found.decode() if isinstance(found, bytes) else found) == value


def test_the_bill_of_materials_is_valid_cyclonedx() -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason=NEEDED)
    schema = pytest.importorskip("cyclonedx.schema").SchemaVersion.V1_6
    text = (RESULTS / provenance.SBOM).read_text(encoding="utf-8")
    assert validation.JsonStrictValidator(schema).validate_str(text) is None
    torch = next(each for each in json.loads(text)["components"] if each["name"] == "torch")
    assert torch["purl"] == f"pkg:pypi/torch@{torch['version']}"


def test_every_column_that_a_list_of_runs_may_have_is_described() -> None:
    assert {*archived.LISTED, archived.BY} <= set(provenance.KNOWN["columns"])


def test_results_of_ones_own_data_need_a_licence_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    smoke = (repository() / "profiles" / "smoke.yaml").read_text(encoding="utf-8")
    mine.write_text(smoke.replace("name: smoke", "name: mine"), encoding="utf-8")
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    command = ["provenance", "--profile", str(mine)]
    assert main(command) == 2 and "there is no runs.csv" in capsys.readouterr().err
    folder = linked_to(tmp_path / "results" / "mine", RESULTS / "demo")
    assert main(command) == 2 and "--licence" in capsys.readouterr().err
    assert main([*command, "--licence", "CC-BY-4.0"]) == 0
    assert "https://spdx.org/licenses/CC-BY-4.0" in capsys.readouterr().out
    crate = json.loads((folder / provenance.CRATE).read_text(encoding="utf-8"))["@graph"]
    (root,) = [each for each in crate if each["@id"] == "./"]
    assert root["license"] == [{"@id": "https://spdx.org/licenses/CC-BY-4.0"}]
