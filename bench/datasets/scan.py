"""A scan as it is stored, and the sentences about what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fault(NamedTuple):
    """Something wrong with a data set."""

    check: str  # the kind of it, a word for filters and tables
    text: str  # one sentence: which file, which value, what to do


@dataclass(frozen=True)
class Scan:
    """An image or a label map as its file, or its series of files, has it; values not checked."""

    voxels: NDArray[Any]  # (X, Y, Z)
    affine: NDArray[np.float64]  # (4, 4): voxel index to RAS+ millimetres
    path: Path
    forms: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Every affine that the file declares, by the name of its field; empty if it declares none."""
    slices: tuple[Path, ...] = ()  # of a series: the file of each index along the first axis

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) voxel size in mm along the array's axes."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))


def apart(
    shape: tuple[int, ...], one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[float, float]:
    """The largest distance of a corner under two affines, in mm and in shortest voxel sides."""
    corners = np.array([[*corner, 1.0] for corner in _corners(shape)])
    distance = float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())
    return distance, distance / float(np.linalg.norm(one[:3, :3], axis=0).min())


def _corners(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for corner in np.ndindex(2, 2, 2):
        yield tuple(i * (n - 1) for i, n in zip(corner, shape, strict=True))
