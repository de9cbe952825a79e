"""How much too large or too small a predicted structure is."""

from __future__ import annotations

import math

import numpy as np

from metrics.masks import Mask, check_masks


def volume_error(prediction: Mask, reference: Mask) -> float:
    """Signed relative error of the volume, ``(|P| - |R|) / |R|``.

    Args:
        prediction: ``(D, H, W)`` boolean mask of one structure.
        reference: the true mask on the same grid, and so with the same voxel volume.

    Returns:
        A number >= -1, 0 where the volumes are equal; nan if the reference is empty, -1 if the
        prediction alone is.

    Raises:
        ValueError: masks that are not boolean or not of one grid.
    """
    check_masks(prediction, reference)
    true = np.count_nonzero(reference)
    return (np.count_nonzero(prediction) - true) / true if true else math.nan
