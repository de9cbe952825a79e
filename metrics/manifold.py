"""Fidelity and diversity apart: precision and recall, density and coverage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.features import centred, checked_pair, squared_distances

_BLOCK = 2048  # rows whose distances are held at once


class Manifold(NamedTuple):
    """Shares in [0, 1], except `density`, which may exceed 1; high is good for all four."""

    precision: float  # synthetic volumes within reach of a real one: fidelity
    recall: float  # real volumes within reach of a synthetic one: diversity
    density: float  # real neighbourhoods a synthetic volume lies in, over k
    coverage: float  # real volumes with a synthetic one in their neighbourhood


def manifold(real: ArrayLike, synthetic: ArrayLike, k: int = 5) -> Manifold:
    """Precision, recall (Kynkäänniemi et al., arXiv 1904.06991), density and coverage.

    Density and coverage are those of Naeem et al. (arXiv 2002.09797). A row's neighbourhood is the
    open ball about it that reaches to its k-th nearest other row of the same set. Two sets of one
    distribution have density 1 and coverage about 1 - 2^-k in expectation; precision and recall
    depend on n and d even then, so read them beside a floor.

    Equal rows (a generator that repeats a volume) are at distance 0 and have neighbourhoods without
    extent, in which nothing lies; equal distances compare as equal whichever rows they belong to.

    Args:
        real: features ``(n, d)``, n > k.
        synthetic: features ``(m, d)``, m > k.
        k: which neighbour bounds a neighbourhood, >= 1.

    Raises:
        ValueError: k < 1, a set of k rows or fewer, or features that are not finite, not 2D or of
            different d.
    """
    x, y = checked_pair(real, synthetic)
    n, m = len(x), len(y)
    if k < 1 or min(n, m) <= k:
        raise ValueError(
            f"The sets hold {n} real and {m} synthetic rows and k is {k}; "
            "expected k >= 1 and more than k rows in each."
        )
    # Distances are computed between distinct rows only: two products of equal rows may differ in
    # their last bit, and the comparisons below are strict.
    x, y = centred(x, y)
    rows, index = _distinct(np.concatenate([x, y]))
    of_real, of_synthetic = index[:n], index[n:]
    n_real = np.bincount(of_real, minlength=len(rows))
    n_synthetic = np.bincount(of_synthetic, minlength=len(rows))
    precise, recalled = np.zeros(m, dtype=bool), np.zeros(n, dtype=bool)
    inside = covered = 0
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        part = rows if len(rows) <= _BLOCK else rows[block]
        distances = squared_distances(part, rows)
        balls = n_real[block] > 0
        within = _within(distances[balls], of_real, of_synthetic, k)
        precise |= within.any(axis=0)
        inside += int(n_real[block][balls] @ within.sum(axis=1))
        covered += int(n_real[block][balls] @ within.any(axis=1))
        balls = n_synthetic[block] > 0
        recalled |= _within(distances[balls], of_synthetic, of_real, k).any(axis=0)
    return Manifold(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=inside / (k * m),
        coverage=covered / n,
    )


def _within(
    distances: NDArray[np.float64], own: NDArray[np.int_], other: NDArray[np.int_], k: int
) -> NDArray[np.bool_]:
    """Which of the other set's rows lie in the neighbourhood of each row, ``(rows, len(other))``.

    Args:
        distances: ``(rows, distinct)`` from rows of the own set to all distinct rows.
        own: ``(n,)`` the distinct row of each row of the own set, those of ``distances`` included.
        other: ``(m,)`` the distinct row of each row of the other set.
        k: as in `manifold`.
    """
    # The row itself is among its own set, at distance 0: the k-th other is at position k.
    radii = np.partition(distances[:, own], k, axis=1)[:, k]
    return np.asarray(distances[:, other] < radii[:, None])


def _distinct(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """The distinct rows in order of first appearance, and the distinct row of each row.

    `numpy.unique` along an axis sorts rows field by field, which takes longer than the metric.
    """
    if len(np.unique(rows.sum(axis=1))) == len(rows):  # equal rows have equal sums
        return rows, np.arange(len(rows))
    seen: dict[bytes, int] = {}
    # Adding 0 turns -0.0 into 0.0, which is equal and has other bytes.
    index = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows + 0.0])
    first = np.zeros(len(seen), dtype=np.int_)
    first[index[::-1]] = np.arange(len(rows))[::-1]
    return rows[first], index
