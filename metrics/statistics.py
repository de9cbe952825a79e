"""Gains of one arm over another, and intervals of means over cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_RESAMPLES = 9999


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval; both nan where there is none."""

    low: float
    high: float


class PairedGain(NamedTuple):
    """Mean of ``rs - r`` over n pairs, in the units of the score, with its interval."""

    mean: float
    interval: Interval
    n: int


def relative_gain(r: float, rs: float) -> float:
    """Gain of R+S over R in percent of R, as the paper prints it: ``100 (rs - r) / r``.

    Args:
        r: mean score of the arm trained on real volumes.
        rs: mean score of the arm trained on real and synthetic volumes.

    Returns:
        Percent; nan where r is 0 and no relative gain exists, or where a score is nan.
    """
    return 100.0 * (rs - r) / r if r != 0 else float("nan")


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., NDArray[np.float64]] = np.mean,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a statistic of independent cases (Efron 1979).

    The percentile method, unlike BCa, is defined for constant samples, where the interval has
    length zero.

    Args:
        values: ``(n,)`` one value per case; nan (an absent structure) is left out.
        statistic: maps an array to its statistic along ``axis`` (`numpy.mean`, `numpy.median`).
        n_resamples: resamples drawn.
        seed: the same seed gives the same interval.
        level: confidence level in (0, 1).

    Returns:
        The interval, in the units of the statistic; nan with fewer than two values.

    Raises:
        ValueError: values that are not one-dimensional.
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(
            f"The values have shape {sample.shape}; expected one value per case, (n,)."
        )
    sample = sample[~np.isnan(sample)]
    if sample.size < 2:
        return Interval(float("nan"), float("nan"))
    result = bootstrap(
        (sample,),
        statistic,
        n_resamples=n_resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_gain(
    r: ArrayLike,
    rs: ArrayLike,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> PairedGain:
    """Mean absolute gain of R+S over R, paired by case, with its bootstrap interval.

    Args:
        r: ``(n,)`` scores of the arm trained on real volumes.
        rs: ``(n,)`` scores of the same cases, in the same order, of the other arm.
        n_resamples, seed, level: see `bootstrap_interval`.

    Returns:
        The gain; its mean is nan where no case has a score.

    Raises:
        ValueError: different shapes, or a case that is nan in one arm alone: by the rule of
            `metrics.dice` both arms lack the same cases, so these would not be pairs.
    """
    first, second = np.asarray(r, dtype=np.float64), np.asarray(rs, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"The arms have shapes {first.shape} and {second.shape}; "
            "a paired gain needs the same cases in both, (n,)."
        )
    mismatched = np.flatnonzero(np.isnan(first) != np.isnan(second))
    if mismatched.size:
        raise ValueError(
            f"Case {mismatched[0]} has a score in one arm only; "
            "score both arms against the same references."
        )
    gains = (second - first)[~np.isnan(first)]
    mean = float(gains.mean()) if gains.size else float("nan")
    return PairedGain(
        mean, bootstrap_interval(gains, np.mean, n_resamples, seed, level), gains.size
    )
