"""The Fréchet inception distance of volumes, one per anatomical plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.extractors import PROTOCOLS, Extractor
from metrics.features import pooled
from metrics.frechet import frechet_distance
from metrics.planes import PLANES, reorient

AVERAGE = "average"
RANGE_TOLERANCE = 1e-3


def plane_features(
    volumes: NDArray[Any], extractor: Extractor, axes: str = "RAS", batch_size: int = 4
) -> dict[str, NDArray[np.float64]]:
    """Features of every volume in every plane, by the extractor's protocol.

    "reorient": the extractor sees whole volumes, the plane's normal as their first axis. "2.5d": it
    sees the slices along the plane's normal, each for itself.

    Args:
        volumes: ``(N, D, H, W)`` in [0, 1]; a memory-mapped array is read batch by batch, once, and
            never held whole.
        extractor: called once per plane and batch ("reorient"), or per plane and volume ("2.5d").
        axes: directions of the spatial axes, see `metrics.planes.normal_axis`.
        batch_size: volumes held in memory at once.

    Returns:
        For each of `metrics.planes.PLANES`, features ``(N, d)``, or ``(N, slices, d)`` where a
        plane has as many slices as the volume has voxels along its normal. n is the number of
        volumes in both.

    Raises:
        ValueError: a wrong shape, a volume that is not finite or leaves [0, 1], an unknown
            protocol, or features of another shape than the extractor declares.
    """
    if volumes.ndim != 4 or not len(volumes):
        raise ValueError(f"Volumes have shape {volumes.shape}; expected (N, D, H, W), N >= 1.")
    if extractor.protocol not in PROTOCOLS:
        raise ValueError(
            f"The extractor {extractor.name} has the protocol '{extractor.protocol}'; expected one "
            f"of {', '.join(PROTOCOLS)}."
        )
    features: dict[str, list[NDArray[np.float64]]] = {plane: [] for plane in PLANES}
    for start in range(0, len(volumes), batch_size):
        batch = np.asarray(volumes[start : start + batch_size], dtype=np.float32)
        _check_range(batch, start)
        for plane in PLANES:
            turned = reorient(batch, plane, axes)
            if extractor.protocol == "2.5d":
                rows = np.stack([_called(extractor, slices) for slices in turned])
            else:
                rows = _called(extractor, turned)
            features[plane].append(rows)
    return {plane: np.concatenate(rows) for plane, rows in features.items()}


def _called(extractor: Extractor, volumes: NDArray[Any]) -> NDArray[np.float64]:
    """Features ``(B, d)`` of volumes or slices; ValueError for any other shape or for nan."""
    rows = np.asarray(extractor(volumes), dtype=np.float64)
    if rows.shape != (len(volumes), extractor.dim) or not np.isfinite(rows).all():
        raise ValueError(
            f"The extractor {extractor.name} gave features of shape {rows.shape} for an array of "
            f"shape {volumes.shape}; expected finite ones of shape "
            f"{(len(volumes), extractor.dim)}."
        )
    return rows


def fid_per_plane(
    real_features: Mapping[str, ArrayLike], synthetic_features: Mapping[str, ArrayLike]
) -> dict[str, float]:
    """Fréchet distance in each plane, and their mean as the paper's tables print it.

    Args:
        real_features: plane -> ``(n, d)``, or ``(n, slices, d)``, n volumes, of one extractor. The
            slices of all volumes are pooled: the distance is between ``n * slices`` rows each.
        synthetic_features: plane -> the same of m volumes, same extractor and planes.

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
        plane: frechet_distance(pooled(real), pooled(synthetic_features[plane]))
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
