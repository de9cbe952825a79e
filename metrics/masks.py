"""What the metrics of label volumes share: checks of their input, boxes and components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]


def check_labels(labels: Sequence[int]) -> None:
    """ValueError unless `labels` holds at least one label, and each once."""
    if len(labels) == 0:
        raise ValueError("There are no labels to score; name at least one.")
    if len(set(labels)) != len(labels):
        raise ValueError(f"The labels {list(labels)} repeat; name each once.")


def check_label_map(array: NDArray[Any], labels: Sequence[int], name: str) -> None:
    """ValueError unless `array` has voxels, all of them 0 or one of the distinct `labels`."""
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"The {name} has dtype {array.dtype}; expected integer labels (take the argmax)."
        )
    if array.size == 0:
        raise ValueError(f"The {name} has shape {array.shape}; expected at least one voxel.")
    known = {0, *labels}
    # Counting costs a comparison per label; numpy.unique would sort the volume.
    if sum(np.count_nonzero(array == label) for label in known) != array.size:
        unknown = sorted({int(value) for value in np.unique(array)} - known)
        raise ValueError(
            f"The {name} holds the labels {unknown[:5]}, which are not among the classes "
            f"{[int(label) for label in labels]}; map them to a class or to 0."
        )


def check_pair(prediction: NDArray[Any], reference: NDArray[Any], labels: Sequence[int]) -> None:
    """ValueError unless both are label maps of one grid that hold nothing but `labels` and 0."""
    _check_grids(prediction, reference)
    check_labels(labels)
    check_label_map(prediction, labels, "prediction")
    check_label_map(reference, labels, "reference")


def check_masks(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    """ValueError unless both are boolean masks of one grid that has voxels."""
    _check_grids(prediction, reference)
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise ValueError(
                f"The {name} has dtype {mask.dtype}; expected a boolean mask of one label."
            )
    if prediction.size == 0:
        raise ValueError(f"The masks have shape {prediction.shape}; expected at least one voxel.")


def _check_grids(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(
            f"The prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "resample the prediction to the reference's grid."
        )


def checked_spacing(spacing: ArrayLike, ndim: int) -> NDArray[np.float64]:
    """The voxel size in mm, one finite number above 0 for each of `ndim` axes; else ValueError."""
    millimetres = np.asarray(spacing, dtype=np.float64)
    if millimetres.shape != (ndim,):
        raise ValueError(
            f"The spacing {millimetres.tolist()} does not fit a volume of {ndim} axes; "
            "give mm along each."
        )
    if not (np.isfinite(millimetres).all() and (millimetres > 0).all()):
        raise ValueError(
            f"The spacing {millimetres.tolist()} must be finite and above 0 mm along every axis."
        )
    return millimetres


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds every true voxel; of length 0 where there is none."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
    return tuple(box)


def components(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Connected components, numbered from 1, and their count.

    Voxels that share a face, an edge or a corner are connected (26 neighbours in 3D).
    """
    from scipy import ndimage

    found, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, dtype=bool))
    return found, int(count)
