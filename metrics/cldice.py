"""clDice: do the centre lines of two tubular structures lie within one another?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metrics.masks import Mask, bounding_box, check_masks, components


def cldice(prediction: Mask, reference: Mask) -> float:
    """Centre-line Dice (Shit et al., CVPR 2021, arXiv 2003.07311) of one structure.

    The harmonic mean of topology precision (share of the prediction's skeleton inside the
    reference) and topology sensitivity (share of the reference's skeleton inside the prediction).
    It counts voxels of skeletons: the voxel size plays no part.

    Args:
        prediction: ``(D, H, W)`` boolean mask.
        reference: the true mask on the same grid.

    Returns:
        A score in [0, 1]; nan if the reference is empty, 0 if the prediction alone is.

    Raises:
        ValueError: masks that are not boolean, not of one grid or not 2D or 3D.
    """
    check_masks(prediction, reference)
    if prediction.ndim not in (2, 3):
        raise ValueError(f"The masks have shape {prediction.shape}; a skeleton needs 2 or 3 axes.")
    if not reference.any():
        return math.nan
    if not prediction.any():
        return 0.0
    box = bounding_box(prediction | reference)
    predicted, true = prediction[box], reference[box]
    precision = float(true[skeleton(predicted)].mean())
    sensitivity = float(predicted[skeleton(true)].mean())
    total = precision + sensitivity
    return 2.0 * precision * sensitivity / total if total else 0.0


def skeleton(mask: Mask) -> Mask:
    """The mask thinned to lines of one voxel (Lee et al. 1994, by scikit-image).

    Every component keeps at least one voxel. scikit-image loses those whose sides are even all
    along, such as a block of 2x2x2 or a straight tube of 4x4: they are thinned again with one layer
    of voxels less on one side of each axis, and what is lost even then keeps its deepest voxel.
    """
    from scipy import ndimage

    # A border of background: scikit-image thins a volume of one slice by the rules of 2D.
    padded = np.pad(mask, 1)
    thin = _thinned(padded)
    found, count = components(padded)
    if (lost := _without(thin, found, count)).size:
        halved = ndimage.binary_erosion(np.isin(found, lost), np.ones((2,) * mask.ndim))
        thin |= _thinned(halved)
        if (lost := _without(thin, found, count)).size:
            depth = ndimage.distance_transform_edt(padded)
            for position in ndimage.maximum_position(depth, found, lost):
                thin[tuple(position)] = True
    return thin[(slice(1, -1),) * mask.ndim]


def _thinned(mask: Mask) -> Mask:
    from skimage.morphology import skeletonize

    return np.asarray(skeletonize(mask, method="lee"), dtype=np.bool_)


def _without(thin: Mask, found: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Numbers of the components that hold no voxel of the skeleton."""
    return np.setdiff1d(np.arange(1, count + 1), found[thin])
