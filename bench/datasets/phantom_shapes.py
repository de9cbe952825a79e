"""Shapes of the abdomen phantom as signed distances, and the random draw of one patient.

All coordinates are millimetres in a patient frame: x towards the patient's right, y anterior,
z superior; the origin lies on the midline at mid-liver height. Every function takes broadcastable
arrays x, y, z and returns an approximate signed distance in mm, negative inside, so that a boundary
can be drawn with a soft edge one voxel wide. Shapes are combined with the polynomial smooth
minimum of Quilez (https://iquilezles.org/articles/smin).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

Array = NDArray[Any]
Lookup = Callable[[Array], Array]

VENA_CAVA_XY = (17.0, -19.0)
VENA_CAVA_RADIUS = 10.0
VERTEBRA_PERIOD = 31.0
# Lowest and highest corner of a box around every liver.
LIVER_BOX = ((-90.0, -80.0, -95.0), (125.0, 90.0, 90.0))


@dataclass(frozen=True)
class Patient:
    """One patient's habitus; lengths in mm."""

    scale: float
    half_width: float
    half_depth: float
    fat: float
    muscle: float
    dome: float
    dome_x: float
    left_reach: float
    left_height: float
    left_depth: float
    inferior: float
    slope: float
    kidney: tuple[float, float]
    spleen: tuple[float, float]
    gallbladder: float
    stomach: float
    gas_level: float
    spine_phase: float
    bowel: Array
    bowel_radii: Array
    warp_vectors: Array
    warp_frequencies: Array
    warp_phases: Array


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw the habitus of one patient; uses the same number of draws for every patient."""
    waves = 6
    direction = rng.normal(size=(waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength = rng.uniform(90.0, 190.0, size=(waves, 1))
    # Amplitude grows with the wavelength, so that no wave folds space.
    amplitude = rng.normal(size=(waves, 3)) * wavelength / 95.0
    phases = rng.uniform(0.0, 2.0 * np.pi, size=waves)
    # Bowel loops: random walks (loops, points, xyz) through the lower abdomen.
    starts = rng.uniform((-90.0, 0.0, -95.0), (80.0, 60.0, -8.0), size=(20, 1, 3))
    steps = np.cumsum(rng.normal(size=(20, 4, 3)) * (18.0, 10.0, 8.0), axis=1)
    bowel = np.clip(starts + steps, (-92.0, -8.0, -130.0), (92.0, 64.0, -6.0))
    bowel[..., :2] /= np.maximum(np.hypot(bowel[..., 0] / 76, bowel[..., 1] / 48), 1.0)[..., None]
    return Patient(
        scale=rng.uniform(0.92, 1.03),
        half_width=rng.uniform(121.0, 133.0),
        half_depth=rng.uniform(88.0, 99.0),
        fat=rng.uniform(7.0, 17.0),
        muscle=rng.uniform(8.0, 11.0),
        dome=rng.uniform(75.0, 86.0),
        dome_x=rng.uniform(52.0, 64.0),
        left_reach=rng.uniform(38.0, 80.0),
        left_height=rng.uniform(34.0, 42.0),
        left_depth=rng.uniform(33.0, 42.0),
        inferior=rng.uniform(-82.0, -58.0),
        slope=rng.uniform(0.5, 0.72),
        kidney=(rng.uniform(-58.0, -38.0), rng.uniform(-42.0, -20.0)),
        spleen=(rng.uniform(38.0, 58.0), rng.uniform(12.0, 32.0)),
        gallbladder=rng.uniform(0.75, 1.25),
        stomach=rng.uniform(0.8, 1.2),
        gas_level=rng.uniform(8.0, 26.0),
        spine_phase=rng.uniform(0.0, VERTEBRA_PERIOD),
        bowel=bowel,
        bowel_radii=rng.uniform(8.0, 14.0, size=20),
        warp_vectors=amplitude.astype(np.float32),
        warp_frequencies=(2.0 * np.pi * direction / wavelength).astype(np.float32),
        warp_phases=phases.astype(np.float32),
    )


def smooth_min(a: Array, b: Array, k: float) -> Array:
    """Union of two distances, blended over k mm."""
    h = np.maximum(k - np.abs(a - b), 0.0)
    return np.asarray(np.minimum(a, b) - h * h * (0.25 / k))


def smooth_max(a: Array, b: Array, k: float) -> Array:
    """Intersection of two distances, blended over k mm."""
    return -smooth_min(-a, -b, k)


def ellipsoid(
    x: Array,
    y: Array,
    z: Array,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
) -> Array:
    """Distance to an axis-aligned ellipsoid, exact to first order at its surface (Quilez)."""
    u, v, w = ((p - c) / r for p, c, r in zip((x, y, z), centre, radii, strict=True))
    k0 = np.sqrt(u * u + v * v + w * w)
    k1 = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    return np.asarray(k0 * (k0 - 1.0) / np.maximum(k1, 1e-6))


def capsule(x: Array, y: Array, z: Array, start: Array, end: Array, radii: Array) -> Array:
    """Distance to a segment start-end (3,) thickened linearly from radii[0] to radii[1]."""
    axis = end - start
    length2 = max(float(axis @ axis), 1e-9)
    dx, dy, dz = x - start[0], y - start[1], z - start[2]
    t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / length2, 0.0, 1.0)
    distance = np.sqrt((dx - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dz - t * axis[2]) ** 2)
    return np.asarray(distance - (radii[0] + t * (radii[1] - radii[0])))


def skin(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the body surface: a superellipse that narrows upwards, grooved at the back."""
    taper = 1.0 + 0.0006 * z
    u, v = np.abs(x) * taper / p.half_width, np.abs(y) * taper / p.half_depth
    q = np.maximum((u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** 0.4, 1e-3)
    radial = np.sqrt(x * x + y * y) + 1e-3
    groove = 6.0 * np.exp(-((x / 13.0) ** 2)) * (y < 0)
    return np.asarray(radial * (1.0 - 1.0 / q) + groove)


def fat_thickness(p: Patient, x: Array, y: Array) -> Array:
    """Thickness of the subcutaneous fat in mm: thickest at the flanks and loins."""
    return p.fat * (0.75 + 0.45 * np.abs(x) / p.half_width - 0.25 * y / p.half_depth)


def cavity(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the inner face of the trunk wall."""
    return skin(p, x, y, z) + fat_thickness(p, x, y) + p.muscle


def diaphragm(p: Patient, x: Array, y: Array) -> Array:
    """Height z in mm of the diaphragm: a high right dome, a lower left one."""
    back = ((y - 6.0) / 78.0) ** 2
    right = p.dome - 36.0 * ((x - p.dome_x) / 92.0) ** 2 - 46.0 * back
    left = p.dome - 12.0 - 30.0 * ((x + 58.0) / 60.0) ** 2 - 46.0 * back
    return -smooth_min(-right, -left, 14.0)


def spine(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the column of vertebral bodies, waisted between the end plates."""
    phase = np.cos(2.0 * np.pi * (z + p.spine_phase) / VERTEBRA_PERIOD)
    u, v = x / (20.5 - 1.2 * phase), (y + 46.0) / (16.5 - 1.2 * phase)
    q = (u * u * u * u + v * v * v * v) ** 0.25
    back = -61.0 - y
    return np.asarray(np.maximum((q - 1.0) * 17.0, back))


def kidney(x: Array, y: Array, z: Array, side: float, height: float) -> Array:
    """Distance to a bean-shaped kidney; side +1 right, -1 left; height z of its centre."""
    dz = z - height
    # The upper pole leans towards the spine and backwards along the psoas.
    xs, ys = side * x - 54.0 + 0.22 * dz, y + 41.0 + 0.12 * dz
    body = ellipsoid(xs, ys, dz, (0.0, 0.0, 0.0), (24.0, 21.0, 49.0))
    hilum = ellipsoid(xs, ys, dz, (-25.0, 10.0, 0.0), (15.0, 10.0, 16.0))
    return smooth_max(body, -hilum, 6.0)


def gallbladder(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the gallbladder, a pear under segments IV and V."""
    g = p.gallbladder
    fundus = ellipsoid(x, y, z, (48.0, 46.0, -38.0), (12.0 * g, 15.0 * g, 15.0 * g))
    neck = ellipsoid(x, y, z, (39.0, 26.0, -22.0), (7.0 * g, 12.0 * g, 8.0 * g))
    return smooth_min(fundus, neck, 12.0)


def right_lobe(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Right lobe: everything between the medial face and a slanting visceral face."""
    # The visceral face rises towards the midline and the back, and is slightly concave.
    underside = p.inferior + p.slope * (106.0 - x) - 0.28 * y + 0.0022 * (x - 60.0) ** 2
    medial = 9.0 - 0.16 * z + 0.0040 * (y - 20.0) ** 2 - x
    return smooth_max((underside - z) * 0.8, medial, 24.0)


def left_lobe(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Left lobe: a wedge in front of the stomach, tapering across the midline."""
    tip = -p.left_reach
    t = np.clip((26.0 - x) / (26.0 - tip), 0.0, 1.0)
    beyond = np.maximum(tip - x, 0.0) + np.maximum(x - 26.0, 0.0)
    radius_y = p.left_depth + (11.0 - p.left_depth) * t
    radius_z = p.left_height + (13.0 - p.left_height) * t
    v = (y - (34.0 + 8.0 * t)) / radius_y
    w = (z - (14.0 + 15.0 * t)) / radius_z
    q = np.sqrt(v * v + w * w + (beyond / 12.0) ** 2)
    return np.asarray((q - 1.0) * np.minimum(radius_y, radius_z))


def liver(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the liver with the retrohepatic vena cava still filled in."""
    f = smooth_min(right_lobe(p, x, y, z), left_lobe(p, x, y, z), 18.0)
    caudate = ellipsoid(x, y, z, (6.0, -6.0, 24.0), (15.0, 11.0, 24.0))
    f = smooth_min(f, caudate, 8.0)
    f = smooth_max(f, cavity(p, x, y, z) + 2.5, 10.0)
    f = smooth_max(f, (z - diaphragm(p, x, y)) * 0.85 + 2.5, 12.0)
    # Neighbours press their beds into the liver.
    f = smooth_max(f, 5.0 - kidney(x, y, z, 1.0, p.kidney[0]), 8.0)
    f = smooth_max(f, 10.0 - spine(p, x, y, z), 8.0)
    f = smooth_max(f, 1.5 - gallbladder(p, x, y, z), 4.0)
    porta = ellipsoid(x, y, z, (14.0, 0.0, -16.0), (17.0, 9.0, 13.0))
    falciform = ellipsoid(x, y, z, (-6.0, 52.0, -14.0), (3.5, 24.0, 20.0))
    venosum = ellipsoid(x + 0.25 * y, y, z, (-2.0, 9.0, 16.0), (19.0, 2.5, 20.0))
    for cleft in (porta, falciform, venosum):
        f = smooth_max(f, -cleft, 5.0)
    return f


def liver_lookup(patient: Patient) -> Lookup:
    """Distance to the liver at points (n, 3), interpolated from a 7 mm lattice: many small queries.

    Outside the lattice the answer is 100 mm.
    """
    axes = [np.arange(lo, hi, 7.0) for lo, hi in zip(*LIVER_BOX, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    values = liver(patient, x, y, z)
    lookup: Lookup = RegularGridInterpolator(axes, values, bounds_error=False, fill_value=100.0)
    return lookup


def vena_cava(x: Array, y: Array) -> Array:
    """Distance to the inferior vena cava, a slightly flattened vertical tube."""
    u, v = (x - VENA_CAVA_XY[0]) / 1.15, y - VENA_CAVA_XY[1]
    return np.asarray(np.sqrt(u * u + v * v) - VENA_CAVA_RADIUS)


def spleen(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the spleen: a crescent between the left wall and stomach and kidney."""
    half_height, height = p.spleen
    body = ellipsoid(x, y, z, (-84.0, -36.0, height), (36.0, 48.0, half_height))
    f = smooth_max(body, cavity(p, x, y, z) + 3.0, 8.0)
    f = smooth_max(f, (z - diaphragm(p, x, y)) * 0.85 + 2.5, 8.0)
    f = smooth_max(f, 4.0 - kidney(x, y, z, -1.0, p.kidney[1]), 8.0)
    visceral = ellipsoid(x, y, z, (-44.0, -2.0, height + 4.0), (31.0, 34.0, 62.0))
    return smooth_max(f, -visceral, 8.0)


def stomach(p: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance to the stomach: fundus under the left dome, body bending to the midline."""
    s = p.stomach
    fundus = ellipsoid(x, y, z, (-56.0, 0.0, 34.0), (27.0 * s, 29.0 * s, 28.0 * s))
    body = ellipsoid(x + 0.5 * z, y, z, (-48.0, 26.0, -6.0), (23.0 * s, 22.0 * s, 38.0 * s))
    antrum = ellipsoid(x, y, z, (-12.0, 36.0, -40.0), (32.0 * s, 15.0 * s, 14.0 * s))
    f = smooth_min(smooth_min(fundus, body, 16.0), antrum, 16.0)
    f = smooth_max(f, cavity(p, x, y, z) + 4.0, 6.0)
    return smooth_max(f, (z - diaphragm(p, x, y)) * 0.85 + 3.0, 8.0)


def ribs(p: Patient, x: Array, y: Array, z: Array, fascia: Array) -> Array:
    """Distance to the ribs, oblique bars in the trunk wall that fall towards the front.

    ``fascia`` is the distance to the outer face of the muscle wall.
    """
    period = 25.0
    depth = fascia + 0.5 * p.muscle
    along = z + 0.42 * y + p.spine_phase
    offset = along - period * np.round(along / period)
    f = np.sqrt(depth * depth + (0.75 * offset) ** 2) - 0.42 * p.muscle
    costal_margin = 0.75 * (y - 20.0) - 34.0 - z
    return np.asarray(np.maximum(np.maximum(f, costal_margin), 22.0 - np.abs(x)))
