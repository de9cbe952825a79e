"""Hepatocellular carcinomas of the abdomen phantom, in its patient frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bench.datasets.phantom_shapes import LIVER_BOX, Lookup

Array = NDArray[Any]


@dataclass(frozen=True)
class Lesion:
    """A hepatocellular carcinoma: a lobulated ball; lengths in mm, intensities relative."""

    centre: Array
    radius: float
    lobes: Array
    phases: Array
    intensity: float
    capsule: float
    core: float

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Approximate signed distance in mm, negative inside."""
        d = np.stack([x - self.centre[0], y - self.centre[1], z - self.centre[2]])
        length = np.sqrt((d * d).sum(axis=0)) + 1e-6
        bump = np.zeros_like(length)
        for direction, phase in zip(self.lobes, self.phases, strict=True):
            bump += np.sin(np.tensordot(direction, d, axes=1) / length + phase)
        return np.asarray(length - self.radius * (1.0 + 0.07 * bump))


def place_lesions(outside: Lookup, large_veins: Array, rng: np.random.Generator) -> list[Lesion]:
    """0 to 3 lesions (none in a quarter of patients), clear of large veins and of each other.

    ``large_veins`` are points (n, 3) in mm on their centre lines.
    """
    count = int(rng.choice(4, p=[0.25, 0.35, 0.25, 0.15]))
    candidates = rng.uniform(*LIVER_BOX, size=(2500, 3))
    depth = -outside(candidates)
    vein_room = cKDTree(large_veins).query(candidates)[0] - 13.0
    lesions: list[Lesion] = []
    for _ in range(3):
        wanted = float(np.exp(rng.uniform(np.log(8.5), np.log(27.0))))
        pick, lobes = rng.uniform(), rng.normal(size=(4, 3)) * 2.2
        phases, look = rng.uniform(0.0, 2.0 * np.pi, size=4), rng.uniform(size=3)
        if len(lesions) == count:
            break
        room = np.minimum(depth / 0.75, vein_room / 1.15)
        for other in lesions:
            apart = np.linalg.norm(candidates - other.centre, axis=1)
            room = np.minimum(room, apart - 1.25 * other.radius - 16.0)
        radius = min(wanted, float(np.sort(room)[-5]))
        fits = np.flatnonzero(room >= radius)
        lesions.append(
            Lesion(
                centre=candidates[fits[int(pick * len(fits))]],
                radius=radius,
                lobes=lobes,
                phases=phases,
                intensity=0.27 + 0.16 * look[0],
                capsule=max(0.0, look[1] - 0.45) * 0.2,
                core=max(0.0, look[2] - 0.5) * 0.22 if radius > 14.0 else 0.0,
            )
        )
    return lesions
