"""How far two surfaces lie apart: surface Dice at a tolerance, and the 95 % Hausdorff distance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.masks import Mask, bounding_box, check_masks, checked_spacing

PERCENTILE = 95.0


class SurfaceScores(NamedTuple):
    """Both scores of one structure; nan where the reference does not have it."""

    surface_dice: float
    """Share of both surfaces' voxels within the tolerance of the other surface, in [0, 1]."""
    hd95: float
    """mm; at most the diagonal of the grid."""


def surface_scores(
    prediction: Mask, reference: Mask, spacing: ArrayLike, tolerance_mm: float
) -> SurfaceScores:
    """Surface Dice (Nikolov et al., arXiv 1809.04430) and HD95 (Huttenlocher et al. 1993).

    The surface of a mask is its voxels with a face towards the outside; what lies beyond the grid
    is outside. Every surface voxel counts alike, whatever the area it stands for. MONAI finds the
    distance from each voxel's centre to the nearest one of the other surface. HD95 is the larger of
    the two directions' 95th percentiles. Both equal MONAI's `compute_surface_dice` and
    `compute_hausdorff_distance`, which would each look for the same distances.

    Args:
        prediction: ``(D, H, W)`` boolean mask of one structure.
        reference: the true mask on the same grid.
        spacing: voxel size in mm along each axis.
        tolerance_mm: distance that still counts as agreement, >= 0.

    Returns:
        Both scores: nan if the reference is empty; 0 and the diagonal of the grid if the
        prediction alone is.

    Raises:
        ValueError: masks that are not boolean or not of one grid, a spacing or a tolerance that is
            no length.
    """
    check_masks(prediction, reference)
    millimetres = checked_spacing(spacing, prediction.ndim)
    check_tolerance(tolerance_mm)
    if not reference.any():
        return SurfaceScores(math.nan, math.nan)
    if not prediction.any():
        return SurfaceScores(0.0, diagonal_mm(prediction.shape, spacing))
    directions = _surface_distances(prediction, reference, millimetres)
    # MONAI gives float32: the tolerance is rounded alike, so that 3 voxels of 1.1 mm are 3.3 mm.
    near = sum(np.count_nonzero(d <= np.float32(tolerance_mm)) for d in directions)
    hd95 = max(float(np.percentile(d.astype(np.float64), PERCENTILE)) for d in directions)
    return SurfaceScores(near / sum(d.size for d in directions), hd95)


def check_tolerance(tolerance_mm: float) -> None:
    """ValueError unless the tolerance is a length."""
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"The tolerance is {tolerance_mm} mm; expected a finite number >= 0.")


def diagonal_mm(shape: tuple[int, ...], spacing: ArrayLike) -> float:
    """Length of a grid's diagonal in mm, from corner to corner: no distance within it is longer."""
    millimetres = checked_spacing(spacing, len(shape))
    return float(np.linalg.norm(np.asarray(shape) * millimetres))


def _surface_distances(
    prediction: Mask, reference: Mask, millimetres: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """mm from each surface voxel of the prediction to the reference's surface, and back."""
    from monai.metrics import get_mask_edges, get_surface_distance

    # Outside the common box both are background, which is what MONAI takes a box's outside for.
    box = bounding_box(prediction | reference)
    predicted, true = get_mask_edges(prediction[box], reference[box], crop=False)
    return (
        get_surface_distance(predicted, true, spacing=millimetres),
        get_surface_distance(true, predicted, spacing=millimetres),
    )
