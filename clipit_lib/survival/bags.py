"""Slides as bags of patch features: one file a slide, one clinical csv a cohort.

The layout is that of the usual slide pipelines. For the Metastatic Breast Cancer slides of section
F.6, which are not public in this form, it would be

    mbc/bags/SLIDE.h5         features  [patches, 1024]  float, UNI, one row a patch
                              retriever [patches, 512]   float, CONCH's image embeddings of the
                                                         same patches in the same order, projected
                                                         into the space of its text tower
    mbc/clinical.csv          slide,time,event,fold      time in months; event 1 (seen) or
                                                         0 (censored); fold from 1 to 5

A `.safetensors` file with the same names serves as well. Other arrays (`coords`) are ignored, and
`retriever` is needed by `clip_it` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32
from safetensors import safe_open
from safetensors.numpy import save_file

from clipit_lib.errors import ClipItError
from clipit_lib.files import written_beside

FEATURES, RETRIEVER = "features", "retriever"
SUFFIXES = (".h5", ".safetensors")


@dataclass(frozen=True)
class Bag:
    """The patches of one slide.

    Attributes:
        features: [p, d], what the model sees.
        retriever: [p, e], image embeddings by the retriever, for pairing; None if not known.
    """

    features: Float32[np.ndarray, "p d"]
    retriever: Float32[np.ndarray, "p e"] | None = None


def write_bag(path: Path, bag: Bag) -> None:
    """Write a bag as h5 or safetensors, by the suffix of `path`."""
    arrays = {FEATURES: bag.features}
    if bag.retriever is not None:
        arrays[RETRIEVER] = bag.retriever
    with written_beside(path) as temporary:
        if path.suffix == ".h5":
            with h5py.File(temporary, "w") as file:
                for name, values in arrays.items():
                    file.create_dataset(name, data=values)
        else:
            save_file(arrays, temporary)


def read_bag(path: Path, most: int | None = None) -> Bag:
    """Read a bag; of more than `most` patches, that many are kept, evenly spaced.

    Raises:
        ClipItError: the file is damaged; it has no features; arrays are not [patches, width],
            differ in their patches, are empty or hold NaN or infinity.
    """
    arrays = _arrays(path)
    if FEATURES not in arrays:
        raise ClipItError(
            f"no {FEATURES!r} in it", path, "Write the patch features under this name"
        )
    count = len(arrays[FEATURES])
    for name, values in arrays.items():
        if values.ndim != 2 or 0 in values.shape:
            raise ClipItError(
                f"{name} has shape {list(values.shape)}", path, "Write it as [patches, width]"
            )
        if len(values) != count:
            raise ClipItError(
                f"{name} has {len(values)} patches, {FEATURES} {count}", path,
                "Embed the same patches in the same order",
            )  # fmt: skip
        if not np.isfinite(values).all():
            raise ClipItError(f"{name} holds NaN or infinity", path, "Embed the slide again")
    kept = slice(None) if most is None or count <= most else _spaced(count, most)
    return Bag(**{name: values[kept].astype(np.float32) for name, values in arrays.items()})


def _spaced(count: int, most: int) -> np.ndarray:
    return np.arange(most) * count // most


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                return {name: file[name][()] for name in (FEATURES, RETRIEVER) if name in file}
        with safe_open(path, framework="numpy") as file:
            held = set(file.keys())
            return {name: file.get_tensor(name) for name in (FEATURES, RETRIEVER) if name in held}
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise ClipItError(f"damaged or no bag ({reason})", path, "Write it anew") from error
