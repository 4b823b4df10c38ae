"""From latents to pixels: glands, ground, nuclei and stain of the phantom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

from clipit_lib.errors import ClipItError
from companion.phantom.latents import Latents, Rows

# -- All randomness of a patch, drawn at once from the patch's own seed.
#
# Everything after this is arithmetic, so a patch has the same bytes in whatever block it is drawn.

GLANDS, RING, SITES, LYMPHOID, EPITHELIAL, STROMAL = 9, 34, 9, 256, 144, 64


@dataclass(frozen=True)
class Chance:
    """Random numbers of a block of b patches, float32; uniform in [0, 1) unless said otherwise.

    Attributes:
        coarse: [b, 7, 7, 7] standard normals on lattices over the field.
        medium: [b, 2, 18, 18] standard normals.
        fine: [b, 2, 64, 64] in [-1, 1).
        streaks: [b, 96] standard normals, the profile across fibres.
        layout: [b, 8], orientation and offset of fibres and lattices.
        glands: [b, GLANDS, 6].
        sites: [b, SITES, 3], fat cells.
        ring: [b, GLANDS, RING, 7], nuclei in the wall of a gland.
        lymphoid, epithelial, stromal: [b, LYMPHOID or EPITHELIAL or STROMAL, 7], other nuclei.
    """

    coarse: np.ndarray
    medium: np.ndarray
    fine: np.ndarray
    streaks: np.ndarray
    layout: np.ndarray
    glands: np.ndarray
    sites: np.ndarray
    ring: np.ndarray
    lymphoid: np.ndarray
    epithelial: np.ndarray
    stromal: np.ndarray

    @staticmethod
    def of(seed: int, patches: Sequence[int]) -> Chance:
        """The random numbers of these patch indices."""
        drawn = [_one(np.random.SeedSequence(seed, spawn_key=(index,))) for index in patches]
        return Chance(*(np.stack(parts) for parts in zip(*drawn, strict=True)))


def _one(seeds: np.random.SeedSequence) -> tuple[np.ndarray, ...]:
    rng = np.random.Generator(np.random.SFC64(seeds))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    def uniform(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    fields_of_view = normal(7, 7, 7), normal(2, 18, 18), 2 * uniform(2, 64, 64) - 1, normal(96)
    placed = uniform(8), uniform(GLANDS, 6), uniform(SITES, 3), uniform(GLANDS, RING, 7)
    return (*fields_of_view, *placed, *(uniform(n, 7) for n in (LYMPHOID, EPITHELIAL, STROMAL)))


# -- Lengths of the phantom and smooth fields over it.
#
# The field of view is FIELD units wide whatever the side in pixels: about 100 micrometres, so a
# unit is 1.5 micrometres, and a larger side shows the same tissue in finer detail.

FIELD = 64.0


@lru_cache(maxsize=32)
def _spline(lattice: int, side: int) -> np.ndarray:
    """[side, lattice] weights of the cubic B-spline that spans a lattice over the field."""
    at = (np.arange(side) + 0.5) / side * (lattice - 3) + 1
    distance = np.abs(at[:, None] - np.arange(lattice))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth(lattice: np.ndarray, side: int) -> np.ndarray:
    """A smooth field [b, side, side] through random values [b, m, m]."""
    weights = _spline(lattice.shape[-1], side)
    return weights @ lattice @ weights.T


def standardised(field: np.ndarray) -> np.ndarray:
    """The field [b, side, side] with mean 0 and standard deviation 1 in each patch."""
    centred = field - field.mean((1, 2), keepdims=True)
    return centred / np.sqrt((centred**2).mean((1, 2), keepdims=True) + 1e-6)


def region(field: np.ndarray, extent: np.ndarray, edge: float) -> np.ndarray:
    """Where a standardised field is low enough to cover about `extent` of a patch.

    Args:
        field: [b, side, side].
        extent: [b], from 0 to 1.
        edge: width of the border in standard deviations.

    Returns:
        [b, side, side] from 0 (outside) to 1 (inside).
    """
    # Stretched, so that the ends of the range are nowhere and everywhere.
    threshold = ndtri(np.clip(1.06 * extent - 0.03, 1e-5, 1 - 1e-5))
    return np.clip((column(threshold) - field) / np.float32(edge) + np.float32(0.5), 0, 1)


def column(values: np.ndarray) -> np.ndarray:
    """[b] as [b, 1, 1] float32, to meet fields."""
    return values.astype(np.float32)[:, None, None]


def pixel_centres(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, 1, side] and y [1, side, 1] of pixel centres, in units."""
    centres = ((np.arange(side) + 0.5) * (FIELD / side)).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def in_ellipse(
    dx: np.ndarray, dy: np.ndarray, angle: np.ndarray, long: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    """Squared distance from the centre of ellipses [b]: 1 at the border, wherever it is met."""
    cos, sin = np.cos(angle), np.sin(angle)
    along = dx * column(cos / long) + dy * column(sin / long)
    beside = dy * column(cos / wide) - dx * column(sin / wide)
    return along**2 + beside**2


def sample(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Value of a field [b, side, side] at the pixels nearest to points [b, k] in units."""
    side = field.shape[-1]
    columns = np.clip(x * (side / FIELD), 0, side - 1).astype(np.intp)
    rows = np.clip(y * (side / FIELD), 0, side - 1).astype(np.intp)
    return field[np.arange(len(field))[:, None], rows, columns]


def hexagonal(count: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y [count] of a hexagonal lattice of pitch 1 around the origin, row by row."""
    row, place = np.divmod(np.arange(count), columns)
    x = place - (columns - 1) / 2 + 0.5 * (row % 2) - 0.25
    y = (row - (count // columns - 1) / 2) * np.sqrt(0.75)
    return x.astype(np.float32), y.astype(np.float32)


# -- The amount of each stain in a patch, built up layer by layer.


@dataclass(frozen=True)
class Noise:
    """Smooth random fields [b, side, side]; standardised, except warp and grain."""

    warp_x: np.ndarray
    warp_y: np.ndarray
    dying: np.ndarray
    pools: np.ndarray
    infiltrate: np.ndarray
    bare: np.ndarray
    nests: np.ndarray
    mottle: np.ndarray
    cloud: np.ndarray
    grain: np.ndarray
    speck: np.ndarray

    @staticmethod
    def of(chance: Chance, side: int) -> Noise:
        """The fields of a block of patches."""
        coarse = [smooth(chance.coarse[:, k], side) for k in range(7)]
        medium = [standardised(smooth(chance.medium[:, k], side)) for k in range(2)]
        fine = [smooth(chance.fine[:, k], side) for k in range(2)]
        regions = [standardised(field) for field in coarse[2:]]
        # Nests need ragged borders, finer than the lattice they follow.
        regions[-1] = standardised(regions[-1] + 0.45 * medium[1])
        return Noise(*coarse[:2], *regions, *medium, *fine)


Amount = np.ndarray | float


@dataclass(frozen=True)
class Layers:
    """Stain densities and what lies where, each [b, side, side] float32.

    Attributes:
        haematoxylin, eosin: optical density of each stain, from 0 (none) up.
        stroma: share of a pixel that is connective tissue.
        wall: share that is the wall of a gland.
        solid: share that is epithelium in sheets, where nuclei fill the plane.
        dying: share that is necrotic.
    """

    haematoxylin: np.ndarray
    eosin: np.ndarray
    stroma: np.ndarray
    wall: np.ndarray
    solid: np.ndarray
    dying: np.ndarray

    def covered(
        self, share: np.ndarray, haematoxylin: Amount, eosin: Amount, **others: Amount
    ) -> Layers:
        """The layers under a new one that takes `share` of each pixel; others are 0 in it."""
        new = {"haematoxylin": haematoxylin, "eosin": eosin} | others
        names, rest = [field.name for field in fields(self)], 1 - share
        return Layers(*(getattr(self, n) * rest + share * new.get(n, 0.0) for n in names))


# -- Epithelium: glands around a lumen, ducts filled with cells, invading nests.

PITCH, SMALLEST = 31.0, 6.0


@dataclass(frozen=True)
class Glands:
    """Ellipses of glands, [b, GLANDS]: lengths in units, angle in radians.

    radius is 0 where there is no gland; warp [b] is how far borders stray, in units.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    stretch: np.ndarray
    angle: np.ndarray
    warp: np.ndarray

    @staticmethod
    def of(latents: Latents, chance: Chance) -> Glands:
        """Place the glands: side by side when regular, jumbled when not; filled ducts are large."""
        u = chance.glands
        disorder = disordered(latents)[:, None]
        pitch = PITCH * (1 + 0.55 * latents.filling)[:, None]
        across, down = hexagonal(GLANDS, 3)
        jitter = 0.15 + 0.45 * disorder
        x = pitch * (across + jitter * (u[..., 0] - 0.5))
        y = pitch * (down + jitter * (u[..., 1] - 0.5))
        turn = (2 * np.pi * chance.layout[:, 1])[:, None]
        shift = 0.5 * pitch[..., None] * (chance.layout[:, None, 2:4] - 0.5)
        # They appear one after another, those in the middle sooner, the last of them small.
        central = 0.5 * np.hypot(across, down)
        rank = (u[..., 2] + central).argsort(1).argsort(1)
        size = np.sqrt(np.clip(GLANDS * latents.glands[:, None] - rank, 0, 1))
        return Glands(
            FIELD / 2 + x * np.cos(turn) - y * np.sin(turn) + shift[..., 0],
            FIELD / 2 + x * np.sin(turn) + y * np.cos(turn) + shift[..., 1],
            pitch * 0.45 * size * (1 + 0.5 * disorder * (u[..., 3] - 0.6)),
            1 + (0.15 + 0.6 * disorder) * u[..., 4],
            np.pi * u[..., 5],
            2 + 18 * disorder[:, 0],
        )

    def depth(self, noise: Noise) -> np.ndarray:
        """[b, side, side]: 0 at the centre of the nearest gland, 1 at its border, more outside."""
        x, y = pixel_centres(noise.grain.shape[-1])
        x, y = x + column(self.warp) * noise.warp_x, y + column(self.warp) * noise.warp_y
        depth = np.full_like(noise.grain, 9.0)
        for k in range(GLANDS):
            rows = np.flatnonzero(self.radius[:, k] > SMALLEST)
            dx, dy = x[rows] - column(self.x[rows, k]), y[rows] - column(self.y[rows, k])
            wide = self.radius[rows, k]
            long = wide * self.stretch[rows, k]
            squared = in_ellipse(dx, dy, self.angle[rows, k], long, wide)
            depth[rows] = np.minimum(depth[rows], np.sqrt(squared))
        return depth


def disordered(latents: Latents) -> np.ndarray:
    """[b]: how far glands depart from round, even and single-layered; slow to set in."""
    return (1 - latents.regularity) ** 1.5


def epithelium(layers: Layers, latents: Latents, noise: Noise, depth: np.ndarray) -> Layers:
    """Draw nests, then glands, whose walls are cells and whose lumen is empty or debris."""
    nests = region(noise.nests, 0.85 * latents.invasion, 0.25)
    # Cytoplasm around the nuclei is bluer the more atypical the cells are.
    haematoxylin = column(0.13 + 0.12 * latents.pleomorphism) + 0.02 * noise.mottle
    eosin = 0.36 + 0.05 * noise.mottle + 0.05 * noise.grain
    layers = layers.covered(nests, haematoxylin, eosin, solid=1.0)
    filling, regularity = column(latents.filling), column(latents.regularity)
    halo = np.clip(1 - np.abs(depth - 1.07) / 0.07, 0, 1) * (0.25 + 0.6 * filling) * regularity
    layers = layers.covered(halo, 0.03, 0.20 * (1 - filling))
    goblets = column(goblet_cells(latents))
    pale = goblets * np.clip(1.5 - 5 * np.abs(depth - 0.5) + 0.8 * noise.mottle, 0, 1)
    wall = np.clip((1 - depth) / 0.08 + 0.5, 0, 1)
    solid = np.clip(filling + 0.6 * column(disordered(latents)), 0, 1) * (depth < 0.88)
    haematoxylin = haematoxylin * (1 - pale) + 0.14 * pale
    eosin = eosin * (1 - pale) + 0.06 * pale
    layers = layers.covered(wall, haematoxylin, eosin, wall=1.0, solid=solid)
    return _lumen(layers, latents, noise, depth)


def goblet_cells(latents: Latents) -> np.ndarray:
    """[b]: share of a gland's wall that holds mucin, as in normal colon."""
    share = 5 * latents.mucin * latents.glands * latents.regularity * (1 - latents.filling)
    return np.clip(share, 0, 1)


def _lumen(layers: Layers, latents: Latents, noise: Noise, depth: np.ndarray) -> Layers:
    size = 0.5 * np.clip(1 - 1.3 * latents.filling, 0, 1) * (1 - 0.6 * goblet_cells(latents))
    ragged = 0.06 * column(1 - latents.regularity) * noise.mottle
    lumen = np.clip((column(size) - depth + ragged) / 0.08, 0, 1)
    layers = layers.covered(lumen, 0.04, 0.05)
    # Comedo necrosis, or the dirty necrosis of a carcinoma's lumen.
    atypical = np.clip(latents.filling + 1 - latents.regularity, 0, 1)
    amount = column(np.clip(5 * latents.necrosis * atypical, 0, 1))
    core = column(size + 0.3 * np.sqrt(latents.necrosis))
    dead = amount * np.clip((core - depth) / 0.12, 0, 1)
    return layers.covered(dead, 0.20 + 0.3 * noise.speck, 0.42 + 0.4 * noise.grain, dying=0.7)


# -- What lies between the cells: collagen and muscle, necrosis, mucin, fat, bare glass.

FAT_PITCH, FAT_RADIUS, MEMBRANE = 34.0, 20.0, 1.4


def across_fibres(latents: Latents, chance: Chance, noise: Noise) -> np.ndarray:
    """Distance across the fibres [b, side, side] in units: fibres run where it is constant."""
    x, y = pixel_centres(noise.grain.shape[-1])
    angle = column(np.pi * chance.layout[:, 0])
    waves = column(11 - 8 * latents.muscle) * (noise.warp_x + 0.1 * noise.cloud)
    return x * np.cos(angle) + y * np.sin(angle) + waves


def stroma(latents: Latents, chance: Chance, noise: Noise, across: np.ndarray) -> Layers:
    """Connective tissue over the whole patch: loose, collagenous or muscular."""
    fibres, muscle = column(latents.fibres), column(latents.muscle)
    # Fibres end, so that a streak is not one unbroken line.
    across = across + 0.7 * noise.mottle + 1.1 * noise.grain
    streak = 0.6 * _streak(chance.streaks, across / 1.3) + 0.6 * _streak(chance.streaks, across / 5)
    strength = 0.03 + 0.11 * fibres
    eosin = 0.24 + 0.28 * fibres + 0.12 * muscle + strength * streak + 0.05 * noise.grain
    haematoxylin = 0.07 + 0.05 * muscle + 0.02 * noise.mottle + 0.05 * noise.grain
    # Collagen bundles part from each other; loose tissue has holes; muscle is packed.
    clefts = np.clip(1.8 * streak - 1.4 + 0.6 * noise.mottle, 0, 1) * fibres
    holes = np.clip(0.9 * noise.mottle + 0.5 * noise.cloud - 0.6, 0, 1) * (1 - fibres)
    gaps = np.clip(clefts + 0.8 * holes, 0, 1) * (1 - 0.8 * muscle)
    full, none = np.ones_like(eosin), np.zeros_like(eosin)
    layers = Layers(haematoxylin, np.maximum(eosin, 0.1), full, none, none, none)
    return layers.covered(0.8 * gaps, 0.02, 0.04)


def _streak(profile: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The random profile [b, m], repeated, at places [b, side, side]."""
    below = np.floor(across)
    part = across - below
    index = below.astype(np.intp) % profile.shape[1]
    row = np.arange(len(profile))[:, None, None]
    after = (index + 1) % profile.shape[1]
    return (1 - part) * profile[row, index] + part * profile[row, after]


def necrosis(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    """Granular pink-purple debris without structure."""
    share = region(noise.dying, latents.necrosis, 0.5)
    crumbs = np.clip(2.5 * noise.grain + 0.4 * noise.mottle, -1, 1.5)
    eosin = 0.46 + 0.13 * crumbs + 0.06 * noise.cloud
    haematoxylin = 0.20 + 0.10 * crumbs + 0.25 * np.clip(3 * noise.speck - 0.5, 0, 1)
    return layers.covered(share, haematoxylin, eosin, dying=1.0)


def infiltrate(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    """The scant pale matrix between lymphocytes."""
    share = region(noise.infiltrate, latents.lymphocytes, 0.5)
    return layers.covered(0.6 * share, 0.16 + 0.05 * noise.grain, 0.22, stroma=1.0)


def mucin(layers: Layers, latents: Latents, noise: Noise, across: np.ndarray) -> Layers:
    """Pale blue-grey pools with faint strands. What goblet cells hold is drawn with the glands."""
    extent = latents.mucin * (1 - goblet_cells(latents))
    share = region(noise.pools, extent, 0.25)
    strands = np.sin(0.55 * across + noise.cloud) + 0.8 * noise.mottle
    return layers.covered(share, 0.17 + 0.035 * strands, 0.05 + 0.015 * noise.cloud)


def fat(layers: Layers, latents: Latents, chance: Chance) -> Layers:
    """Large empty vacuoles that touch along thin membranes: a soft Voronoi diagram, whose corners
    come out rounded as in fat."""
    rows = np.flatnonzero(latents.fat > 0.02)
    if not len(rows):
        return layers
    sites, extent = chance.sites[rows], latents.fat[rows]
    x, y = pixel_centres(layers.eosin.shape[-1])
    across, down = hexagonal(SITES, 3)
    centre_x = FIELD / 2 + FAT_PITCH * (across + 0.55 * (sites[..., 0] - 0.5))
    centre_y = FIELD / 2 + FAT_PITCH * (down + 0.55 * (sites[..., 1] - 0.5))
    # The cells turn to fat one after another, the last of them in part.
    rank = sites[..., 2].argsort(1).argsort(1)
    filled = np.clip(SITES * extent[:, None] - rank, 0, 1).astype(np.float32)
    distance = [
        np.hypot(x - column(centre_x[:, k]), y - column(centre_y[:, k])) for k in range(SITES)
    ]
    closeness = [np.exp(-d / np.float32(MEMBRANE)) for d in distance]
    total = np.sum(closeness, axis=0) + np.float32(1e-12)
    share = np.zeros_like(layers.eosin)
    for k in range(SITES):
        size = column(filled[:, k])
        alone = closeness[k] / total
        inside = np.clip((alone - (1 - 0.25 * size)) * 8, 0, 1) * (size > 0)
        share[rows] = np.maximum(share[rows], inside * np.clip(FAT_RADIUS - distance[k], 0, 1))
    return layers.covered(share, 0.012, 0.015)


def glass(layers: Layers, latents: Latents, noise: Noise) -> Layers:
    """Nothing but light, and a little dust."""
    share = region(noise.bare, latents.blank, 0.12)
    dust = np.clip(4 * noise.speck - 1.9, 0, 1)
    return layers.covered(share, 0.012 + 0.12 * dust, 0.012 + 0.08 * dust)


# -- Which nuclei a patch has, where, and of what shape.


@dataclass(frozen=True)
class Nuclei(Rows):
    """One entry per nucleus, [k].

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
        lymphocyte | fragment, x=x, y=y, long=radius * stretch, wide=radius / stretch,
        angle=np.pi * u[..., 5], density=1.25 + 0.4 * (u[..., 6] - 0.5),
        vesicular=np.full((1, 1), 0.1, np.float32), rough=np.where(fragment, 0.2, 0.03),
    )  # fmt: skip


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
    warps = [glands.warp[:, None] * sample(each, x, y) for each in (noise.warp_x, noise.warp_y)]
    x, y = x - warps[0], y - warps[1]
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
        u[..., 2] < share, x=x, y=y,
        long=(3.0 + 1.6 * muscle + 2.0 * (u[..., 3] - 0.5)) * big,
        wide=(0.95 + 0.6 * u[..., 4]) * big,
        angle=np.arctan2(slope_x, -slope_y) + (0.5 - 0.4 * muscle) * (u[..., 5] - 0.5),
        density=0.95 - 0.1 * muscle + 0.4 * (u[..., 6] - 0.5),
        vesicular=np.full((1, 1), 0.2, np.float32),
        rough=np.full((1, 1), 0.04, np.float32),
    )  # fmt: skip


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


PIXELS_AT_ONCE = 2**19


def paint(nuclei: Nuclei, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Chromatin density and nuclear cover (0 to 1), both [b, side, side].

    Where nuclei overlap the darker one is seen, whatever the order they are drawn in.
    """
    density, cover = np.zeros_like(noise.grain), np.zeros_like(noise.grain)
    scale = density.shape[-1] / FIELD
    reach = np.ceil(1.25 * nuclei.long * scale).astype(int) + 1
    # Windows of similar size go together, so that small nuclei do not pay for large ones.
    bins = 1 + 2 * (reach // 2)
    for half in np.unique(bins):
        rows = np.flatnonzero(bins == half)
        step = max(1, PIXELS_AT_ONCE // int(2 * half + 1) ** 2)
        for start in range(0, len(rows), step):
            part = nuclei.take(rows[start : start + step])
            _stamp(part, int(half), noise, density.reshape(-1), cover.reshape(-1))
    return density, cover


def _stamp(nuclei: Nuclei, half: int, noise: Noise, density: np.ndarray, cover: np.ndarray) -> None:
    """Raise the flat layers to these nuclei, each within `half` pixels of its centre."""
    side = noise.grain.shape[-1]
    unit = np.float32(FIELD / side)
    offsets = np.arange(-half, half + 1)
    columns = np.floor(nuclei.x / unit).astype(np.int32)[:, None] + offsets
    rows = np.floor(nuclei.y / unit).astype(np.int32)[:, None] + offsets
    dx = ((columns + 0.5) * unit - nuclei.x[:, None]).astype(np.float32)[:, None, :]
    dy = ((rows + 0.5) * unit - nuclei.y[:, None]).astype(np.float32)[:, :, None]
    squared = in_ellipse(dx, dy, nuclei.angle, nuclei.long, nuclei.wide)
    tall, wide = ((at >= 0) & (at < side) for at in (rows, columns))
    inside = tall[:, :, None] & wide[:, None]
    which, row, place = np.nonzero((squared < 1.6) & inside)
    flat = (nuclei.patch[which] * side + rows[which, row]) * side + columns[which, place]
    lobes = nuclei.rough[which].astype(np.float32) * noise.mottle.reshape(-1)[flat]
    radius = np.sqrt(squared[which, row, place]) + lobes
    alpha = np.clip((1 - radius) * nuclei.wide[which] / unit + 0.5, 0, 1).astype(np.float32)
    speck = noise.speck.reshape(-1)[flat]
    cleared = 0.55 * nuclei.vesicular[which] * np.clip(1.2 - radius**2, 0, 1)
    rim = 0.25 * np.clip(2.5 * radius - 1.5, 0, 1)
    chromatin = nuclei.density[which] * (0.9 + 0.8 * speck - cleared + rim)
    np.maximum.at(density, flat, (alpha * chromatin).astype(np.float32))
    np.maximum.at(cover, flat, alpha)


# -- From amounts of stain to colours, by the Beer-Lambert law.

# Optical density of red, green and blue for one unit of stain, between the values of
# Ruifrok and Johnston (2001) and of Macenko et al. (2009), and the directions hue moves them.
HAEMATOXYLIN = np.array([0.62, 0.71, 0.34], np.float32)
EOSIN = np.array([0.17, 0.84, 0.51], np.float32)
BLUER_HAEMATOXYLIN = np.array([0.05, -0.01, -0.05], np.float32)
BLUER_EOSIN = np.array([0.03, 0.00, -0.05], np.float32)
WARMER = np.array([-0.006, 0.002, 0.010], np.float32)


def transmitted(haematoxylin: np.ndarray, eosin: np.ndarray, latents: Latents) -> np.ndarray:
    """Light that passes the section, [b, side, side, 3] uint8.

    I = 255 exp(-(c_H v_H + c_E v_E)), with the stain vectors of each patient. The densities
    [b, side, side] are in units of the usual stain strength and thickness.
    """
    h_vector = HAEMATOXYLIN + latents.haematoxylin_hue[:, None] * BLUER_HAEMATOXYLIN
    e_vector = EOSIN + latents.eosin_hue[:, None] * BLUER_EOSIN
    h_amount = haematoxylin * column(latents.haematoxylin * latents.thickness)
    e_amount = eosin * column(latents.eosin * latents.thickness)
    lamp = np.clip(0.015 + latents.tint[:, None] * WARMER, 0, None)
    pixels = np.empty((*haematoxylin.shape, 3), np.uint8)
    for channel in range(3):
        density = h_amount * column(h_vector[:, channel]) + e_amount * column(e_vector[:, channel])
        light = np.exp(-np.maximum(density, 0) - column(lamp[:, channel]))
        pixels[..., channel] = 255 * light
    return pixels


SMALLEST_SIDE = 16
PIXELS_PER_BLOCK = 2**17


def render(latents: Latents, side: int, seed: int, first: int = 0) -> np.ndarray:
    """Draw patches, [n, side, side, 3] uint8.

    The field of view is the same at every side. Patch i has its own random numbers, made of
    `seed` and `first + i`, so rendering in blocks that say where they start gives the same bytes.

    Raises:
        ClipItError: the side is below 16 pixels.
    """
    if side < SMALLEST_SIDE:
        raise ClipItError(f"side {side}", "phantom", f"Use at least {SMALLEST_SIDE} pixels")
    pixels = np.empty((len(latents), side, side, 3), np.uint8)
    step = max(1, PIXELS_PER_BLOCK // side**2)
    for start in range(0, len(latents), step):
        block = slice(start, min(start + step, len(latents)))
        indices = range(first + block.start, first + block.stop)
        pixels[block] = _block(latents.take(block), side, seed, indices)
    return pixels


def _block(latents: Latents, side: int, seed: int, indices: range) -> np.ndarray:
    chance = Chance.of(seed, indices)
    noise = Noise.of(chance, side)
    across = across_fibres(latents, chance, noise)
    placed = Glands.of(latents, chance)
    layers = stroma(latents, chance, noise, across)
    layers = infiltrate(layers, latents, noise)
    layers = necrosis(layers, latents, noise)
    layers = mucin(layers, latents, noise, across)
    layers = epithelium(layers, latents, noise, placed.depth(noise))
    layers = fat(layers, latents, chance)
    layers = glass(layers, latents, noise)
    cells = Nuclei.concatenate([
        stromal(latents, chance, noise, layers, across), lymphoid(latents, chance, noise, layers),
        solid(latents, chance, layers), ring(latents, chance, noise, layers, placed),
    ])  # fmt: skip
    density, cover = paint(cells, noise)
    haematoxylin = layers.haematoxylin * (1 - cover) + density
    return transmitted(haematoxylin, layers.eosin * (1 - 0.6 * cover), latents)
