"""The Fréchet inception distance of volumes, one per anatomical plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.extractors import Extractor
from metrics.frechet import frechet_distance
from metrics.planes import PLANES, reorient

AVERAGE = "average"
RANGE_TOLERANCE = 1e-3


def plane_features(
    volumes: NDArray[Any], extractor: Extractor, axes: str = "RAS", batch_size: int = 4
) -> dict[str, NDArray[np.float64]]:
    """Features of every volume in every plane, by the protocol "reorient".

    Args:
        volumes: ``(N, D, H, W)`` in [0, 1]; a memory-mapped array is read batch by batch, once, and
            never held whole.
        extractor: sees the whole volume, once per plane.
        axes: directions of the spatial axes, see `metrics.planes.normal_axis`.
        batch_size: volumes held in memory at once.

    Returns:
        For each of `metrics.planes.PLANES`, features ``(N, d)``.

    Raises:
        ValueError: a wrong shape, or a volume that is not finite or leaves [0, 1].
    """
    if volumes.ndim != 4 or not len(volumes):
        raise ValueError(f"Volumes have shape {volumes.shape}; expected (N, D, H, W), N >= 1.")
    features: dict[str, list[NDArray[np.float64]]] = {plane: [] for plane in PLANES}
    for start in range(0, len(volumes), batch_size):
        batch = np.asarray(volumes[start : start + batch_size], dtype=np.float32)
        _check_range(batch, start)
        for plane in PLANES:
            rows = extractor(reorient(batch, plane, axes))
            features[plane].append(np.asarray(rows, dtype=np.float64))
    return {plane: np.concatenate(rows) for plane, rows in features.items()}


def fid_per_plane(
    real_features: Mapping[str, ArrayLike], synthetic_features: Mapping[str, ArrayLike]
) -> dict[str, float]:
    """Fréchet distance in each plane, and their mean as the paper's tables print it.

    Args:
        real_features: plane -> ``(n, d)``, of one extractor.
        synthetic_features: plane -> ``(m, d)``, of the same extractor and planes.

    Returns:
        plane -> distance, and "average" -> their mean. Biased upwards at small n.

    Raises:
        ValueError: no or different planes, or features `frechet_distance` refuses.
    """
    if not real_features or set(real_features) != set(synthetic_features):
        raise ValueError(
            f"The real features have the planes {sorted(real_features)} and the synthetic "
            f"{sorted(synthetic_features)}; extract the same planes of both."
        )
    distances = {
        plane: frechet_distance(real, synthetic_features[plane])
        for plane, real in real_features.items()
    }
    return distances | {AVERAGE: float(np.mean(list(distances.values())))}


def _check_range(batch: NDArray[np.float32], start: int) -> None:
    for offset, volume in enumerate(batch):
        low, high = float(volume.min()), float(volume.max())
        # A nan fails the comparison.
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise ValueError(
                f"Volume {start + offset} has intensities from {low:g} to {high:g}; "
                "extractors take finite values in [0, 1]."
            )
