"""The paper's models as counted here, beside Table 5; and where each of them comes from."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import nn

from clipit_lib import tables
from clipit_lib.cost.flops import flops_per_image
from clipit_lib.cost.parameters import count_parameters
from clipit_lib.encoders import backbones, published, vision
from clipit_lib.encoders.image_halves import HALVES
from clipit_lib.paper import cost as paper

WHOLE, VISION, USED = "whole", "image half", "image half as used"
STATISTICS = {
    vision.HALF: "0.5 / 0.5", vision.IMAGENET[0]: "ImageNet", vision.OPENAI_CLIP[0]: "OpenAI CLIP",
}  # fmt: skip
# Rows of Table 5: what it calls a model, ours, and which part of it is meant.
TABLE5 = {
    "CONCH": ("conch", WHOLE), "UNI": ("uni", USED), "DINO_ViT-L14": ("kaiko_vitl14", USED),
    "QUILTNet": ("quiltnet", WHOLE), "CONCH_vision": ("conch", VISION),
    "QUILTNet_vision": ("quiltnet", USED), "ViT-B16": ("kaiko_vitb16", USED),
    "ViT-B8": ("kaiko_vitb8", USED), "ViT-S16": ("kaiko_vits16", USED),
    "ViT-S8": ("kaiko_vits8", USED),
}  # fmt: skip


def size_table() -> pd.DataFrame:
    """One row a published model and part, counted on shapes alone: model, part, parameters_M,
    table5, table5_M (as printed), size (pixels), gmacs (10^9 multiply-adds an image, which the
    paper calls FLOPs), gmacs_224 (the same at 224 pixels).

    A whole CLIP has no operations of its own: they depend on what is encoded. CONCH's image half as
    used lacks the pooler for captions.
    """
    printed = paper.parameters().set_index("backbone")["parameters_M"]
    called = {which: name for name, which in TABLE5.items()}
    rows = []
    for name in published.PUBLISHED:
        for part, model, size in _parts(name):
            table5 = called.get((name, part), "")
            sides = () if part == WHOLE else (size, 224)
            gmacs = [_gmacs(model, side) for side in sides] or [math.nan, math.nan]
            millions = count_parameters(model).total / 1e6
            rows.append([name, part, millions, table5, printed.get(table5), size, *gmacs])
    columns = ["model", "part", "parameters_M", "table5", "table5_M", "size", "gmacs", "gmacs_224"]
    return pd.DataFrame(rows, columns=columns)


def _parts(name: str) -> list[tuple[str, nn.Module, int]]:
    """Parts of a model on PyTorch's `meta` device and the side of their input."""
    with torch.device("meta"):
        encoder = backbones.untrained(name, None, None)
        parts = [(USED, encoder.model, encoder.transform.size)]
        if name in HALVES:
            parts.append((WHOLE, _whole(name), encoder.transform.size))
        if name == "conch":
            parts.append((VISION, _conch().visual, encoder.transform.size))  # type: ignore[arg-type]
    return parts


def _whole(name: str) -> nn.Module:
    from clipit_lib.encoders import open_clip_models, plip

    if name == "conch":
        return _conch()
    if name == "plip":
        return nn.ModuleList([plip.ImageTower(), plip.TextTower()])
    model: nn.Module = open_clip_models.build_published(name)
    return model


def _conch() -> nn.Module:
    from clipit_lib.encoders.conch_shape import Conch

    return Conch()


def _gmacs(model: nn.Module, size: int) -> float:
    return flops_per_image(model.eval(), size) / 2e9


def source_table() -> pd.DataFrame:
    """One row a published model, to print: where it is, on which terms, and how it is used."""
    rows = []
    for name, model in published.PUBLISHED.items():
        with torch.device("meta"):
            transform = backbones.untrained(name, None, None).transform
        rows.append({
            "model": name,
            "source": f"{model.repo}, {model.file}",
            "revision": model.revision[:12],
            "licence": model.licence,
            "terms": model.terms,
            "access": "on request" if model.gated else "open",
            "size": transform.size,
            "normalisation": STATISTICS[transform.mean],
            "parameters": f"{model.parameters / 1e6:.1f} M",
            "GMACs": f"{model.gmacs:.1f}",
            "doubt": model.doubt or "none",
        })  # fmt: skip
    return pd.DataFrame(rows)


def save(profile: str) -> pd.DataFrame:
    """Write both tables as `models.csv` and `models.md` of a profile; returns the first."""
    sizes = size_table()
    shown = sizes.round({"parameters_M": 1, "gmacs": 2, "gmacs_224": 2}).fillna("")
    text = f"{tables.markdown(shown)}\n\n{tables.markdown(source_table())}"
    tables.save(profile, "models", sizes, text, [])
    return sizes
