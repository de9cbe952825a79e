"""Kernel distances between two sets of feature vectors: unbiased at any n, unlike the Fréchet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.features import centred, checked_pair, squared_distances

Array = NDArray[np.float64]

_BLOCK = 2048  # rows whose kernel values are held at once


def kernel_distance(real: ArrayLike, synthetic: ArrayLike) -> float:
    """Kernel inception distance (Bińkowski et al., arXiv 1801.01401) over all rows, no subsets.

    The unbiased estimate of the squared maximum mean discrepancy (Gretton et al., JMLR 2012, eq. 3)
    with the kernel ``((x·y)/d + 1)³``.

    Args:
        real: features ``(n, d)``, n >= 2.
        synthetic: features ``(m, d)``, m >= 2; n and m may differ.

    Returns:
        The distance. Its expectation is 0 for sets of one distribution, so it is then as often
        negative as positive.

    Raises:
        ValueError: a set that is not a finite 2D array of at least 2 rows, or sets of different d.
    """
    x, y = checked_pair(real, synthetic)
    return _unbiased_mmd(x, y, _polynomial)


def rbf_mmd(real: ArrayLike, synthetic: ArrayLike, bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``exp(-|x - y|² / (2 σ²))``.

    Args:
        real: features ``(n, d)``, n >= 2.
        synthetic: features ``(m, d)``, m >= 2.
        bandwidth: σ > 0, in units of the features. By default the median distance between two real
            rows (Gretton et al., JMLR 2012, section 8): the synthetic ones have no say, so that all
            generators are measured with one kernel.

    Returns:
        The distance, at most 2; its expectation is 0 for sets of one distribution.

    Raises:
        ValueError: features `kernel_distance` refuses, a bandwidth that is not positive, or none
            given where half of the real rows are equal and the median is 0.
    """
    x, y = centred(*checked_pair(real, synthetic))
    sigma = _median_distance(x) if bandwidth is None else bandwidth
    if not 0 < sigma < np.inf:
        raise ValueError(
            f"The bandwidth is {sigma:g}; expected a positive number"
            + (", but most real rows are equal: give one." if bandwidth is None else ".")
        )

    def kernel(a: Array, b: Array) -> Array:
        distances = squared_distances(a, b)
        distances /= -2.0 * sigma**2
        return np.exp(distances, out=distances)

    return _unbiased_mmd(x, y, kernel)


def _unbiased_mmd(x: Array, y: Array, kernel: Callable[[Array, Array], Array]) -> float:
    n, m = len(x), len(y)
    within = _total(x, x, kernel, off_diagonal=True) / (n * (n - 1))
    within += _total(y, y, kernel, off_diagonal=True) / (m * (m - 1))
    return within - 2.0 * _total(x, y, kernel) / (n * m)


def _total(
    x: Array, y: Array, kernel: Callable[[Array, Array], Array], off_diagonal: bool = False
) -> float:
    """Sum of the kernel over all pairs of rows, or over those of two different rows of one set."""
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        values = kernel(x[start : start + _BLOCK], y)
        if off_diagonal:
            own = np.arange(len(values))
            values[own, start + own] = 0.0
        total += float(values.sum())
    return total


def _polynomial(x: Array, y: Array) -> Array:
    values = x @ y.T
    values /= x.shape[1]
    values += 1.0
    # A power of an array calls pow for each element; the product takes a twentieth of the time.
    squares = values * values
    squares *= values
    return squares


def _median_distance(x: Array) -> float:
    from scipy.spatial.distance import squareform

    squares = squared_distances(x, x)
    return float(np.median(np.sqrt(squareform(squares, checks=False))))
