"""Windows of an image, and their resampling to a grid; all in voxels of an axis-aligned array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A box of an image and the grid that samples it.

    Voxel i of an axis reaches from i to i + 1; a window that reaches below 0 or beyond the
    image's shape is padded there.
    """

    start: Vector  # (3,) lower edges
    step: Vector  # (3,) voxels of the image per voxel of the grid
    grid: tuple[int, int, int]

    @property
    def affine(self) -> Vector:
        """(4, 4): index on the grid to index in the image."""
        matrix = np.diag([*self.step, 1.0])
        matrix[:3, 3] = self.start + 0.5 * self.step - 0.5
        return matrix

    def share_inside(self, mask: NDArray[np.bool_]) -> float:
        """Fraction of the voxels of `mask` (X, Y, Z) whose centres lie in the window."""
        end = self.start + self.step * np.array(self.grid)
        inside = [
            slice(max(0, int(np.ceil(low - 0.5))), max(0, int(np.ceil(high - 0.5))))
            for low, high in zip(self.start, end, strict=True)
        ]
        return float(np.count_nonzero(mask[tuple(inside)]) / np.count_nonzero(mask))

    def centres(self, axis: int) -> Vector:
        """Coordinates in the image of the grid's voxel centres along `axis`."""
        centres: Vector = self.affine[axis, 3] + self.step[axis] * np.arange(self.grid[axis])
        return centres


def foreground_box(label: NDArray[Any], margin: float) -> tuple[Vector, Vector]:
    """Lower and upper edges (3,) of the labelled voxels, grown by `margin` of each side's length.

    The box may leave the image.
    """
    (slices,) = ndimage.find_objects((label > 0).astype(np.uint8))
    low = np.array([s.start for s in slices], dtype=float)
    high = np.array([s.stop for s in slices], dtype=float)
    border = margin * (high - low)
    return low - border, high + border


def filling_window(
    box: tuple[Vector, Vector],
    shape: tuple[int, ...],
    spacing: Vector,
    grid: tuple[int, int, int],
) -> Window:
    """The box grown to the grid's proportions in mm, never beyond the image.

    Voxels become isotropic where the image reaches far enough; along an axis where it does not,
    the whole image is stretched over the grid, so that nothing is padded.
    """
    size = np.array(shape, dtype=float)
    low, high = np.clip(box[0], 0, size), np.clip(box[1], 0, size)
    voxel_mm = ((high - low) * spacing / np.array(grid)).max()
    extent = np.minimum(voxel_mm * np.array(grid) / spacing, size)
    start = np.clip((low + high - extent) / 2, 0, size - extent)
    return Window(start, extent / np.array(grid), grid)


def fixed_window(
    box: tuple[Vector, Vector],
    shape: tuple[int, ...],
    spacing: Vector,
    grid: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
) -> Window:
    """A grid of voxels of `voxel_mm` centred on the box, shifted to lie inside the image.

    Along an axis where the image is smaller than the grid, the image is centred and padded.
    """
    step = np.array(voxel_mm) / spacing
    slack = np.array(shape) - step * np.array(grid)
    wanted = (box[0] + box[1] - step * np.array(grid)) / 2
    start = np.where(slack >= 0, np.clip(wanted, 0, np.maximum(slack, 0)), slack / 2)
    return Window(start, step, grid)


def resample_image(image: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Linear interpolation of `image` (X, Y, Z) on the window's grid, NaN beyond the image.

    Where the grid is coarser than the image, the image is first smoothed by the Gaussian that
    makes up the difference of the two resolutions (Cardoso et al., Scale factor point spread
    function matching, MICCAI 2015).
    """
    sigma = np.sqrt(np.maximum(window.step**2 - 1, 0) / (8 * np.log(2)))
    crop, offset = _crop(image, window, np.ceil(4 * sigma) + 1)
    smooth = ndimage.gaussian_filter(crop, sigma, mode="nearest") if sigma.any() else crop
    result = _sample(smooth, window, offset)
    for axis, outside in enumerate(_beyond(window, image.shape)):
        np.moveaxis(result, axis, 0)[outside] = np.nan
    return result


def resample_label(label: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """The likeliest label on the window's grid, 0 beyond the image.

    Every label's mask is interpolated linearly and the largest value wins, in a tie the
    foreground. Unlike images, masks are not smoothed before coarser sampling: structures thinner
    than a voxel of the grid would lose against what surrounds them and vanish.
    """
    crop, offset = _crop(label, window, np.ones(3))
    result = np.zeros(window.grid, dtype=np.uint8)
    best = np.zeros(window.grid, dtype=np.float32)
    background = np.ones(window.grid, dtype=np.float32)
    for value in np.flatnonzero(np.bincount(crop.ravel())):
        if value != 0:
            weight = _sample((crop == value).astype(np.float32), window, offset)
            result[weight > best] = value
            np.maximum(best, weight, out=best)
            background -= weight
    result[background > best + 1e-5] = 0  # beyond rounding, so that ties stay foreground
    for axis, outside in enumerate(_beyond(window, label.shape)):
        np.moveaxis(result, axis, 0)[outside] = 0
    return result


def _crop(
    array: NDArray[Any], window: Window, border: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The part of `array` that the window and a border around it touch, and its first index."""
    size = np.array(array.shape)
    low = np.clip(np.floor(window.start) - border, 0, size - 1).astype(int)
    end = window.start + window.step * np.array(window.grid)
    high = np.clip(np.ceil(end) + border, low + 1, size).astype(int)
    return array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low


def _sample(array: NDArray[np.float32], window: Window, first: NDArray[Any]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = ndimage.affine_transform(
        array,
        window.step,
        offset=window.affine[:3, 3] - first,
        output_shape=window.grid,
        order=1,
        mode="nearest",
        prefilter=False,
    )
    return result


def _beyond(window: Window, shape: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """Per axis, which planes of the grid have their centres outside the image."""
    centres = [window.centres(axis) for axis in range(3)]
    return [(c < -0.5) | (c > n - 0.5) for c, n in zip(centres, shape, strict=True)]
