"""Measures of volumes: our call and other libraries', ready to be timed.

Each function gets the inputs and gives the call. What a peer wants and ours does not, tensors and
one-hot masks, is made before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_inputs import Call, Segmentations, tensors

# --- MS-SSIM ------------------------------------------------------------------------------------


def ms_ssim(volumes: NDArray[np.float32]) -> Call:
    from metrics.ms_ssim import ms_ssim_diversity

    return lambda: ms_ssim_diversity(volumes).mean


def ms_ssim_monai(volumes: NDArray[np.float32]) -> Call:
    from monai.metrics.regression import compute_ms_ssim

    pairs, weights = _all_pairs(volumes), _weights(volumes)
    return lambda: compute_ms_ssim(*pairs, spatial_dims=3, weights=weights).mean()


def ms_ssim_torchmetrics(volumes: NDArray[np.float32]) -> Call:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    pairs, weights = _all_pairs(volumes), _weights(volumes)
    return lambda: multiscale_structural_similarity_index_measure(
        *pairs, data_range=1.0, betas=tuple(weights)
    )


def ms_ssim_scipy(volumes: NDArray[np.float32]) -> Call:
    """The definition, written down with SciPy's filters in float64."""
    from scipy.ndimage import correlate1d

    weights = _weights(volumes)
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)

    def blurred(volume: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis in range(3):
            volume = correlate1d(volume, taps / taps.sum(), axis=axis)
        return volume[5:-5, 5:-5, 5:-5]

    def halved(volume: NDArray[np.float64]) -> NDArray[np.float64]:
        d, h, w = (side // 2 for side in volume.shape)
        return volume[: 2 * d, : 2 * h, : 2 * w].reshape(d, 2, h, 2, w, 2).mean(axis=(1, 3, 5))

    def similarity(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        value = 1.0
        for scale, weight in enumerate(weights):
            if scale:
                x, y = halved(x), halved(y)
            mean_x, mean_y = blurred(x), blurred(y)
            covariance = blurred(x * y) - mean_x * mean_y
            variances = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
            term = (2 * covariance + 0.03**2) / (variances + 0.03**2)
            if scale == len(weights) - 1:
                term *= (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
            value *= max(term.mean(), 0.0) ** weight
        return value

    pairs = np.triu_indices(len(volumes), 1)
    return lambda: np.mean(
        [similarity(*volumes[[i, j]].astype(np.float64)) for i, j in zip(*pairs, strict=True)]
    )


def _all_pairs(volumes: NDArray[np.float32]) -> list[Any]:
    """First and second volume of every pair, `(pairs, 1, D, H, W)` each."""
    first, second = np.triu_indices(len(volumes), 1)
    return tensors([volumes[first][:, None], volumes[second][:, None]])


def _weights(volumes: NDArray[np.float32]) -> list[float]:
    """The weights of as many scales as ours uses on this grid."""
    from metrics.ms_ssim import WEIGHTS, n_scales

    used = WEIGHTS[: n_scales(volumes.shape[1:])]
    return [weight / sum(used) for weight in used]


# --- Dice, HD95, surface Dice -------------------------------------------------------------------

CLASSES = (1, 2, 3, 4)
TOLERANCE_MM = 3.0


def dice(case: Segmentations) -> Call:
    from metrics.dice import dice_per_class

    return lambda: dice_per_class(case.prediction, case.reference, CLASSES)


def dice_monai(case: Segmentations) -> Call:
    from monai.metrics import compute_dice

    masks = _one_hot(case)
    return lambda: compute_dice(*masks, include_background=False)[0]


def dice_monai_indices(case: Segmentations) -> Call:
    from monai.metrics import compute_dice

    labels = [array[None, None] for array in tensors(case[:2])]
    options = {"include_background": False, "num_classes": len(CLASSES) + 1}
    return lambda: compute_dice(*labels, **options)[0]


def dice_torchmetrics(case: Segmentations) -> Call:
    from torchmetrics.functional.segmentation import dice_score

    masks = _one_hot(case)
    options = {"num_classes": len(CLASSES) + 1, "include_background": False, "average": "none"}
    return lambda: dice_score(*masks, **options)[0]


def _surfaces(case: Segmentations) -> list[Any]:
    from metrics.surface import surface_scores

    return [
        surface_scores(case.prediction == c, case.reference == c, case.spacing, TOLERANCE_MM)
        for c in CLASSES
    ]


def hd95(case: Segmentations) -> Call:
    return lambda: [scores.hd95 for scores in _surfaces(case)]


def surface_dice(case: Segmentations) -> Call:
    return lambda: [scores.surface_dice for scores in _surfaces(case)]


def hd95_monai(case: Segmentations) -> Call:
    from monai.metrics import compute_hausdorff_distance

    masks = _one_hot(case)
    options = {"percentile": 95, "spacing": case.spacing, "include_background": False}
    return lambda: compute_hausdorff_distance(*masks, **options)[0]


def hd95_scipy(case: Segmentations) -> Call:
    """The definition, written down with SciPy's erosion and Euclidean distance transform."""

    def call() -> list[float]:
        return [
            max(
                float(np.percentile(distances, 95)) for distances in _surface_distances(case, label)
            )
            for label in CLASSES
        ]

    return call


def surface_dice_monai(case: Segmentations) -> Call:
    from monai.metrics import compute_surface_dice

    masks = _one_hot(case)
    tolerances = [TOLERANCE_MM] * len(CLASSES)
    options = {"spacing": case.spacing, "include_background": False}
    return lambda: compute_surface_dice(*masks, tolerances, **options)[0]


def surface_dice_scipy(case: Segmentations) -> Call:
    """The definition, as `hd95_scipy`."""

    def call() -> list[float]:
        values = []
        for label in CLASSES:
            distances = np.concatenate(_surface_distances(case, label))
            values.append(float((distances <= TOLERANCE_MM).mean()))
        return values

    return call


def _surface_distances(case: Segmentations, label: int) -> list[NDArray[np.float64]]:
    """Distances in mm of each mask's surface voxels to the other mask's surface."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    masks = case.prediction == label, case.reference == label
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    return [
        distance_transform_edt(~to, sampling=case.spacing)[of]
        for of, to in (surfaces, surfaces[::-1])
    ]


def _one_hot(case: Segmentations) -> list[Any]:
    """Both as `(1, C, D, H, W)`, the background first."""
    import torch

    labels = np.arange(len(CLASSES) + 1).reshape(-1, 1, 1, 1)
    return [torch.from_numpy(np.ascontiguousarray(array == labels))[None] for array in case[:2]]
