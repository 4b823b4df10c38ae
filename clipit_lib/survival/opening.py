"""The cohort of a profile: the user's slides, or phantom slides that are made on the spot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from clipit_lib import kernels, paths
from clipit_lib.compute import device
from clipit_lib.data.registry import PHANTOM_LIMITS
from clipit_lib.data.transforms import Transform
from clipit_lib.encoders import clip, vision
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, locked, whole, write_text, written_beside
from clipit_lib.progress import progress
from clipit_lib.settings import FileSlides, PhantomSlides, Profile, SurvivalSettings
from clipit_lib.survival.bags import Bag, write_bag
from clipit_lib.survival.cohort import Cohort, read
from clipit_lib.workbench import sources_of_profile

BAGS, CLINICAL, PLANTED, MADE = "bags", "clinical.csv", "planted.csv", "made.json"


def settings_of(profile: Profile) -> SurvivalSettings:
    """The survival section of a profile.

    Raises:
        ClipItError: it has none.
    """
    if profile.survival is None:
        raise ClipItError(
            "no survival section", f"profile {profile.name}", "Add one; profiles/demo.yaml has it"
        )
    return profile.survival


def open_cohort(profile: Profile) -> Cohort:
    """Read the profile's slides; phantom slides are made and embedded first if need be.

    Raises:
        ClipItError: no survival section; encoders not trained yet; see `cohort.read`.
    """
    settings = settings_of(profile)
    if isinstance(settings.slides, FileSlides):
        bags, clinical = (_resolved(p) for p in (settings.slides.bags, settings.slides.clinical))
        cohort = read(bags, clinical, settings.folds, settings.slides.patches)
        return replace(cohort, limits=f"Slides of the user; terms: {settings.slides.licence}.")
    return _open_phantom(profile, settings.slides, settings.folds)


def _resolved(path: str) -> Path:
    given = Path(path).expanduser()
    return given if given.is_absolute() else paths.data() / given


def _open_phantom(profile: Profile, slides: PhantomSlides, folds: int) -> Cohort:
    made_by = _made_by(profile)
    folder = paths.cache() / "slides" / f"phantom-{phantom_name(profile)}"
    if not (folder / MADE).exists():
        with locked(folder):
            if not (folder / MADE).exists():
                with written_beside(folder) as temporary:
                    _make(temporary, profile, slides, folds)
                    write_text(temporary / MADE, json.dumps(made_by, indent=1))
    with whole(folder, "Delete this folder and run again"):
        cohort = read(folder / BAGS, folder / CLINICAL, folds)
        planted = pd.read_csv(folder / PLANTED).set_index("slide")["log_hazard"]
    return replace(
        cohort,
        content_hash=phantom_name(profile),
        limits=PHANTOM_LIMITS,
        planted=planted[cohort.clinical["slide"]].to_numpy(),
    )


def phantom_name(profile: Profile) -> str:
    """What names the phantom's slides: what they are made from, not the embeddings they hold."""
    return digest(canonical_json(_made_by(profile)))


def _made_by(profile: Profile) -> dict[str, Any]:
    # Here, so that slides of the user can be opened without the phantom.
    from clipit_lib.data.phantom import VERSION as PHANTOM_VERSION
    from clipit_lib.survival.phantom import VERSION

    settings, sources = settings_of(profile), sources_of_profile(profile)
    assert isinstance(settings.slides, PhantomSlides)
    slides = settings.slides
    return {
        "version": [VERSION, PHANTOM_VERSION],
        "kernels": kernels.level(),
        "slides": slides.model_dump(mode="json"),
        "folds": settings.folds,
        "backbone": vision.weights_hash(slides.backbone, sources),
        "retriever": clip.weights_hash(profile.retriever, sources),
    }


def _make(folder: Path, profile: Profile, slides: PhantomSlides, folds: int) -> None:
    """Draw and embed phantom slides and write them in the layout of real ones."""
    from clipit_lib.survival.phantom import draw_slides, pixels

    backbone = vision.load(slides.backbone, sources_of_profile(profile))
    retriever = clip.load(profile.retriever, sources_of_profile(profile))
    drawn = draw_slides(slides, folds)
    for number, slide in enumerate(progress(drawn.clinical["slide"], "slides")):
        patches = pixels(drawn, slides, number)
        bag = Bag(
            _embedded(backbone.model, backbone.transform, patches),
            _embedded(retriever.image_tower, retriever.transform, patches),
        )
        write_bag(folder / BAGS / f"{slide}.h5", bag)
    drawn.clinical.to_csv(folder / CLINICAL, index=False)
    planted = pd.DataFrame({"slide": drawn.clinical["slide"], "log_hazard": drawn.log_hazard})
    planted.to_csv(folder / PLANTED, index=False)


@torch.inference_mode()
def _embedded(model: nn.Module, transform: Transform, patches: np.ndarray) -> np.ndarray:
    tower = model.to(device()).eval()
    values: np.ndarray = tower(transform(patches).to(device())).float().cpu().numpy()
    return values
