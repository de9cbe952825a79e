"""Intervals of scores of two sets, by drawing volumes again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.features import pooled
from metrics.frechet import WeightedFrechet
from metrics.statistics import Interval

Array = NDArray[np.float64]

N_RESAMPLES = 200

INTERVAL_METHOD = (
    "95 % interval of the expected score at this n, by the centred bootstrap: real and synthetic "
    "volumes drawn with replacement, the quantiles of the scores less their mean added to the "
    "value."
)


def resampled(
    statistic: Callable[[Array, Array], ArrayLike],
    real: ArrayLike,
    synthetic: ArrayLike,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Array:
    """A statistic of bootstrap resamples of two sets of volumes.

    Which real volumes resample r holds depends on the seed, r and their number alone. Replicates of
    several generators, or of several planes, are thereby paired, and their differences and means
    can be taken resample by resample.

    Args:
        statistic: maps features of real and synthetic rows, both 2D, to a number or to several.
        real: features ``(n, d)``, or ``(n, slices, d)`` of which volumes are drawn and all slices
            of those drawn are pooled.
        synthetic: features ``(m, d)`` or ``(m, slices, d)``.
        n_resamples: resamples drawn, >= 1.
        seed: the same seed draws the same volumes.

    Returns:
        ``(n_resamples,)``, or ``(n_resamples, ...)`` if the statistic has more than one number.

    Raises:
        ValueError: fewer than 2 volumes in a set, no resamples asked for, or what the statistic
            raises.
    """
    x, y = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    return np.array(
        [
            statistic(pooled(x[rows]), pooled(y[others]))
            for rows, others in _draws(_size(x, "real"), _size(y, "synthetic"), n_resamples, seed)
        ],
        dtype=np.float64,
    )


def frechet_resamples(
    real: ArrayLike, synthetic: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Array:
    """`resampled` of `metrics.frechet.frechet_distance`: the same numbers, many times faster.

    Args:
        real, synthetic, n_resamples, seed: see `resampled`. With more rows (of slices) than
            features in both sets, a resample takes as long as the distance itself.

    Returns:
        ``(n_resamples,)``. They lie above the distance itself, because a resample holds fewer
        distinct volumes: `centred_interval` takes this out.

    Raises:
        ValueError: features that `frechet_distance` refuses, or no resamples asked for.
    """
    pair = WeightedFrechet(real, synthetic)
    n, m = pair.n_real, pair.n_synthetic
    return np.array(
        [
            pair.distance(np.bincount(rows, minlength=n), np.bincount(others, minlength=m))
            for rows, others in _draws(n, m, n_resamples, seed)
        ]
    )


def centred_interval(value: float, replicates: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the expected score at this n, from `resampled` replicates.

    The bias of a set score grows as sets shrink, and a resample of n volumes holds only about
    0.63 n distinct ones: percentiles of the replicates lie above the value. Their spread, though,
    is about that of the score between sets. So the replicates are moved to have the value as mean.
    On Gaussians of 8 to 256 dimensions and 16 or 64 volumes, 95 % intervals of the Fréchet distance
    hold its expectation in 90 to 100 % of cases: sets of one distribution, where the distance
    varies less than its resamples, are on the safe side. With 8 volumes it is 87 to 99 %. A share
    at the end of its range (a recall of 0, a precision of 1) hardly varies between resamples, and
    its interval is too short.

    Args:
        value: the score of the sets themselves.
        replicates: ``(n_resamples,)`` scores of resamples, at least 2.
        level: confidence level in (0, 1).

    Returns:
        The interval in units of the score. It is not cut to the range of the score: an end below 0
        for a distance says that 0 is not excluded.

    Raises:
        ValueError: replicates that are not one row of at least 2 finite numbers, a value that is
            not finite, or a level outside (0, 1).
    """
    scores = np.asarray(replicates, dtype=np.float64)
    if scores.ndim != 1 or len(scores) < 2:
        raise ValueError(
            f"The replicates have shape {scores.shape}; expected (n_resamples,), at least 2."
        )
    if not (np.isfinite(scores).all() and np.isfinite(value)):
        raise ValueError(
            f"The value is {value:g} and {np.count_nonzero(~np.isfinite(scores))} of "
            f"{len(scores)} replicates are not finite; expected finite scores."
        )
    if not 0 < level < 1:
        raise ValueError(f"The level is {level:g}; expected a number between 0 and 1.")
    tail = (1 - level) / 2
    low, high = value + np.quantile(scores - scores.mean(), [tail, 1 - tail])
    return Interval(float(low), float(high))


def _draws(
    n: int, m: int, n_resamples: int, seed: int
) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Real rows ``(n,)`` and synthetic rows ``(m,)`` of each resample."""
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}; expected at least 1.")
    return [
        (
            np.random.default_rng([seed, resample, 0]).integers(0, n, n),
            np.random.default_rng([seed, resample, 1]).integers(0, m, m),
        )
        for resample in range(n_resamples)
    ]


def _size(features: Array, name: str) -> int:
    if features.ndim not in (2, 3) or len(features) < 2:
        raise ValueError(
            f"The {name} features have shape {features.shape}; expected (n, d) or (n, slices, d), "
            "n >= 2."
        )
    return len(features)
