"""What lies around the liver in the abdomen phantom, painted from the skin inwards.

Signals are fractions of full scale, T1 weighted, 20 minutes after gadoxetate: hepatocytes and
kidneys hold the agent, blood has lost it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets import phantom_shapes as shapes
from bench.datasets.phantom_image import Box, Canvas
from bench.datasets.phantom_shapes import Patient

Array = NDArray[Any]

FAT, MUSCLE, LUNG, MARROW, CORTICAL_BONE, DISC, FLUID = 0.39, 0.25, 0.05, 0.34, 0.12, 0.22, 0.13
SPLEEN, RENAL_CORTEX, RENAL_MEDULLA, RENAL_SINUS = 0.52, 0.76, 0.62, 0.38
BLOOD, MYOCARDIUM, PANCREAS, BOWEL_WALL, BOWEL_CONTENT = 0.27, 0.42, 0.48, 0.46, 0.22


def _everywhere() -> Box:
    wide = (-1e3, 1e3)
    return (wide, wide, wide)


def paint_trunk(canvas: Canvas, patient: Patient) -> None:
    """Skin, subcutaneous fat, muscle wall with ribs, visceral fat, lungs and heart."""
    where = canvas.inside(_everywhere())
    x, y, z = canvas.at(where)
    skin = shapes.skin(patient, x, y, z)
    fascia = skin + shapes.fat_thickness(patient, x, y)
    wall = fascia + np.float32(patient.muscle)
    canvas.blend(where, skin, MUSCLE)
    canvas.blend(where, skin + 1.5, FAT)
    canvas.blend(where, fascia, MUSCLE)
    bone = shapes.ribs(patient, x, y, z, fascia)
    canvas.blend(where, bone, CORTICAL_BONE)
    canvas.blend(where, bone + 1.8, MARROW)
    canvas.blend(where, wall, FAT)
    above = shapes.diaphragm(patient, x, y) - z
    canvas.blend(where, np.maximum(wall, above - 2.5), MUSCLE)
    canvas.blend(where, np.maximum(wall + 2.0, above + 1.0), LUNG)
    box: Box = ((-70.0, 40.0), (-25.0, 75.0), (40.0, 150.0))
    where = canvas.inside(box)
    x, y, z = canvas.at(where)
    if z.size:
        heart = shapes.ellipsoid(x + 0.35 * y, y, z, (-8.0, 24.0, 88.0), (46.0, 40.0, 36.0))
        heart = np.maximum(heart, shapes.diaphragm(patient, x, y) - z + 3.0)
        canvas.blend(where, heart - 4.0, FAT)
        canvas.blend(where, heart, MYOCARDIUM)
        canvas.blend(where, heart + 9.0, BLOOD)


def paint_gut(canvas: Canvas, patient: Patient) -> None:
    """Bowel loops, pancreas and stomach in the visceral fat."""
    ones = np.ones(patient.bowel.shape[1])
    for loop, radius in zip(patient.bowel, patient.bowel_radii, strict=True):
        canvas.tube(loop, ones * radius, BOWEL_WALL)
        canvas.tube(loop, ones * (radius - 3.0), BOWEL_CONTENT)
    pancreas = np.array(
        [(26, 8, -48), (20, 10, -34), (4, 14, -24), (-16, 10, -16), (-38, -6, -6), (-58, -18, 4)]
    )
    canvas.tube(pancreas, np.array([11.0, 12.0, 8.5, 9.0, 8.5, 7.0]), PANCREAS)
    where = canvas.inside(((-95.0, 25.0), (-32.0, 70.0), (-60.0, 75.0)))
    x, y, z = canvas.at(where)
    stomach = shapes.stomach(patient, x, y, z)
    canvas.blend(where, stomach, BOWEL_WALL)
    # Supine: fluid settles behind, gas rises to the front.
    content = np.where(y > patient.gas_level, np.float32(0.04), np.float32(0.17))
    canvas.blend(where, stomach + 4.0, content)


def paint_kidneys_and_spleen(canvas: Canvas, patient: Patient) -> None:
    """Kidneys with cortex, medulla and sinus fat; spleen."""
    for side, height in zip((1.0, -1.0), patient.kidney, strict=True):
        low, high = sorted((side * 18.0, side * 92.0))
        where = canvas.inside(((low, high), (-66.0, -12.0), (height - 50.0, height + 50.0)))
        x, y, z = canvas.at(where)
        kidney = shapes.kidney(x, y, z, side, height)
        canvas.blend(where, kidney, RENAL_CORTEX)
        # Pyramids: the medulla is broken up by columns of cortex.
        turn = np.arctan2(y + 41.0, side * x - 50.0)
        columns = 2.2 * np.cos(4.0 * turn) + 2.0 * np.cos((z - height) * 0.42)
        canvas.blend(where, kidney + 8.5 + columns, RENAL_MEDULLA)
        sinus = shapes.ellipsoid(side * x, y, z, (43.0, -36.0, height), (13.0, 8.0, 21.0))
        canvas.blend(where, sinus, RENAL_SINUS)
    half, height = patient.spleen
    where = canvas.inside(((-115.0, -50.0), (-82.0, 10.0), (height - half, height + half)))
    canvas.blend(where, shapes.spleen(patient, *canvas.at(where)), SPLEEN)


def paint_spine(canvas: Canvas, patient: Patient) -> None:
    """Back muscles, psoas, vertebrae with discs, spinal canal and processes."""
    where = canvas.inside(((-52.0, 52.0), (-95.0, -48.0), (-150.0, 150.0)))
    x, y, z = canvas.at(where)
    u, v = (np.abs(x) - 26.0) / 23.0, (y + 74.0) / 15.0
    canvas.blend(where, (np.sqrt(u * u + v * v) - 1.0) * 16.0, MUSCLE)
    for side in (-1.0, 1.0):
        psoas = np.array([(side * 22.0, -47.0, -5.0), (side * 40.0, -46.0, -110.0)])
        canvas.tube(psoas, np.array([4.0, 17.0]), MUSCLE)
    where = canvas.inside(((-46.0, 46.0), (-95.0, -24.0), (-150.0, 150.0)))
    x, y, z = canvas.at(where)
    phase = np.cos(2.0 * np.pi * (z + patient.spine_phase) / shapes.VERTEBRA_PERIOD)
    arch = shapes.ellipsoid(x, y, 0.0 * z, (0.0, -70.0, 0.0), (15.0, 12.0, 1e3))
    process = shapes.ellipsoid(x, y, 0.0 * z, (0.0, -82.0, 0.0), (3.5, 12.0, 1e3))
    wings = shapes.ellipsoid(x, y, 0.0 * z, (0.0, -68.0, 0.0), (34.0, 4.5, 1e3))
    posterior = np.minimum(arch, np.minimum(process, wings) + 5.0 * (phase > 0.2))
    canvas.blend(where, posterior, CORTICAL_BONE)
    canvas.blend(where, posterior + 1.8, MARROW)
    canal = shapes.ellipsoid(x, y, 0.0 * z, (0.0, -70.0, 0.0), (10.5, 8.0, 1e3))
    canvas.blend(where, canal, FLUID)
    canvas.blend(where, canal + 3.8, 0.33)
    body = shapes.spine(patient, x, y, z)
    canvas.blend(where, body, CORTICAL_BONE)
    canvas.blend(where, body + 1.8, MARROW)
    disc = np.maximum(body + 1.0, (0.80 - phase) * 12.0)
    canvas.blend(where, disc, DISC)


def paint_great_vessels(canvas: Canvas, portal_trunk: tuple[Array, Array]) -> None:
    """Aorta, inferior vena cava, and the portal confluence with splenic vein."""
    aorta = np.array([(-10.0, -19.0, z) for z in (-110.0, -40.0, 20.0, 70.0, 110.0)])
    aorta[:, 1] += np.array([0.0, 0.0, -1.0, -8.0, -14.0])
    canvas.tube(aorta, np.full(5, 10.3), 0.36)
    canvas.tube(aorta, np.full(5, 9.0), BLOOD)
    where = canvas.inside(((4.0, 30.0), (-30.0, -8.0), (-110.0, 72.0)))
    x, y, z = canvas.at(where)
    canvas.blend(where, np.maximum(shapes.vena_cava(x, y), z - 72.0), BLOOD)
    points, radii = portal_trunk
    canvas.tube(points, radii, BLOOD)
    splenic = np.array([points[0], points[0] + (-14, 4, 18), (-38, -16, 0), (-60, -28, 12)])
    canvas.tube(splenic, np.array([0.8, 0.7, 0.65, 0.6]) * radii[0], BLOOD)
    mesenteric = np.array([points[0], points[0] + (-2, 6, -30), points[0] + (-4, 10, -70)])
    canvas.tube(mesenteric, np.full(3, 0.8) * radii[0], BLOOD)
