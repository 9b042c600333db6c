"""The parts of a drawn chest, and how they become a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import cos, pi, sin
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Pair = tuple[float, float]
Part = TypeVar("Part", "Anatomy", "Focus")

BACTERIAL_SHARE = 2 / 3

# What each part adds to the shadow or takes from it, where a child's trunk adds one half.
TRUNK, NECK, ARM, JAW, ABDOMEN = 0.50, 0.40, 0.22, 0.45, 0.36
HEART, MEDIASTINUM, VESSEL = 0.36, 0.24, 0.11
SPINE, DISC_GAP, RIB, ANTERIOR_RIB, CLAVICLE, HUMERUS = 0.26, 0.10, 0.17, 0.06, 0.20, 0.22
AIR, TRACHEA, STOMACH_GAS = 0.38, 0.13, 0.26
MIN_DENSITY = 0.01
FINE_SIDE = 128

RAISED_ARMS = (-0.25, -0.25)
UNLIT = 0.15

COARSE_NODES, FINE_NODES, NODE_REACH = 10, 52, 1.25
MARKER_CELLS, LEAD = 70, 0.9
MARKERS = {"R": ("110", "101", "110", "101", "101"), "L": ("100", "100", "100", "100", "111")}


Draw = Callable[[np.random.Generator], Any]


def _range(low: float, high: float) -> dict[str, Draw]:
    """Of a field that is drawn uniformly."""
    return {"draw": lambda rng: rng.uniform(low, high)}


def _pair(low: float, high: float, spread: float) -> dict[str, Draw]:
    """Of a field that is drawn for the patient's right and left, alike up to `spread`."""
    return {"draw": lambda rng: tuple((rng.uniform(low, high) + rng.uniform(-spread, spread, 2)).tolist())}


def _chance(probability: float) -> dict[str, Draw]:
    """Of a field that is true with a probability."""
    return {"draw": lambda rng: rng.random() < probability}


def _lattice(nodes: int) -> dict[str, Draw]:
    """Of a field of standard normals, for `Grid.noise`."""
    return {"draw": lambda rng: rng.standard_normal((nodes, nodes), dtype=np.float32)}


def draw(part: type[Part], rng: np.random.Generator, **known: Any) -> Part:
    """Draw the fields of a part that are not known."""
    return part(**{f.name: f.metadata["draw"](rng) for f in fields(part) if f.name not in known}, **known)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient, in body coordinates: both axes run over [-1, 1], down and to the patient's left.

    Pairs are (patient's right, patient's left).
    """

    trunk: float = field(metadata=_range(0.72, 0.88))
    waist: float = field(metadata=_range(-0.05, 0.12))
    neck: float = field(metadata=_range(0.24, 0.32))
    jaw: float = field(metadata=_range(-1.20, -0.88))
    shoulder: float = field(metadata=_range(-0.88, -0.78))
    arms_down: bool = field(metadata=_chance(0.6))
    arm_reach: Pair = field(metadata=_pair(0.22, 0.42, 0.06))
    arm_length: Pair = field(metadata=_pair(0.7, 1.2, 0.12))
    apex: Pair = field(metadata=_pair(-0.74, -0.64, 0.02))
    base: float = field(metadata=_range(0.44, 0.62))
    right_rise: float = field(metadata=_range(0.03, 0.10))
    chest_wall: Pair = field(metadata=_pair(0.06, 0.13, 0.02))
    dome: float = field(metadata=_range(0.07, 0.15))
    lung_gap: float = field(metadata=_range(0.10, 0.14))
    aeration: Pair = field(metadata=_pair(0.72, 0.95, 0.07))
    mottling: float = field(metadata=_range(0.02, 0.12))
    heart_left: float = field(metadata=_range(0.08, 0.14))
    heart_rise: float = field(metadata=_range(0.16, 0.26))
    heart_width: float = field(metadata=_range(0.25, 0.38))
    heart_height: float = field(metadata=_range(0.36, 0.46))
    heart_lean: float = field(metadata=_range(0.35, 0.80))
    thymus: float = field(metadata=_range(0.13, 0.23))
    spine: float = field(metadata=_range(0.075, 0.10))
    vertebra: float = field(metadata=_range(0.12, 0.16))
    rib_spacing: float = field(metadata=_range(0.135, 0.185))
    rib_slope: float = field(metadata=_range(-0.20, 0.15))
    rib_drop: float = field(metadata=_range(0.45, 0.95))
    rib_sharpness: float = field(metadata=_range(2.0, 3.5))
    rib_phase: Pair = field(metadata=_pair(0.0, 1.0, 0.12))
    clavicle_rise: Pair = field(metadata=_pair(-0.05, 0.18, 0.04))
    hilum: float = field(metadata=_range(-0.08, 0.06))
    vessel_count: Pair = field(metadata=_pair(9.0, 12.0, 1.0))
    vessel_strength: float = field(metadata=_range(0.5, 1.6))
    stomach_gas: bool = field(metadata=_chance(0.4))
    gas_left: float = field(metadata=_range(0.30, 0.45))
    gas_size: float = field(metadata=_range(0.05, 0.15))
    coarse: FloatArray = field(metadata=_lattice(COARSE_NODES))
    fine: FloatArray = field(metadata=_lattice(FINE_NODES))

    @property
    def lung_width(self) -> Pair:
        """Width of each lung, from the mediastinum to the chest wall."""
        right, left = self.chest_wall
        return self.trunk - self.lung_gap - right, self.trunk - self.lung_gap - left


@dataclass(frozen=True, slots=True)
class Focus:
    """A consolidation: where in which lung (in shares of its size), how large, cut off by a fissure or not."""

    density: float
    left: bool = field(metadata=_chance(0.5))
    depth: float = field(metadata=_range(0.25, 0.85))
    lateral: float = field(metadata=_range(0.25, 0.75))
    radius: float = field(metadata=_range(0.20, 0.36))
    aspect: float = field(metadata=_range(0.7, 1.3))
    fissure: bool = field(metadata=_chance(0.4))


@dataclass(frozen=True, slots=True)
class Illness:
    """What fills a patient's lungs: nothing, some foci, or haze; shares of the air, in [0, 1]."""

    foci: tuple[Focus, ...] = ()
    haze: float = 0.0
    perihilar: float = 0.0
    reticulation: float = 0.0
    hyperinflation: float = 0.0


def draw_illness(name: str, difficulty: float, rng: np.random.Generator) -> Illness:
    """Draw the illness of a patient of the class `name`; a higher difficulty makes its signs fainter."""
    faintest = 0.6 * (1 - difficulty)
    strength = (1 - 0.5 * difficulty) * rng.uniform(faintest, 1.0)
    if name == "normal":
        return Illness()
    if name == "bacterial" or (name == "pneumonia" and rng.random() < BACTERIAL_SHARE):
        first = draw(Focus, rng, density=strength)
        second = draw(Focus, rng, density=strength, left=first.left)
        return Illness(foci=(first, second) if rng.random() < 0.35 else (first,))
    return Illness(
        haze=strength * rng.uniform(0.10, 0.35),
        perihilar=strength * rng.uniform(0.35, 0.75),
        reticulation=strength * rng.uniform(0.12, 0.30),
        hyperinflation=strength * rng.uniform(0.3, 1.0),
    )


@dataclass(frozen=True, slots=True)
class Grid:
    """The body coordinates of each pixel of one image: across, down, distance from the midline, side.

    `rows` and `columns` leave the tilt out, so that smooth noise is a product of matrices.
    """

    u: FloatArray
    v: FloatArray
    s: FloatArray
    left: NDArray[np.bool_]
    rows: FloatArray
    columns: FloatArray

    def pick(self, pair: Pair) -> FloatArray:
        """Take the right value on the patient's right, the left one on the left."""
        return np.where(self.left, np.float32(pair[1]), np.float32(pair[0]))

    def noise(self, lattice: FloatArray) -> FloatArray:
        """Interpolate a lattice of standard normals to smooth noise of about unit variance."""
        nodes = np.linspace(-NODE_REACH, NODE_REACH, len(lattice), dtype=np.float32)
        spacing = 2 * NODE_REACH / (len(lattice) - 1)
        down, across = (_bump(line[:, None] - nodes, spacing) for line in (self.rows, self.columns))
        return np.asarray(down @ lattice @ across.T * (2 / pi) ** 0.5)


@dataclass(frozen=True, slots=True)
class Lungs:
    """The air's mask and the distances that other parts are drawn from."""

    mask: FloatArray
    depth: FloatArray
    outer: FloatArray
    below: FloatArray


def _soft(distance: FloatArray, width: float) -> FloatArray:
    """Rise smoothly from 0 to 1 where `distance` changes sign, over about four times `width`."""
    return np.asarray(0.5 * np.tanh(distance * (0.5 / width)) + 0.5)


def _bump(distance: FloatArray, width: float) -> FloatArray:
    """A ridge of height 1 along `distance` = 0."""
    return np.asarray(np.exp(-((distance * (1 / width)) ** 2)))


def _stripes(phase: FloatArray, sharpness: float) -> FloatArray:
    """Ridges of height 1 at whole numbers of `phase`, thinner the sharper."""
    return np.asarray(np.exp(sharpness * (np.cos(phase * (2 * pi)) - 1)))


def _segment_distance(grid: Grid, start: Pair, end: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Distance of every pixel, mirrored at the midline, from a straight segment."""
    du, dv = end[0] - start[0], end[1] - start[1]
    pu, pv = grid.s - start[0], grid.v - start[1]
    along = np.clip((pu * du + pv * dv) / (du * du + dv * dv), 0, 1)
    return np.asarray(np.sqrt((pu - along * du) ** 2 + (pv - along * dv) ** 2))


def _outline(grid: Grid, body: Anatomy) -> FloatArray:
    """Trunk, neck and arms: thick in the middle, thin at the skin."""
    girth = body.trunk * (1 - body.waist * (grid.v - 0.3) ** 2)
    half_width = body.neck + (girth - body.neck) * _soft(grid.v - body.shoulder, 0.05)
    inside = np.clip(1 - (grid.s / half_width) ** 2, 0, 1)
    trunk = (NECK + (TRUNK - NECK) * _soft(grid.v - body.shoulder, 0.06)) * np.sqrt(np.sqrt(inside))
    length = body.arm_length if body.arms_down else RAISED_ARMS
    end = (body.trunk + grid.pick(body.arm_reach), body.shoulder + grid.pick(length))
    from_bone = _segment_distance(grid, (body.trunk - 0.10, body.shoulder + 0.16), end)
    arm = ARM * _soft(0.15 - from_bone, 0.015) + HUMERUS * _bump(from_bone, 0.045)
    chin = (grid.s / 0.45) ** 2 + ((grid.v - body.jaw + 0.5) / 0.5) ** 2
    return np.asarray(np.maximum(trunk, arm) + JAW * _soft(1 - chin, 0.06))


def _lungs(grid: Grid, body: Anatomy, hyperinflation: float) -> Lungs:
    """Two fields between the mediastinum, the chest wall and the domes of the diaphragm."""
    stretch = 0.07 * hyperinflation
    apex, width = grid.pick(body.apex), grid.pick(body.lung_width)
    base = grid.pick((body.base + stretch - body.right_rise, body.base + stretch))
    depth = (grid.v - apex) / (base - apex)
    rise = np.clip(1 - 0.85 * depth, 0, 1)
    outer = body.lung_gap + width * np.sqrt(1 - rise * rise) * (1 + 0.05 * hyperinflation) - grid.s
    dome = body.dome * (1 - 0.5 * hyperinflation)
    bulge = (grid.s - body.lung_gap - 0.35 * width) / width
    below = grid.v - base - dome * (4 * bulge * bulge - 0.5)
    inside = np.minimum(np.minimum(outer, grid.s - body.lung_gap), -below)
    return Lungs(mask=_soft(inside, 0.014) * (depth > 0), depth=depth, outer=outer, below=below)


def _abdomen(grid: Grid, body: Anatomy, lungs: Lungs) -> FloatArray:
    """The liver and what lies below the diaphragm, with a gas bubble in some stomachs."""
    wall = _soft(body.trunk - 0.06 - grid.s, 0.05)
    liver = ABDOMEN * _soft(lungs.below + 0.1 * _bump(grid.s, 0.15), 0.015) * wall
    if not body.stomach_gas:
        return liver
    across, down = grid.u - body.gas_left, grid.v - body.base - 0.08 - body.gas_size
    bubble = (across / (1.7 * body.gas_size)) ** 2 + (down / body.gas_size) ** 2
    return liver - STOMACH_GAS * _soft(1 - bubble, 0.12)


def _heart(grid: Grid, body: Anatomy, hyperinflation: float) -> FloatArray:
    """A leaning ellipse and the mediastinum above it."""
    wide, high = body.heart_width * (1 - 0.12 * hyperinflation), body.heart_height
    du, dv = grid.u - body.heart_left, grid.v - body.base + body.heart_rise
    lean_u, lean_v = cos(body.heart_lean), sin(body.heart_lean)
    across, along = du * lean_u - dv * lean_v, du * lean_v + dv * lean_u
    radius = np.sqrt((across / wide) ** 2 + (along / high) ** 2)
    width = body.lung_gap + (body.thymus - body.lung_gap) * _bump(grid.v + 0.25, 0.3)
    column = _soft(width - grid.s, 0.02) * _soft(grid.v + 0.75, 0.04)
    shadow = _soft(1 - radius, 0.04)
    return HEART * shadow + MEDIASTINUM * column * (1 - shadow)


def _spine(grid: Grid, body: Anatomy) -> FloatArray:
    """A bright column with darker discs, and the windpipe before its upper end."""
    discs = _stripes(grid.v / body.vertebra, 3.0)
    column = _soft(body.spine - grid.s, 0.012) * (SPINE - DISC_GAP * discs)
    return column - TRACHEA * _bump(grid.s, 0.04) * _soft(-0.25 - grid.v, 0.04)


def _ribs(grid: Grid, body: Anatomy, lungs: Lungs, hyperinflation: float) -> FloatArray:
    """Posterior ribs as bright arcs that fall off sideways, anterior ones fainter and crossing them."""
    drop = body.rib_drop * (1 - 0.3 * hyperinflation)
    arc = grid.v - body.rib_slope * grid.s - drop * grid.s * grid.s
    phase = arc / body.rib_spacing + grid.pick(body.rib_phase)
    cage = _soft(lungs.outer + 0.05, 0.012) * _soft(grid.v + 0.80, 0.03) * _soft(0.72 - grid.v, 0.06)
    edge = 1 + 0.8 * _bump(lungs.outer + 0.02, 0.04)
    front = _stripes((grid.v + 0.75 * grid.s) / (1.25 * body.rib_spacing), 4.0) * _soft(grid.s - 0.32, 0.05)
    return cage * (RIB * edge * _stripes(phase, body.rib_sharpness) + ANTERIOR_RIB * front)


def _clavicles(grid: Grid, body: Anatomy) -> FloatArray:
    """Two slender bones from the breastbone out to the shoulders."""
    out = np.clip((grid.s - 0.10) / 0.55, 0, 1)
    height = -0.60 - grid.pick(body.clavicle_rise) * out - 0.05 * np.sin(pi * out)
    ends = _soft(grid.s - 0.10, 0.012) * _soft(0.66 - grid.s, 0.02)
    return CLAVICLE * _bump(grid.v - height, 0.035) * ends


def _around_hila(grid: Grid, body: Anatomy) -> tuple[FloatArray, FloatArray]:
    """Distance from the nearer hilum and the angle around it, in turns."""
    du, dv = grid.s - (body.lung_gap + 0.05), grid.v - body.hilum
    return np.sqrt(du * du + dv * dv), np.arctan2(dv, du) * (0.5 / pi)


def _vessels(grid: Grid, body: Anatomy, distance: FloatArray, angle: FloatArray, warp: FloatArray) -> FloatArray:
    """Branches that leave the hila, double on their way and fade."""
    turns = angle * grid.pick(body.vessel_count) + 0.35 * warp
    trunks = _stripes(turns, 3.0) * np.exp(-5.0 * distance)
    twigs = _stripes(2 * turns + 0.5, 2.0) * np.exp(-2.5 * distance) * _soft(distance - 0.18, 0.04)
    return np.asarray(VESSEL * body.vessel_strength * (trunks + 0.6 * twigs + _bump(distance, 0.11)))


def _opacities(
    grid: Grid, body: Anatomy, illness: Illness, lungs: Lungs, hilar: FloatArray, warp: FloatArray
) -> FloatArray:
    """The share of the lungs' air that is missing: breathed out in everybody, displaced by fluid in the ill."""
    clear = grid.pick(body.aeration) * (1 - body.mottling * grid.noise(body.coarse[::-1]))
    for focus in illness.foci:
        side = int(focus.left)
        du = grid.s - body.lung_gap - focus.lateral * body.lung_width[side]
        dv = lungs.depth - focus.depth
        radius = np.sqrt((du / (focus.radius * focus.aspect)) ** 2 + (dv / focus.radius) ** 2)
        filled = _soft(1 - radius + 0.15 * warp, 0.10) * (grid.left == focus.left)
        if focus.fissure:
            filled = filled * _soft(0.35 * focus.radius - dv, 0.015)
        clear = clear * (1 - focus.density * filled)
    if illness.haze > 0:
        net = np.maximum(1 - np.abs(grid.noise(body.fine)), -0.5)
        cuffs = illness.perihilar * _bump(hilar, 0.42) * (0.75 + 0.25 * warp)
        haze = illness.haze + cuffs + illness.reticulation * net * (1 + 0.5 * warp)
        clear = clear * (1 - np.clip(haze, 0, 0.9))
    return 1 - clear


def _density(grid: Grid, body: Anatomy, illness: Illness) -> FloatArray:
    """Everything in the way of the rays, added up."""
    warp = grid.noise(body.coarse)
    lungs = _lungs(grid, body, illness.hyperinflation)
    hilar, angle = _around_hila(grid, body)
    filled = _opacities(grid, body, illness, lungs, hilar, warp)
    air = AIR * (1 - filled) - _vessels(grid, body, hilar, angle, warp)
    heart = _heart(grid, body, illness.hyperinflation)
    bones = _spine(grid, body) + _ribs(grid, body, lungs, illness.hyperinflation) + _clavicles(grid, body)
    return _outline(grid, body) + _abdomen(grid, body, lungs) + heart + bones - lungs.mask * air


def _position(height: int, width: int, rng: np.random.Generator) -> Grid:
    """Lay the patient on the table: a small tilt, shift and scale."""
    tilt, across, down = rng.normal(0.0, 0.035), rng.normal(0.0, 0.035), rng.normal(0.0, 0.035)
    scale = rng.uniform(0.95, 1.12)
    columns = ((np.arange(width, dtype=np.float32) + 0.5) * (2 / width) - 1 - across) / scale
    rows = ((np.arange(height, dtype=np.float32) + 0.5) * (2 / height) - 1 - down) / scale
    u, v = columns - tilt * rows[:, None], rows[:, None] + tilt * columns
    return Grid(u=u, v=v, s=np.abs(u), left=u > 0, rows=rows, columns=columns)


def _expose(density: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Turn density into brightness: exposure, fog and a gradient across the plate."""
    contrast, white, fog = rng.uniform(1.5, 2.3), rng.uniform(0.82, 0.98), max(0.0, rng.normal(0.02, 0.03))
    slope = np.linspace(1, 1 + rng.normal(0.0, 0.06), density.shape[1], dtype=np.float32)
    film = 1 - np.exp(-contrast * np.maximum(density, MIN_DENSITY))
    return np.asarray(fog + (white - fog) * film * slope)


def _collimate(image: FloatArray, rng: np.random.Generator) -> None:
    """Shade the borders that the beam did not reach, in some images."""
    height, width = image.shape
    top, bottom, left, right = np.maximum(rng.uniform(-0.15, 0.05, 4), 0)
    lit = (
        slice(round(top * height), round((1 - bottom) * height)),
        slice(round(left * width), round((1 - right) * width)),
    )
    seen = image[lit].copy()
    image *= UNLIT
    image[lit] = seen


def _mark(image: FloatArray, rng: np.random.Generator) -> None:
    """Put the letter of the side into an upper corner of most images."""
    letter, shown = ("R" if rng.random() < 0.8 else "L"), rng.random() < 0.7
    top, aside = rng.uniform(0.03, 0.35), rng.uniform(0.02, 0.08)
    if not shown:
        return
    cell = max(1, round(min(image.shape) / MARKER_CELLS))
    glyph = np.array([[mark == "1" for mark in row] for row in MARKERS[letter]]).repeat(cell, 0).repeat(cell, 1)
    row, column = round(top * image.shape[0]), round(aside * image.shape[1])
    if letter == "L":
        column = image.shape[1] - glyph.shape[1] - column
    image[row : row + glyph.shape[0], column : column + glyph.shape[1]][glyph] = LEAD


def render(body: Anatomy, illness: Illness, height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one image of a patient: finer than asked, then averaged, so that thin ribs do not alias."""
    factor = max(1, round(FINE_SIDE / min(height, width)))
    grid = _position(height * factor, width * factor, rng)
    image = _expose(_density(grid, body, illness), rng)
    _collimate(image, rng)
    _mark(image, rng)
    image = image.reshape(height, factor, width, factor).mean((1, 3))
    grain = rng.uniform(0.006, 0.022) * rng.standard_normal((height, width), dtype=np.float32)
    return np.asarray(np.clip(np.rint(255 * (image + grain)), 0, 255), dtype=np.uint8)
