"""Liver veins of the abdomen phantom.

Two trees are grown in the patient frame of :mod:`bench.datasets.phantom_shapes`: main veins on
jittered anatomical control points (portal vein into Couinaud's sectors; right, middle and left
hepatic veins between them), then side branches that reach for random points of the liver while
they keep clear of the other tree, a simplified form of constrained constructive optimisation
(Schreiner and Buxbaum 1993, IEEE Trans Biomed Eng 40(5)). Growth never sees the voxel grid;
:func:`resolve` then chooses what a grid can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from bench.datasets.phantom_lesions import Lesion
from bench.datasets.phantom_shapes import LIVER_BOX, Lookup

Array = NDArray[Any]
PORTAL, HEPATIC = 0, 1
_BRANCHES, _CLEARANCE = 90, 8.0

_CONFLUENCE = (21.0, -10.0, 54.0)
_Route = tuple[int, int, float, float, list[tuple[float, float, float]]]
# (tree, parent row or -1, radius at the start and end in mm, control points); the order is the
# order of precedence where a coarse grid cannot hold two neighbouring veins apart.
_MAIN: list[_Route] = [
    (PORTAL, -1, 6.6, 6.2, [(-6, -2, -50), (4, -3, -30), (18, 2, -3)]),
    (PORTAL, 0, 5.4, 4.6, [(18, 2, -3), (36, 3, 5), (54, 1, 9)]),
    (PORTAL, 0, 5.0, 4.2, [(18, 2, -3), (8, 14, 10), (-6, 26, 18)]),
    (
        HEPATIC,
        -1,
        5.4,
        2.4,
        [_CONFLUENCE, (48, -14, 46), (76, -7, 26), (89, 1, -6), (91, 6, -30)],
    ),
    (HEPATIC, -1, 5.2, 2.4, [_CONFLUENCE, (27, 8, 46), (37, 25, 30), (43, 38, 8), (45, 46, -10)]),
    (
        HEPATIC,
        4,
        4.6,
        2.2,
        [_CONFLUENCE, (7, 3, 51), (-10, 16, 45), (-30, 26, 41), (-52, 34, 38)],
    ),
    (PORTAL, 1, 4.3, 2.6, [(54, 1, 9), (69, 20, 13), (79, 36, 28)]),
    (PORTAL, 1, 4.1, 2.4, [(54, 1, 9), (70, -24, 1), (86, -36, -16)]),
    (PORTAL, 2, 4.0, 3.0, [(-6, 26, 18), (-10, 40, 14), (-9, 51, 10)]),
    (PORTAL, 6, 3.4, 2.2, [(69, 20, 13), (76, 38, 0), (80, 42, -24)]),
    (PORTAL, 7, 3.2, 2.0, [(70, -24, 1), (78, -42, 14), (82, -46, 32)]),
    (PORTAL, 8, 3.0, 1.9, [(-8, 31, 17), (-28, 28, 22), (-52, 32, 26)]),
    (PORTAL, 8, 2.8, 1.8, [(-10, 46, 12), (-30, 50, 14), (-50, 50, 20)]),
    (PORTAL, 8, 2.8, 1.8, [(-9, 48, 11), (8, 56, 20), (20, 58, 34)]),
]


@dataclass(frozen=True)
class Vein:
    """A stretch of vein: centre line (n, 3), radii (n,) in mm, and the vein it springs from."""

    tree: int
    parent: int
    origin: int
    points: Array
    radii: Array


class Balls:
    """Union of balls with a fast distance: the power diagram as nearest neighbour in 4D.

    With the fourth coordinate sqrt(R^2 - r^2) the nearest ball in the 4D sense minimises
    |p - c|^2 - r^2 (Aurenhammer 1987, SIAM J Comput 16(1)), so the sign is that of the union.
    """

    def __init__(self, points: Array, radii: Array) -> None:
        self.radii = np.append(radii, 0.0)
        self.largest = float(radii.max())
        lift = np.sqrt(np.maximum(self.largest**2 - radii**2, 0.0))
        self.index = cKDTree(np.column_stack([points, lift]))

    def distance(self, points: Array, reach: float) -> Array:
        """Signed distance (n,) in mm of points (n, 3) to the union; capped at ``reach``."""
        lifted = np.column_stack([points, np.zeros(len(points))])
        bound = float(np.hypot(self.largest, reach) + reach)
        length, nearest = self.index.query(lifted, distance_upper_bound=bound)
        radius = self.radii[nearest]
        squared = length**2 - self.largest**2 + radius**2
        return np.asarray(np.minimum(np.sqrt(np.maximum(squared, 0.0)) - radius, reach))


def _resample(points: Array, radii: Array, step: float) -> tuple[Array, Array]:
    """Centre line and radii at equal arc-length steps of about ``step`` mm."""
    arc = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    at = np.linspace(0.0, arc[-1], max(2, int(np.ceil(arc[-1] / step)) + 1))
    line = np.column_stack([np.interp(at, arc, points[:, k]) for k in range(3)])
    return line, np.interp(at, arc, radii)


def main_veins(outside: Lookup, rng: np.random.Generator) -> list[Vein]:
    """The named veins; a vein ends where its smooth centre line would leave the liver."""
    veins: list[Vein] = []
    hilum, crown = rng.normal(size=3) * 2.5, rng.normal(size=3) * 2.0
    confluence = np.array(_CONFLUENCE) + crown
    # Under a low diaphragm the hepatic veins join the vena cava lower down.
    heights = np.arange(confluence[2], 34.0, -1.0)
    column = np.column_stack([np.tile(confluence[:2], (len(heights), 1)), heights])
    # The highest point 9 mm deep in the liver, or the deepest there is.
    confluence[2] = heights[np.maximum(outside(column), -9.0).argmin()]
    drop = confluence - _CONFLUENCE - crown
    for tree, parent, start, end, route in _MAIN:
        control = np.array(route, dtype=np.float64) + rng.normal(size=(len(route), 3)) * 2.5
        thickness = rng.uniform(1.05, 1.3)
        control += hilum if tree == PORTAL else crown
        if tree == HEPATIC:
            control += np.linspace(1.0, 0.0, len(control))[:, None] * drop
        origin = 0
        if parent >= 0:
            reach = np.linalg.norm(veins[parent].points - control[0], axis=1)
            origin = int(reach.argmin())
            control[0] = veins[parent].points[origin]
        elif tree == HEPATIC:
            control[0] = confluence
        knots = np.linspace(0.0, 1.0, len(control))
        smooth = make_interp_spline(knots, control, k=2)(np.linspace(0.0, 1.0, 40))
        points, radii = _resample(smooth, np.linspace(start, end, 40) * thickness, 4.0)
        inside = outside(points) < -0.5 * radii - 2.0
        # The portal trunk comes from outside; every other vein starts within the liver or cava.
        free = len(points) if tree == PORTAL and parent < 0 else 3
        leaves = np.flatnonzero(~inside[free:])
        stop = free + int(leaves[0]) if leaves.size else len(points)
        veins.append(Vein(tree, parent, origin, points[:stop], radii[:stop]))
    return veins


def _curve(start: Array, tangent: Array, target: Array) -> Array:
    """Quadratic Bezier centre line (n, 3) that leaves the parent gradually."""
    chord = target - start
    length = float(np.linalg.norm(chord))
    aim = chord / length + 0.8 * tangent
    control = start + 0.5 * length * aim / np.linalg.norm(aim)
    t = np.linspace(0.0, 1.0, max(4, int(length / 4.0) + 1))[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t * t * target)


def grow(
    outside: Lookup, veins: list[Vein], lesions: list[Lesion], rng: np.random.Generator
) -> list[Vein]:
    """Add side branches towards random points of the liver, the trees taking turns."""
    targets = rng.uniform(*LIVER_BOX, size=(1800, 3))
    targets = targets[outside(targets) < -7.0]
    veins = list(veins)
    points = [np.concatenate([v.points for v in veins if v.tree == t]) for t in (0, 1)]
    owner = [
        np.concatenate([np.full(len(v.points), i) for i, v in enumerate(veins) if v.tree == t])
        for t in (0, 1)
    ]
    grown = 0
    for k, target in enumerate(targets):
        tree = k % 2
        away = np.linalg.norm(points[tree] - target, axis=1)
        nearest = int(away.argmin())
        parent = int(owner[tree][nearest])
        origin = nearest - int(np.searchsorted(owner[tree], parent))
        vein = veins[parent]
        radius = min(0.8 * float(vein.radii[origin]), 2.9)
        if not 14.0 < away[nearest] < 55.0 or radius < 1.15 or origin == 0 or parent == 0:
            continue
        before = vein.points[origin] - vein.points[origin - 1]
        tangent = before / (np.linalg.norm(before) + 1e-9)
        line = _curve(vein.points[origin], tangent, target)
        if not _is_clear(outside, line[1:], points[1 - tree], points[tree], lesions):
            continue
        radii = np.linspace(radius, max(0.9, 0.62 * radius), len(line))
        veins.append(Vein(tree, parent, origin, line, radii))
        points[tree] = np.concatenate([points[tree], line])
        owner[tree] = np.append(owner[tree], np.full(len(line), len(veins) - 1))
        grown += 1
        if grown == _BRANCHES:
            break
    return veins


def _is_clear(
    outside: Lookup, line: Array, other: Array, own: Array, lesions: list[Lesion]
) -> bool:
    """Whether a new centre line stays in the liver, off the other tree, kin and lesions."""
    for lesion in lesions:
        if cdist(line, lesion.centre[None]).min() < 1.25 * lesion.radius + 3.0:
            return False
    if cdist(line, other).min() < _CLEARANCE or cdist(line[len(line) // 2 :], own).min() < 6.0:
        return False
    return bool(outside(line).max() < -4.0)


def resolve(
    veins: list[Vein], lesions: list[Lesion], voxel: float, gap: float, step: float
) -> tuple[list[Vein], list[Balls]]:
    """Veins that a grid can show, thickened to it, and the two trees as balls.

    ``voxel`` is the mean voxel side in mm. Veins much thinner than it are left out, the rest are
    at least about one voxel (trunks two) wide; a vein stops where it would come within ``gap`` mm
    of the other tree or reach a lesion, and what springs from its lost part is lost with it.
    """
    kept: dict[int, Vein] = {}
    dense: list[list[tuple[Array, Array]]] = [[], []]
    for i, vein in enumerate(veins):
        parent = kept.get(vein.parent)
        orphan = vein.parent >= 0 and (parent is None or vein.origin >= len(parent.points))
        if orphan or vein.radii[0] < 0.33 * voxel:
            continue
        # Thick where the anatomy is thick, so that a coarse grid still shows the taper.
        floor = voxel * np.interp(vein.radii, [1.0, 3.5, 5.5, 7.0], [0.62, 0.75, 0.92, 1.1])
        radii = np.maximum(vein.radii, floor)
        points = vein.points
        room = np.full(len(points), np.inf)
        for lesion in lesions:
            # Half a voxel of liver is enough between a vein and a lesion, hence "+ gap".
            room = np.minimum(room, lesion.distance(*points.T) - 0.5 * voxel + gap)
        if dense[1 - vein.tree]:
            others = np.concatenate([p for p, _ in dense[1 - vein.tree]])
            widths = np.concatenate([r for _, r in dense[1 - vein.tree]])
            room = np.minimum(room, (cdist(points, others) - widths).min(axis=1))
        touches = np.flatnonzero(room - radii < gap)
        stop = int(touches[0]) if touches.size else len(points)
        points, radii = points[:stop], radii[:stop]
        if len(points) < 3:
            continue
        kept[i] = Vein(vein.tree, vein.parent, vein.origin, points, radii)
        dense[vein.tree].append(_resample(points, radii, step))
    unions = [
        Balls(np.concatenate([p for p, _ in part]), np.concatenate([r for _, r in part]))
        for part in dense
    ]
    return list(kept.values()), unions
