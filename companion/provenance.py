"""What made a folder of results, as others' tools read it: RO-Crate, Croissant, CycloneDX."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_OID, uuid5

import pandas as pd
import yaml
from packaging.requirements import Requirement

from clipit_lib import __version__
from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest, whole, write_text
from clipit_lib.predictions import LOGIT
from companion import paths
from companion.archived import AGAIN_ALL, PREDICTIONS, RISKS, RUNS, listed
from companion.figures import TITLES, meaning
from companion.profile import load_profile
from companion.reading import read_strict

CRATE, CROISSANT, SBOM = "ro-crate-metadata.json", "croissant.json", "sbom.json"
ROCRATE = "https://w3id.org/ro/crate/1.2"
NAME = "clipit-companion"
KNOWN = read_strict(Path(__file__).with_suffix(".yaml"), dict[str, Any])
CITATION = yaml.safe_load((paths.repository() / "CITATION.cff").read_text(encoding="utf-8"))
AUTHORS, PAPER = CITATION["authors"][0]["name"], CITATION["references"][0]
SAVED = re.compile(r'(?:save_table\(\s*profile\.name,|kept =)\s*f?"(\w+)')


def bill_of_materials() -> dict[str, Any]:
    """The packages of requirements.lock, as CycloneDX 1.6."""
    lines = (paths.repository() / "requirements.lock").read_text(encoding="utf-8").splitlines()
    components = [
        {"type": "library", "name": pin.name, "version": version, "purl": url, "bom-ref": url}
        | ({"description": f"only where {pin.marker}"} if pin.marker else {})
        for pin in [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]
        for version in [str(pin.specifier)[2:]]
        for url in [f"pkg:pypi/{pin.name}@{version}"]
    ]
    root = {"type": "application", "name": NAME, "version": __version__, "bom-ref": NAME}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": uuid5(NAMESPACE_OID, json.dumps(components)).urn,
        "metadata": {"component": root}, "components": components,
        "dependencies": [{"ref": NAME, "dependsOn": [each["bom-ref"] for each in components]}],
    }  # fmt: skip


def described(path: Path) -> dict[str, str]:
    """What both descriptions say of a file."""
    words = KNOWN["files"].get(path.name, {}).get("about") or meaning(path.name.partition(".")[0])
    return {"name": path.name, "encodingFormat": KNOWN["formats"].get(path.suffix, "text/plain"),
            "contentSize": str(path.stat().st_size), "sha256": file_digest(path),
            "description": words or path.name}  # fmt: skip


def croissant(results: Path, title: dict[str, str]) -> dict[str, Any]:
    """The predictions and runs.csv of a folder as Croissant 1.0: a record set per file.

    Args:
        title: name, description, license and datePublished, as schema.org has them.
    """
    files: list[dict[str, Any]] = []
    sets = []
    for path in [each for name in (RUNS, PREDICTIONS, RISKS) if (each := results / name).exists()]:
        with whole(path, AGAIN_ALL):
            frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        fields = [
            {
                "@type": "cr:Field", "@id": f"{path.stem}/{name}", "name": name,
                "description": KNOWN["columns"]["logit" if name.startswith(LOGIT) else name],
                "dataType": KNOWN["kinds"].get(kind.kind, "sc:Text"),
                "source": {"fileObject": {"@id": path.name}, "extract": {"column": name}},
            } | ({"references": {"field": {"@id": "runs/key"}}} if name == "run" else {})
            for name, kind in zip(map(str, frame), frame.dtypes, strict=True)
        ]  # fmt: skip
        key = [{"@id": f"{path.stem}/{name}"} for name in KNOWN["files"][path.name]["key"]]
        files.append({"@type": "cr:FileObject", "@id": path.name, "contentUrl": path.name})
        files[-1] |= described(path)
        sets.append({"@type": "cr:RecordSet", "@id": path.stem, "name": path.stem,
                     "key": key, "field": fields})  # fmt: skip
    return {"@context": KNOWN["context"], "@type": "sc:Dataset", "version": __version__, **title,
            "conformsTo": "http://mlcommons.org/croissant/1.0", "url": PAPER["url"],
            "citeAs": PAPER["title"], "creator": {"@type": "sc:Organization", "name": AUTHORS},
            "distribution": files, "recordSet": sets}  # fmt: skip


def makers() -> dict[str, str]:
    """The notebook that saves the tables of a name, or of the names that begin so."""
    found = {"claims": "notebooks/18_claims.ipynb", "registered": "notebooks/19_power.ipynb"}
    for path in sorted(paths.notebooks().glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(each["source"]) for each in cells if each["cell_type"] == "code")
        found |= dict.fromkeys(SAVED.findall(code), f"notebooks/{path.name}")
    return found


def crate(results: Path, title: dict[str, str]) -> dict[str, Any]:
    """A folder of results as RO-Crate 1.2: each file, the action that made it, and by what.

    Its files are those at the top and in tables/, but hidden ones.

    Args:
        title: as in `croissant`.
    """
    saved, made = makers(), defaultdict[str, list[str]](list)
    graph = []

    def add(name: str, kind: str, /, **about: Any) -> None:
        graph.append({"@id": name, "@type": kind, **about})

    for path in sorted([*results.glob("[!.]*.*"), *results.glob("tables/[!.]*.*")]):
        if path.name == CRATE or not path.is_file():
            continue
        add(quote(path.relative_to(results).as_posix()), "File", **described(path))
        name = f"{path.name.partition('.')[0]}_"
        starts = [each for each in saved if name.startswith(f"{each.rstrip('_')}_")]
        if path.name in KNOWN["files"]:
            made[f"companion {KNOWN['files'][path.name]['by']}"].append(graph[-1]["@id"])
        elif starts:
            made[saved[max(starts, key=len)]].append(graph[-1]["@id"])
    files = [each["@id"] for each in graph]
    read = [name for name in (RUNS, PREDICTIONS, RISKS) if name in files]
    for by, result in sorted(made.items()):
        tool, inputs = f"#{by.replace(' ', '-')}", read if by in saved.values() else []
        add(tool, "SoftwareSourceCode", name=by, isPartOf=linked(f"#{NAME}"))
        add(f"{tool}-run", "CreateAction", name=f"Run of {by}", instrument=linked(tool),
            object=linked(*inputs), result=linked(*result))  # fmt: skip
    actions = [each["@id"] for each in graph if each["@type"] == "CreateAction"]
    locked = {each["name"]: each["version"] for each in bill_of_materials()["components"]}
    for name in KNOWN["packages"]:
        add(f"#{name}", "SoftwareApplication", name=name, softwareVersion=locked[name])
    add(f"#{NAME}", "SoftwareApplication", name=NAME, softwareVersion=__version__,
        softwareRequirements=linked(*(f"#{name}" for name in KNOWN["packages"])))  # fmt: skip
    add("#authors", "Organization", name=AUTHORS)
    add(title["license"], "CreativeWork", name=title["license"])
    add(PAPER["url"], "ScholarlyArticle", name=PAPER["title"])
    add(CRATE, "CreativeWork", about=linked("./")[0], conformsTo=linked(ROCRATE)[0])
    links = {"hasPart": files, "mentions": actions, "author": ["#authors"],
             "license": [title["license"]], "citation": [PAPER["url"]]}  # fmt: skip
    add("./", "Dataset", **title | {name: linked(*held) for name, held in links.items()})
    return {"@context": f"{ROCRATE}/context", "@graph": graph}


def linked(*names: str) -> list[dict[str, str]]:
    return [{"@id": name} for name in names]


def published(results: Path) -> str:
    """When the last run ended; where runs.csv does not say, as the crate has it, else today."""
    ended = str(max(listed(results)["finished"].dropna(), default=""))
    if not ended and (results / CRATE).exists():
        with whole(results / CRATE, "Remove it"):
            graph = json.loads((results / CRATE).read_text(encoding="utf-8"))["@graph"]
            ended = next(each["datePublished"] for each in graph if each["@id"] == "./")
    return ended or datetime.now(UTC).date().isoformat()


def main(options: Namespace) -> None:
    """Write croissant.json and ro-crate-metadata.json of a profile, and sbom.json of the lock."""
    profile = load_profile(options.profile).name
    results = paths.results(profile)
    if not (results / RUNS).exists():
        raise ClipItError(f"there is no {RUNS}", results, AGAIN_ALL)
    if options.licence is None and profile not in TITLES:
        raise ClipItError("these results have no licence", results, "Name it by --licence")
    title = {
        "name": f"Results of the CLIP-IT companion: {TITLES.get(profile, profile)}",
        "description": "Every number of the tables follows from the predictions beside them.",
        "license": f"https://spdx.org/licenses/{options.licence or CITATION['license']}",
        "datePublished": published(results),
    }
    for path, make in (
        (results.parent / SBOM, bill_of_materials),
        (results / CROISSANT, lambda: croissant(results, title)),
        (results / CRATE, lambda: crate(results, title)),  # last: the other is one of its files
    ):
        write_text(path, json.dumps(make(), indent=1) + "\n")
        print(path)
    print(f"licence: {title['license']}")
