"""Memorisation: does a generator give back the volumes it was trained on?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.features import centred, checked_pair, squared_distances

Array = NDArray[np.float64]

# A near copy lies within this share of the usual distance of an unseen volume, see `memorisation`.
NEAR = 0.5
_BLOCK = 1024  # rows whose distances to the training set are held at once


class Memorisation(NamedTuple):
    """How near synthetic volumes come to the training set, beside unseen real ones."""

    median_synthetic: float  # median distance to the nearest training volume, units of the features
    median_test: float
    near_copies: float  # share in [0, 1] of synthetic volumes that are near copies
    near_copies_test: float  # the same of test volumes: what the rule flags without any copying
    p_value: float  # one-sided: small where synthetic volumes are nearer than test volumes
    nearest: NDArray[np.int_]  # (n,) the nearest training volume of each synthetic one
    distance: Array  # (n,) the distance to it


def memorisation(train: ArrayLike, test: ArrayLike, synthetic: ArrayLike) -> Memorisation:
    """Distances of synthetic volumes to the nearest training volume, against those of test volumes.

    Distance is Euclidean in the extractor's own space, the one whose Fréchet distance is reported.
    Standardising each feature first would let those that hardly vary between volumes decide.

    A near copy is a volume whose distance is less than half the median distance of the test
    volumes. A median is steady from few test volumes on, where a low quantile is their minimum or
    an extrapolation; half of it is rarely reached by chance, because distances to the nearest of
    many points spread little about their median once a handful of directions vary. How rarely in
    the case at hand is said by ``near_copies_test``, where the median is that of the other test
    volumes. The p-value is that of the data-copying test of Meehan et al. (arXiv 2004.05675): the
    Mann-Whitney test of the two samples of distances.

    Args:
        train: features ``(n_train, d)`` of the volumes that the generator saw.
        test: features ``(n_test, d)`` of volumes it did not see; n_test >= 8 for a steady median.
        synthetic: features ``(n, d)``.

    Raises:
        ValueError: a set of fewer than 2 volumes, features that are not finite, sets of different
            d, or half of the test volumes equal to a training volume: there is no usual distance.
    """
    from scipy.stats import mannwhitneyu

    x, unseen = checked_pair(train, test, ("training", "test"))
    x, made = checked_pair(x, synthetic, ("training", "synthetic"))
    x, unseen, made = centred(x, unseen, made)
    _, of_test = _nearest(x, unseen)
    nearest, distance = _nearest(x, made)
    usual = float(np.median(of_test))
    if usual == 0:
        raise ValueError(
            f"The median distance of the {len(of_test)} test volumes to the training set is 0, so "
            "that no distance is near; expected test volumes that are not in the training set, and "
            "features that vary."
        )
    others = np.array([np.median(np.delete(of_test, i)) for i in range(len(of_test))])
    p_value = mannwhitneyu(distance, of_test, alternative="less").pvalue
    return Memorisation(
        median_synthetic=float(np.median(distance)),
        median_test=usual,
        near_copies=float(np.mean(distance < NEAR * usual)),
        near_copies_test=float(np.mean(of_test < NEAR * others)),
        p_value=float(p_value),
        nearest=nearest,
        distance=distance,
    )


def _nearest(train: Array, rows: Array) -> tuple[NDArray[np.int_], Array]:
    """For each row the index of the nearest training row, and the distance to it."""
    indices, distances = [], []
    for start in range(0, len(rows), _BLOCK):
        squares = squared_distances(rows[start : start + _BLOCK], train)
        index = squares.argmin(axis=1)
        indices.append(index)
        distances.append(np.sqrt(np.take_along_axis(squares, index[:, None], axis=1)[:, 0]))
    return np.concatenate(indices), np.concatenate(distances)
