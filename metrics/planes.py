"""Anatomical planes: which axis of an array is a plane's normal."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Plane = Literal["axial", "sagittal", "coronal"]
PLANES: tuple[Plane, ...] = ("axial", "sagittal", "coronal")

_DIRECTION = {"R": "RL", "L": "RL", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}
_NORMAL: dict[Plane, str] = {"axial": "SI", "sagittal": "RL", "coronal": "AP"}


def normal_axis(plane: Plane, axes: str = "RAS") -> int:
    """The spatial axis (0, 1 or 2) along which slices of a plane are stacked.

    Args:
        plane: one of `PLANES`.
        axes: one letter per array axis for the direction in which its index grows: R or L, A or P,
            S or I, each direction once ("RAS" is the NIfTI convention).

    Raises:
        ValueError: an unknown plane or axes.
    """
    if plane not in _NORMAL:
        raise ValueError(f"Plane '{plane}' is unknown; use one of {', '.join(PLANES)}.")
    directions = [_DIRECTION.get(letter, "") for letter in axes]
    if sorted(directions) != ["AP", "RL", "SI"]:
        raise ValueError(
            f"Axes '{axes}' are not valid; give three letters, one each of R/L, A/P and S/I."
        )
    return directions.index(_NORMAL[plane])


def reorient(volumes: NDArray[Any], plane: Plane, axes: str = "RAS") -> NDArray[Any]:
    """The protocol "reorient": the plane's normal becomes the first spatial axis.

    The other two axes keep their order and no axis is flipped, so that real and synthetic volumes
    of one data set are treated alike. A 3D network then sees the whole volume, once per plane.

    Args:
        volumes: ``(N, D, H, W)`` whose three spatial axes are described by ``axes``.
        plane: the plane whose normal comes first.
        axes: see `normal_axis`.

    Returns:
        A view, never a copy.
    """
    if volumes.ndim != 4:
        raise ValueError(f"Volumes have shape {volumes.shape}; expected (N, D, H, W).")
    return np.moveaxis(volumes, 1 + normal_axis(plane, axes), 1)
