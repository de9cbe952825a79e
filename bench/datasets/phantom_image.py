"""The phantom's voxel grid: shapes blended with soft edges, then the scanner's imperfections."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bench.datasets.phantom_shapes import Patient, capsule

Array = NDArray[Any]
Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
Slices = tuple[slice, slice, slice]

# Field of view (x, y, z) in mm: the liver's side of the trunk, from lung bases to kidneys.
FIELD_OF_VIEW: Box = ((-114.0, 142.0), (-112.0, 112.0), (-96.0, 96.0))
# Furthest a point is moved by the patient's warp, in mm (boxes are widened by it).
_WARP_MARGIN = 14.0


def _plane_wave(axes: list[Array], frequency: Array, phase: float) -> Array:
    """cos(k . r + phase) on a grid (D, H, W), as a product of one complex factor per axis."""
    px, py, pz = (np.exp(1j * float(f) * a) for f, a in zip(frequency, axes, strict=True))
    plane = (px[:, None] * py[None, :] * np.exp(1j * phase)).astype(np.complex64)[:, :, None]
    wave: Array = plane.real * pz.real.astype(np.float32)
    wave -= plane.imag * pz.imag.astype(np.float32)
    return wave


class Canvas:
    """An image under construction with the patient coordinates of its voxels, all (D, H, W)."""

    def __init__(self, patient: Patient, grid: tuple[int, int, int]) -> None:
        sides = [(hi - lo) / n for (lo, hi), n in zip(FIELD_OF_VIEW, grid, strict=True)]
        self.spacing = (sides[0], sides[1], sides[2])
        self.axes: list[Array] = [
            (lo + (np.arange(n) + 0.5) * side) / patient.scale
            for (lo, _), n, side in zip(FIELD_OF_VIEW, grid, sides, strict=True)
        ]
        self.voxel = float(np.cbrt(np.prod(sides))) / patient.scale
        self.longest = max(sides) / patient.scale
        warped = [a.astype(np.float32) for a in np.meshgrid(*self.axes, indexing="ij")]
        for vector, frequency, phase in zip(
            patient.warp_vectors, patient.warp_frequencies, patient.warp_phases, strict=True
        ):
            wave = _plane_wave(self.axes, frequency, float(phase))
            for axis in range(3):
                warped[axis] += vector[axis] * wave
        self.coordinates = warped
        self.image: Array = np.zeros(grid, dtype=np.float32)

    def inside(self, box: Box) -> Slices:
        """Index ranges that hold a box given in patient mm, warp included."""
        low_high = [
            (
                int(np.searchsorted(axis, lo - _WARP_MARGIN)),
                int(np.searchsorted(axis, hi + _WARP_MARGIN)),
            )
            for axis, (lo, hi) in zip(self.axes, box, strict=True)
        ]
        return (slice(*low_high[0]), slice(*low_high[1]), slice(*low_high[2]))

    def at(self, where: Slices) -> tuple[Array, Array, Array]:
        """Patient coordinates (mm) of the voxels in some index ranges."""
        x, y, z = self.coordinates
        return x[where], y[where], z[where]

    def blend(self, where: Slices, distance: Array, value: float | Array) -> None:
        """Lay ``value`` over the image where ``distance`` is negative, with a one-voxel edge.

        The edge is the partial volume of a voxel that a flat boundary cuts.
        """
        cover = np.clip(0.5 - distance / self.voxel, 0.0, 1.0)
        part = self.image[where]
        part += cover * (value - part)

    def tube(self, points: Array, radii: Array, value: float) -> None:
        """Blend a chain of capsules through points (n, 3) of radii (n,), in mm."""
        for k in range(len(points) - 1):
            ends, widths = points[k : k + 2], radii[k : k + 2]
            lo, hi = ends.min(axis=0) - widths.max(), ends.max(axis=0) + widths.max()
            where = self.inside(((lo[0], hi[0]), (lo[1], hi[1]), (lo[2], hi[2])))
            x, y, z = self.at(where)
            if x.size:
                self.blend(where, capsule(x, y, z, ends[0], ends[1], widths), value)


def texture(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Unit-variance mottle (D, H, W), correlated over about 3 mm."""
    sigma = [1.3 / s + 0.4 for s in canvas.spacing]
    white = rng.standard_normal(canvas.image.shape, dtype=np.float32)
    mottle = gaussian_filter(white, sigma, truncate=2.5)
    return np.asarray(mottle / (mottle.std() + 1e-6))


def acquire(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Magnitude image (D, H, W) in [0, 1]: mottle, receive field and Rician noise.

    The receive field is smooth, within about +-25 %. The magnitude of a complex signal with equal
    Gaussian noise in both channels is Rician, Rayleigh in air (Gudbjartsson and Patz 1995,
    Magn Reson Med 34(6)); the noise's standard deviation is 1.2 to 2.4 % of full scale.
    """
    field = np.zeros_like(canvas.image)
    for _ in range(3):
        direction = rng.normal(size=3)
        frequency = direction / np.linalg.norm(direction) * 2.0 * np.pi / rng.uniform(250.0, 420.0)
        weight, phase = rng.uniform(0.03, 0.09), rng.uniform(0.0, 2.0 * np.pi)
        field += np.float32(weight) * _plane_wave(canvas.axes, frequency, phase)
    sigma = np.float32(rng.uniform(0.012, 0.024))
    signal = canvas.image * (1.0 + 0.035 * texture(canvas, rng)) * np.exp(field)
    shape = canvas.image.shape
    real = signal + sigma * rng.standard_normal(shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.clip(np.hypot(real, imaginary), 0.0, 1.0), dtype=np.float32)
