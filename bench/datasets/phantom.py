"""Procedural phantom: hepatobiliary-phase abdominal MR with liver, veins and carcinoma.

A stand-in for T1-weighted, gadoxetate-enhanced liver MR that needs no download: the enhanced
liver is bright, its two venous trees and carcinomas are dark. It is a test object with plausible
anatomy and contrast, not a model of any scanner, and no result on it says anything about patients.
"""

from __future__ import annotations

from operator import index as as_integer
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as connected_components

from bench.datasets import phantom_organs as organs
from bench.datasets import phantom_shapes as shapes
from bench.datasets.phantom_image import Canvas, acquire
from bench.datasets.phantom_lesions import Lesion, place_lesions
from bench.datasets.phantom_shapes import Patient, liver_lookup
from bench.datasets.phantom_vessels import HEPATIC, PORTAL, Balls, grow, main_veins, resolve
from bench.errors import InputError

LABEL_NAMES: dict[int, str] = {
    0: "background",
    1: "liver",
    2: "portal vein",
    3: "hepatic vein",
    4: "HCC",
}
LIVER, VEIN, BILE = 0.70, 0.27, 0.17
_SMALLEST_SIDE, _SIDE_STEP = 32, 16
# The labelled portal vein may leave the liver by this much at the hilum, in mm.
_HILUM = 5.0


class PhantomCase(NamedTuple):
    """One phantom: image (D, H, W) float32 in [0, 1], label (D, H, W) uint8, spacing in mm."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def phantom_case(index: int, seed: int, grid: tuple[int, int, int]) -> PhantomCase:
    """Case ``index`` of the phantom of ``seed`` on a grid of (D, H, W) voxels.

    Axes increase towards the patient's right, anterior and superior. The case depends on
    ``(seed, index)`` and ``grid`` alone; the patient on ``(seed, index)`` alone, so that the same
    patient can be had on several grids. The field of view is the same for all cases and grids.

    Raises:
        InputError: ``index`` or ``seed`` is no integer of at least 0, or a side of ``grid`` is no
            multiple of 16 of at least 32.
    """
    _check(index, seed, grid)
    rng = np.random.default_rng([seed, index])
    patient = shapes.draw_patient(rng)
    outside = liver_lookup(patient)
    named = main_veins(outside, rng)
    large = np.concatenate([vein.points for vein in named if vein.radii[0] > 3.5])
    lesions = place_lesions(outside, large, rng)
    veins = grow(outside, named, lesions, rng)
    canvas = Canvas(patient, grid)
    shown, trees = resolve(veins, lesions, canvas.voxel, 1.25 * canvas.longest, 0.3 * canvas.voxel)
    organs.paint_trunk(canvas, patient)
    organs.paint_gut(canvas, patient)
    organs.paint_kidneys_and_spleen(canvas, patient)
    organs.paint_spine(canvas, patient)
    label = _paint_liver(canvas, patient, trees, lesions)
    organs.paint_great_vessels(canvas, (shown[0].points, shown[0].radii))
    return PhantomCase(acquire(canvas, rng), label, canvas.spacing)


def _check(index: int, seed: int, grid: tuple[int, int, int]) -> None:
    for name, value in (("index", index), ("seed", seed)):
        if not _is_integer(value) or value < 0:
            raise InputError(f"The phantom's {name} is {value!r}; give an integer of at least 0.")
    sides = tuple(grid)
    if len(sides) != 3 or not all(
        _is_integer(n) and n >= _SMALLEST_SIDE and n % _SIDE_STEP == 0 for n in sides
    ):
        raise InputError(
            f"The phantom's grid is {grid!r}; give three sides, each a multiple of "
            f"{_SIDE_STEP} and at least {_SMALLEST_SIDE}."
        )


def _is_integer(value: Any) -> bool:
    try:
        as_integer(value)
    except TypeError:
        return False
    return True


def _paint_liver(
    canvas: Canvas, patient: Patient, trees: list[Balls], lesions: list[Lesion]
) -> NDArray[np.uint8]:
    """Paint liver, gallbladder, veins and lesions; return the label volume (D, H, W)."""
    label = np.zeros(canvas.image.shape, dtype=np.uint8)
    where = canvas.inside(((-100.0, 125.0), (-85.0, 90.0), (-92.0, 88.0)))
    x, y, z = canvas.at(where)
    filled = shapes.liver(patient, x, y, z)
    hollow = shapes.smooth_max(filled, -shapes.vena_cava(x, y), 3.0)
    canvas.blend(where, hollow, LIVER)
    canvas.blend(where, shapes.gallbladder(patient, x, y, z), BILE)
    part = label[where]
    part[hollow < 0] = 1
    for lesion in lesions:
        distance = np.maximum(lesion.distance(x, y, z), hollow)
        canvas.blend(where, distance, lesion.intensity - lesion.capsule)
        canvas.blend(where, distance + 2.2, lesion.intensity)
        if lesion.core:
            canvas.blend(where, distance + 0.55 * lesion.radius, lesion.intensity - lesion.core)
        part[distance < 0] = 4
    near = filled < _HILUM
    points = np.stack([x[near], y[near], z[near]], axis=1)
    for tree, value in ((PORTAL, 2), (HEPATIC, 3)):
        distance = np.full(filled.shape, np.inf, dtype=np.float32)
        distance[near] = trees[tree].distance(points, canvas.voxel)
        if tree == HEPATIC:
            distance = np.maximum(distance, filled)
        canvas.blend(where, distance, VEIN)
        part[distance < 0] = value
    # Thickened to a coarse grid, two veins may still meet at a corner: keep liver between them.
    part[binary_dilation(part == 3) & (part == 2)] = 1
    for value in (2, 3):
        part[_specks(part == value)] = 1
    return label


def _specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All but the largest 26-connected component: bits of veins too thin for the grid."""
    components, _ = connected_components(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.asarray(mask & (components != sizes.argmax()))
