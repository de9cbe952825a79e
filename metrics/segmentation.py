"""All scores of one predicted label volume, per class, under one rule for absent structures.

- The **reference** does not hold the class: every score is nan and is left out of means, whatever
  was predicted; `absent_but_predicted` says whether something was.
- The **prediction** alone does not hold it: the score is the metric's worst (`METRICS`), and
  `missed` is 1.

Which cases a mean runs over then depends on the references alone, and a segmenter cannot gain by
predicting nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.cldice import cldice
from metrics.dice import dice_per_class
from metrics.lesions import lesion_scores
from metrics.masks import Mask, check_pair, checked_spacing
from metrics.surface import check_tolerance, surface_scores
from metrics.volume import volume_error

Kind = Literal["organ", "vessel", "lesion"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Metric(NamedTuple):
    """What a score of `segmentation_scores` is."""

    unit: str  # "" for a fraction
    best: float
    missed: float | None  # its value for a missed structure; None: the grid's diagonal in mm
    kind: Kind | None = None  # the only kind of structure it is for; None: every kind


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "dice": Metric("", 1.0, 0.0),
        "surface_dice": Metric("", 1.0, 0.0),
        "hd95": Metric("mm", 0.0, None),
        "volume_error": Metric("", 0.0, -1.0),
        "cldice": Metric("", 1.0, 0.0, "vessel"),
        "lesion_sensitivity": Metric("", 1.0, 0.0, "lesion"),
        "lesion_precision": Metric("", 1.0, 0.0, "lesion"),
        "lesion_f1": Metric("", 1.0, 0.0, "lesion"),
    }
)
COUNTS = ("absent_but_predicted", "missed")
"""0 or 1 per class: the first where the reference lacks the class, the second where it has it."""


def segmentation_scores(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    labels: Sequence[int],
    spacing: ArrayLike,
    kinds: Sequence[Kind],
    tolerance_mm: float,
) -> dict[str, NDArray[np.float64]]:
    """Every score of `METRICS` and every count of `COUNTS` of one case, per class.

    Args:
        prediction: ``(D, H, W)`` integer labels; each voxel 0 or one of `labels`.
        reference: the true labels on the same grid.
        labels: the classes, without the background.
        spacing: voxel size in mm along each axis.
        kinds: "organ", "vessel" or "lesion" for each label.
        tolerance_mm: of the surface Dice.

    Returns:
        Name -> ``(len(labels),)``. All names are there whatever the kinds; a value is nan where the
        reference does not hold the class or the metric is for another kind. `missed` is nan where
        the reference lacks the class, `absent_but_predicted` where it has it.

    Raises:
        ValueError: different grids, no voxels, labels that are not integers, voxels of another
            label, no labels or repeated ones, unknown kinds or not one for each label, a spacing
            or a tolerance that is no length.
    """
    check_pair(prediction, reference, labels)
    checked_spacing(spacing, prediction.ndim)
    check_tolerance(tolerance_mm)
    _check_kinds(kinds, labels)
    scores = {name: np.full(len(labels), np.nan) for name in (*METRICS, *COUNTS)}
    scores["dice"] = dice_per_class(prediction, reference, labels)
    for index, (label, kind) in enumerate(zip(labels, kinds, strict=True)):
        predicted, true = prediction == label, reference == label
        if not true.any():
            scores["absent_but_predicted"][index] = predicted.any()
            continue
        scores["missed"][index] = not predicted.any()
        for name, value in _scores(predicted, true, spacing, kind, tolerance_mm).items():
            scores[name][index] = value
    return scores


def _scores(
    predicted: Mask, true: Mask, spacing: ArrayLike, kind: Kind, tolerance_mm: float
) -> dict[str, float]:
    """The scores beside Dice of one structure, those for its kind among them."""
    surface = surface_scores(predicted, true, spacing, tolerance_mm)
    scores = {
        "surface_dice": surface.surface_dice,
        "hd95": surface.hd95,
        "volume_error": volume_error(predicted, true),
    }
    if kind == "vessel":
        scores["cldice"] = cldice(predicted, true)
    if kind == "lesion":
        lesions = lesion_scores(predicted, true)
        scores |= {f"lesion_{name}": value for name, value in lesions._asdict().items()}
    return scores


def _check_kinds(kinds: Sequence[Kind], labels: Sequence[int]) -> None:
    if len(kinds) != len(labels):
        raise ValueError(f"There are {len(kinds)} kinds for {len(labels)} labels; give one each.")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"The kinds {unknown} are unknown; give one of {list(KINDS)}.")
