"""Lesions as objects: how many are found, and how many of the found ones are real."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from metrics.masks import Mask, check_masks, components

MIN_IOU = 0.1


class LesionScores(NamedTuple):
    """Lesion-wise scores of one case, each in [0, 1]; nan where the reference has no lesion."""

    sensitivity: float
    precision: float
    f1: float


def lesion_scores(prediction: Mask, reference: Mask, min_iou: float = MIN_IOU) -> LesionScores:
    """Sensitivity, precision and F1 over lesions (Metrics Reloaded, Maier-Hein et al. 2024).

    A lesion is a component of voxels that share a face, an edge or a corner. Predicted and true
    lesions are matched one to one: of all pairs with an intersection over union of at least
    `min_iou`, those are taken whose sum of IoU is largest (Hungarian method). With TP pairs,
    sensitivity is TP / true lesions, precision TP / predicted lesions, F1 their harmonic mean.

    Args:
        prediction: ``(D, H, W)`` boolean mask of the lesions.
        reference: the true mask on the same grid.
        min_iou: in (0, 1]; the low default lets a lesion of a few voxels be found.

    Returns:
        The scores: nan if the reference is empty, 0 if the prediction alone is.

    Raises:
        ValueError: masks that are not boolean or not of one grid, a threshold outside (0, 1].
    """
    check_masks(prediction, reference)
    if not 0 < min_iou <= 1:
        raise ValueError(f"The least IoU of a match is {min_iou}; expected a number in (0, 1].")
    if not reference.any():
        return LesionScores(math.nan, math.nan, math.nan)
    if not prediction.any():
        return LesionScores(0.0, 0.0, 0.0)
    matched, predicted, true = _count_matches(prediction, reference, min_iou)
    return LesionScores(matched / true, matched / predicted, 2.0 * matched / (predicted + true))


def _count_matches(prediction: Mask, reference: Mask, min_iou: float) -> tuple[int, int, int]:
    """Matched pairs, predicted lesions and true lesions."""
    from scipy.optimize import linear_sum_assignment

    found, n_found = components(prediction)
    true, n_true = components(reference)
    both = prediction & reference
    pairs, overlap = np.unique(
        np.stack([found[both], true[both]]).astype(np.int64), axis=1, return_counts=True
    )
    sizes = np.bincount(found.ravel())[pairs[0]] + np.bincount(true.ravel())[pairs[1]]
    iou = overlap / (sizes - overlap)
    near = iou >= min_iou
    if not near.any():
        return 0, n_found, n_true
    # Only lesions that may be matched enter the table; noise can predict thousands that may not.
    rows, row = np.unique(pairs[0][near], return_inverse=True)
    columns, column = np.unique(pairs[1][near], return_inverse=True)
    table = np.zeros((rows.size, columns.size))
    table[row, column] = iou[near]
    chosen = linear_sum_assignment(table, maximize=True)
    return int(np.count_nonzero(table[chosen])), n_found, n_true
