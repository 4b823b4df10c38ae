"""Which nuclei a patch has, where, and of what shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from clipit_lib.data.phantom.chance import EPITHELIAL, LYMPHOID, RING, STROMAL, Chance
from clipit_lib.data.phantom.geometry import FIELD, hexagonal, region, sample
from clipit_lib.data.phantom.glands import SMALLEST, Glands, disordered, goblet_cells
from clipit_lib.data.phantom.latents import Latents
from clipit_lib.data.phantom.layers import Layers, Noise


@dataclass(frozen=True)
class Nuclei:
    """One entry a nucleus, [k].

    Attributes:
        patch: index in the block.
        x, y: centre, in units.
        long, wide: half axes, in units.
        angle: of the long axis, in radians.
        density: haematoxylin of the chromatin.
        vesicular: 0 (smudged dark) to 1 (open chromatin with a dark rim).
        rough: how uneven the outline is.
    """

    patch: np.ndarray
    x: np.ndarray
    y: np.ndarray
    long: np.ndarray
    wide: np.ndarray
    angle: np.ndarray
    density: np.ndarray
    vesicular: np.ndarray
    rough: np.ndarray

    def take(self, rows: np.ndarray) -> Nuclei:
        """The nuclei at these rows."""
        return Nuclei(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def concatenate(parts: Sequence[Nuclei]) -> Nuclei:
        """All nuclei of the parts."""
        return Nuclei(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Nuclei)}
        )


def _kept(keep: np.ndarray, **arrays: np.ndarray) -> Nuclei:
    """Nuclei where `keep` [b, k] holds, from arrays that broadcast to [b, k]."""
    inside = np.ones_like(keep)
    for at in (arrays["x"], arrays["y"]):
        inside &= (at > -4) & (at < FIELD + 4)
    patch, slot = np.nonzero(keep & inside)
    flat = {name: np.broadcast_to(a, keep.shape)[patch, slot] for name, a in arrays.items()}
    return Nuclei(patch=patch, **flat)


def epithelial_radius(latents: Latents) -> np.ndarray:
    """[b] mean radius of epithelial nuclei, in units."""
    return 1.75 + 2.0 * latents.nuclear_size


def _atypical(latents: Latents, u: np.ndarray, density: float) -> dict[str, np.ndarray]:
    """Size, shape and chromatin [b, k] that scatter with pleomorphism, from uniform [b, k, 7]."""
    disorder = latents.pleomorphism[:, None]
    scatter = (0.10 + 0.45 * disorder) * 2 * (u[..., 3] - 0.45)
    radius = epithelial_radius(latents)[:, None] * np.exp(scatter)
    stretch = 1 + (0.12 + 0.35 * disorder) * u[..., 4]
    return {
        "long": radius * stretch,
        "wide": radius / stretch,
        "angle": np.pi * u[..., 5],
        "density": density + 0.25 * disorder + (0.15 + 0.5 * disorder) * (u[..., 6] - 0.5),
        "vesicular": np.clip(1.5 * latents.nuclear_size - 0.25, 0, 0.75)[:, None] * u[..., 4],
        "rough": 0.03 + 0.10 * disorder,
    }


def lymphoid(latents: Latents, chance: Chance, noise: Noise, layers: Layers) -> Nuclei:
    """Lymphocytes, small, round and dark, in infiltrates and scattered; debris where cells die."""
    u = chance.lymphoid
    x, y = _lattice(u, np.full(len(latents), 4.7), LYMPHOID, 16, chance.layout[:, 4:6], 0.75)
    many = latents.lymphocytes[:, None]
    sheet = sample(region(noise.infiltrate, latents.lymphocytes, 0.3), x, y)
    host = sample(layers.stroma, x, y) + 0.12 * sample(layers.solid, x, y)
    lymphocyte = u[..., 2] < host * (0.95 * sheet + 0.10 * many * (1 - sheet))
    fragment = ~lymphocyte & (u[..., 2] < 0.4 * sample(layers.dying, x, y))
    radius = np.where(fragment, 0.5 + 1.0 * u[..., 3] ** 2, 1.75 + 0.55 * u[..., 3])
    stretch = np.where(fragment, 1.2 + 0.4 * u[..., 4], 1 + 0.12 * u[..., 4])
    return _kept(
        lymphocyte | fragment,
        x=x,
        y=y,
        long=radius * stretch,
        wide=radius / stretch,
        angle=np.pi * u[..., 5],
        density=1.25 + 0.4 * (u[..., 6] - 0.5),
        vesicular=np.full((1, 1), 0.1, np.float32),
        rough=np.where(fragment, 0.2, 0.03),
    )


def solid(latents: Latents, chance: Chance, layers: Layers) -> Nuclei:
    """Nuclei of nests and filled ducts, and of single cells in the stroma."""
    u = chance.epithelial
    crowded = latents.cellularity
    pitch = epithelial_radius(latents) * (3.0 - 0.55 * crowded)
    jitter = 0.45 + 0.4 * latents.pleomorphism[:, None]
    x, y = _lattice(u, pitch, EPITHELIAL, 12, chance.layout[:, 6:8], jitter)
    single = 0.16 * (latents.invasion * crowded)[:, None] * sample(layers.stroma, x, y)
    keep = u[..., 2] < (0.5 + 0.5 * crowded[:, None]) * sample(layers.solid, x, y) + single
    return _kept(keep, x=x, y=y, **_atypical(latents, u, 0.85))


def ring(latents: Latents, chance: Chance, noise: Noise, layers: Layers, glands: Glands) -> Nuclei:
    """Nuclei in the walls of glands: at the base when regular, at all heights when not."""
    u = chance.ring
    disorder = disordered(latents)[:, None, None]
    radius = glands.radius[..., None]
    size = epithelial_radius(latents)[:, None, None]
    room = 2 * np.pi * 0.8 * radius / (size * (2.5 - 0.6 * latents.cellularity[:, None, None]))
    slots = np.clip(room * (1 + 0.5 * disorder), 1, RING)
    turn = 2 * np.pi * (np.arange(RING) + 0.5 * (u[..., 0] - 0.5)) / slots
    height = 0.80 - 0.06 * u[..., 1] - 0.3 * disorder * (u[..., 1] - 0.3)
    along = radius * glands.stretch[..., None] * height * np.cos(turn)
    beside = radius * height * np.sin(turn)
    cos, sin = np.cos(glands.angle)[..., None], np.sin(glands.angle)[..., None]
    shape = (len(latents), -1)
    x = (glands.x[..., None] + along * cos - beside * sin).reshape(shape)
    y = (glands.y[..., None] + along * sin + beside * cos).reshape(shape)
    # Borders are warped, so nuclei follow them.
    x, y = (
        x - glands.warp[:, None] * sample(noise.warp_x, x, y),
        y - glands.warp[:, None] * sample(noise.warp_y, x, y),
    )
    keep = ((np.arange(RING) < slots) & (radius > SMALLEST)).reshape(shape)
    keep &= u[..., 2].reshape(shape) < 0.96 * sample(layers.wall, x, y)
    look = _atypical(latents, u.reshape(*shape, 7), 1.0)
    outward = (turn + glands.angle[..., None] + 0.6 * (u[..., 5] - 0.5)).reshape(shape)
    # Columnar cells have tall nuclei; goblet cells press theirs flat against the base.
    tall = 1 + (0.28 - 0.5 * goblet_cells(latents))[:, None]
    look |= {"angle": outward, "long": look["long"] * tall, "wide": look["wide"] / tall}
    return _kept(keep, x=x, y=y, **look)


def stromal(
    latents: Latents, chance: Chance, noise: Noise, layers: Layers, across: np.ndarray
) -> Nuclei:
    """Spindle nuclei of fibroblasts and muscle, along the fibres."""
    u = chance.stromal
    x, y = _lattice(u, np.full(len(latents), 9.3), STROMAL, 8, chance.layout[:, 2:4], 0.9)
    muscle, crowded = latents.muscle[:, None], latents.cellularity[:, None]
    share = sample(layers.stroma, x, y) * (0.10 + 0.85 * crowded)
    slope_x = sample(across, x + 1.5, y) - sample(across, x - 1.5, y)
    slope_y = sample(across, x, y + 1.5) - sample(across, x, y - 1.5)
    big = 0.85 + 0.4 * latents.nuclear_size[:, None]
    return _kept(
        u[..., 2] < share,
        x=x,
        y=y,
        long=(3.0 + 1.6 * muscle + 2.0 * (u[..., 3] - 0.5)) * big,
        wide=(0.95 + 0.6 * u[..., 4]) * big,
        angle=np.arctan2(slope_x, -slope_y) + (0.5 - 0.4 * muscle) * (u[..., 5] - 0.5),
        density=0.95 - 0.1 * muscle + 0.4 * (u[..., 6] - 0.5),
        vesicular=np.full((1, 1), 0.2, np.float32),
        rough=np.full((1, 1), 0.04, np.float32),
    )


def _lattice(
    u: np.ndarray, pitch: np.ndarray, count: int, columns: int, shift: np.ndarray,
    jitter: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """x and y [b, count] of a jittered lattice: even as tissue is, yet without visible rows."""
    across, down = hexagonal(count, columns)
    pitch = pitch[:, None]
    x = FIELD / 2 + pitch * (across + shift[:, :1] - 0.5 + jitter * (u[..., 0] - 0.5))
    y = FIELD / 2 + pitch * (down + shift[:, 1:] - 0.5 + jitter * (u[..., 1] - 0.5))
    return x, y
