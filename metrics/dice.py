"""The Dice coefficient of label volumes, per class and per case.

The rule for absent structures: a class that the case's **reference** does not hold is nan,
whatever the prediction says, and is left out of means. Which cases a mean runs over then depends on
the references alone, so that every arm of a comparison is averaged over the same cases. The price,
false positives in such cases, has to be counted apart and belongs beside the mean. A class that
the prediction alone lacks scores 0. `metrics.segmentation` applies the same rule to every metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.masks import check_pair


def dice_per_class(
    prediction: NDArray[Any], reference: NDArray[Any], labels: Sequence[int]
) -> NDArray[np.float64]:
    """Dice coefficient ``2 |P ∩ R| / (|P| + |R|)`` of each label (Dice 1945).

    Args:
        prediction: integer labels of one case, any shape; each voxel 0 or one of `labels`.
        reference: integer labels of the same shape.
        labels: the classes, usually without the background.

    Returns:
        ``(len(labels),)``, each in [0, 1], or nan where the reference does not hold the label.

    Raises:
        ValueError: different shapes, no voxels, labels that are not integers (or booleans),
            voxels of another label, no labels or repeated ones.
    """
    check_pair(prediction, reference, labels)
    scores = np.full(len(labels), np.nan)
    for index, label in enumerate(labels):
        predicted, present = prediction == label, reference == label
        size = np.count_nonzero(present)
        if size:
            overlap = np.count_nonzero(predicted & present)
            scores[index] = 2.0 * overlap / (np.count_nonzero(predicted) + size)
    return scores


def case_dice(per_class: NDArray[np.float64]) -> float:
    """Mean of one case's `dice_per_class` over the classes present; nan if none is."""
    present = per_class[~np.isnan(per_class)]
    return float(present.mean()) if present.size else float("nan")
