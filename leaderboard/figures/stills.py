"""Some slices of the pictures as one figure, for what shows no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.figures.canvas import canvas, contour_colour, plain
from leaderboard.pictures import Classes, Row, Volume, upright

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""Name -> the axis of an upright volume (S, A, R) that a slice of the plane is across."""

RGB = NDArray[np.uint8]  # (H, W, 3)

_SIDE = 160
"""Pixels of the longest side of a slice, at least."""
_GAP = 4
_TITLES = 2.0  # inches at the left


def volumes_still(rows: Sequence[Row]) -> Figure:
    """Middle slices with contours: sources down, planes across, volumes within."""
    pictures = []
    for row in rows:
        tiles = []
        for axis in PLANES.values():
            for volume in row.volumes:
                labels = next(iter(volume.labels.values()), None)
                middle = upright(volume.image).shape[axis] // 2
                tiles.append(tile(volume, labels, axis, middle))
        pictures.append(_beside(tiles))
    titles = [plain(row.title, 30) for row in rows]
    return _stacked(pictures, titles, ", ".join(PLANES) + " middle slices")


def changes_still(rows: Sequence[Row]) -> Figure:
    """Axial slices under each label map of a row's volume, where the last two differ most."""
    pictures, titles = [], []
    for row in rows:
        (volume,) = row.volumes
        *_, before, after = volume.labels.values()
        differ = (upright(before) != upright(after)).sum(axis=(1, 2))
        most = int(differ.argmax()) if differ.any() else len(differ) // 2
        pictures.append(_beside([tile(volume, m, 0, most) for m in volume.labels.values()]))
        titles.append(plain(row.title, 90).replace(": ", ":\n", 1))
    told = ", ".join(rows[0].volumes[0].labels)
    return _stacked(pictures, titles, f"{told} (from left to right)")


def tile(volume: Volume, labels: Classes | None, axis: int, index: int) -> RGB:
    """One slice as it is looked at, in millimetres of one scale, contours inside their class.

    Args:
        volume: image and spacing.
        labels: the label map whose contours are drawn; None draws none.
        axis: of the upright volume; see `PLANES`.
        index: of the slice along it.
    """
    image = np.take(upright(volume.image), index, axis=axis)
    sides = np.delete(np.array(volume.spacing[::-1]), axis)
    height, width = _pixels(volume, image.shape, sides)
    shown = np.repeat(_enlarged(image, height, width)[..., None], 3, axis=2)
    if labels is not None:
        classes = _enlarged(np.take(upright(labels), index, axis=axis), height, width)
        for value in np.unique(classes[classes > 0]):
            shown[_contour(classes == value)] = _rgb(contour_colour(int(value) - 1))
    return shown


def _pixels(volume: Volume, shape: tuple[int, ...], sides: NDArray[Any]) -> tuple[int, int]:
    """Height and width of a slice, whose longest side in the volume has `_SIDE` pixels."""
    longest = max(n * mm for n, mm in zip(volume.image.shape, volume.spacing, strict=True))
    scale = max(_SIDE / longest, 1 / min(volume.spacing))
    height, width = (max(1, round(n * mm * scale)) for n, mm in zip(shape, sides, strict=True))
    return height, width


def _enlarged(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The nearest voxel of every pixel."""
    rows = (np.arange(height) + 0.5) * image.shape[0] // height
    columns = (np.arange(width) + 0.5) * image.shape[1] // width
    enlarged: NDArray[np.uint8] = image[rows.astype(int)[:, None], columns.astype(int)]
    return enlarged


def _contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that touch a pixel outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _rgb(name: str) -> tuple[int, ...]:
    return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))


def _beside(tiles: Iterable[RGB]) -> RGB:
    tiles = list(tiles)
    height = max(len(one) for one in tiles)
    white = np.full((height, _GAP, 3), 255, np.uint8)
    parts = []
    for one in tiles:
        below = np.full((height - len(one), one.shape[1], 3), 255, np.uint8)
        parts += [np.concatenate([one, below]), white]
    return np.concatenate(parts[:-1], axis=1)


def _stacked(pictures: Sequence[RGB], titles: Sequence[str], told: str) -> Figure:
    """One image below the other, each beside its title."""
    width = max(picture.shape[1] for picture in pictures)
    parts, middles, top = [], [], 0
    for picture in pictures:
        right = np.full((len(picture), width - picture.shape[1], 3), 255, np.uint8)
        below = np.full((_GAP, width, 3), 255, np.uint8)
        parts += [np.concatenate([picture, right], axis=1), below]
        middles.append(top + len(picture) / 2)
        top += len(picture) + _GAP
    whole = np.concatenate(parts)
    inches = min(9.0, width / 150)
    figure = canvas(inches + _TITLES, inches * len(whole) / width + 0.4)
    axis = figure.subplots()
    axis.imshow(whole, interpolation="antialiased")
    axis.set_yticks(middles, titles, fontsize=7)
    axis.set_xticks([])
    axis.set_title(told, fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure
