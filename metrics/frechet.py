"""The Fréchet distance between two sets of feature vectors, without a matrix square root."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.features import checked_pair, checked_volumes, pooled

# Sizes of the subsets as shares of the sets, and how many are drawn of each but the last.
FRACTIONS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
N_DRAWS = 10
MIN_EXTRAPOLATED = 8


def frechet_distance(real: ArrayLike, synthetic: ArrayLike) -> float:
    """Fréchet (2-Wasserstein, squared) distance between the Gaussians fitted to two sets.

    The definition (Dowson & Landau 1982; Heusel et al., arXiv 1706.08500) is
    ``|µx - µy|² + tr(Σx) + tr(Σy) - 2 tr((Σx Σy)^½)`` with covariances over n - 1. Write the
    centred features over √(n - 1) as A and B, so that Σx = AᵀA and Σy = BᵀB. The last trace is then
    the nuclear norm (the sum of the singular values) of A Bᵀ, which is real and defined for
    covariances of any rank, with no root of an ill-conditioned d x d matrix.

    Args:
        real: features ``(n, d)`` of the real volumes, n >= 2.
        synthetic: features ``(m, d)`` of the synthetic volumes, m >= 2.

    Returns:
        The distance, >= 0 (rounding below 0 is clipped), in squared units of the features. It is
        biased upwards at small n: read it beside a floor of two real sets of the same sizes.

    Raises:
        ValueError: a set that is not a finite 2D array of at least 2 rows and 1 column, or sets of
            different d.
    """
    x, y = checked_pair(real, synthetic)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    a = _factor((x - mean_x) / np.sqrt(len(x) - 1))
    b = _factor((y - mean_y) / np.sqrt(len(y) - 1))
    nuclear_norm = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    squared_means = np.square(mean_x - mean_y).sum()
    distance = squared_means + np.square(a).sum() + np.square(b).sum() - 2.0 * nuclear_norm
    return max(float(distance), 0.0)


def frechet_extrapolated(real: ArrayLike, synthetic: ArrayLike, *, seed: int = 0) -> float:
    """Fréchet distance extrapolated to sets of infinite size (Chong & Forsyth, arXiv 1911.07023).

    The distance is computed between random subsets, without replacement, of half to all of both
    sets; a line is fitted to it by least squares against the inverse of the subsets' share, and
    read off where that is 0. The bias is a straight line in 1/n only where n well exceeds the
    effective number of dimensions; below that the line takes away a part of it.

    Args:
        real: features ``(n, d)``, or ``(n, slices, d)`` whose subsets are of volumes; n >= 8.
        synthetic: features ``(m, d)`` or ``(m, slices, d)``, m >= 8.
        seed: the same seed draws the same subsets.

    Returns:
        The extrapolated distance, in squared units of the features. It scatters about the true
        distance and is not clipped: for sets of one distribution it is often negative.

    Raises:
        ValueError: fewer than 8 volumes in a set, or features `frechet_distance` refuses.
    """
    pair = WeightedFrechet(real, synthetic)
    if min(pair.n_real, pair.n_synthetic) < MIN_EXTRAPOLATED:
        raise ValueError(
            f"The sets hold {pair.n_real} real and {pair.n_synthetic} synthetic volumes; "
            f"the extrapolation needs at least {MIN_EXTRAPOLATED} of each."
        )
    rng = np.random.default_rng(seed)
    inverse_shares, distances = [], []
    for fraction in FRACTIONS:
        sizes = [round(fraction * n) for n in (pair.n_real, pair.n_synthetic)]
        draws = [
            pair.distance(_subset(rng, pair.n_real, sizes[0]), _subset(rng, pair.n_synthetic, size))
            for size in sizes[1:] * (N_DRAWS if fraction < 1 else 1)
        ]
        inverse_shares.append((pair.n_real / sizes[0] + pair.n_synthetic / sizes[1]) / 2)
        distances.append(np.mean(draws))
    return float(np.polynomial.Polynomial.fit(inverse_shares, distances, 1)(0.0))


class WeightedFrechet:
    """`frechet_distance` of many resamples of two sets, without recomputing products of features.

    A resample is a count for each volume. The nuclear norm is that of the cross product of the
    centred rows, which a resample only selects, centres and weights; a row drawn twice enters once
    with weight √2. So a resample costs one n x m singular value decomposition, whatever d is. With
    more than d rows in both sets, the d x d form is smaller and used instead.

    Args:
        real: features ``(n, d)`` or ``(n, slices, d)``.
        synthetic: features ``(m, d)`` or ``(m, slices, d)``.

    Raises:
        ValueError: features `frechet_distance` refuses.
    """

    def __init__(self, real: ArrayLike, synthetic: ArrayLike) -> None:
        by_volume = checked_volumes(real, "real"), checked_volumes(synthetic, "synthetic")
        x, y = checked_pair(pooled(by_volume[0]), pooled(by_volume[1]))
        self.n_real, self.n_synthetic = (len(features) for features in by_volume)
        self._slices = len(x) // self.n_real, len(y) // self.n_synthetic
        # Each about its own mean: sets far apart would lose digits about a common one.
        self._apart = x.mean(axis=0) - y.mean(axis=0)
        self._x, self._y = x - x.mean(axis=0), y - y.mean(axis=0)
        self._squares = np.square(self._x).sum(axis=1), np.square(self._y).sum(axis=1)
        self._tall = min(len(x), len(y)) > x.shape[1]
        self._cross = np.empty((0, 0)) if self._tall else self._x @ self._y.T

    def distance(self, real: NDArray[np.int_], synthetic: NDArray[np.int_]) -> float:
        """The distance of the resample with these counts of the volumes, ``(n,)`` and ``(m,)``.

        Raises:
            ValueError: counts that leave a set fewer than 2 rows.
        """
        u, v = np.repeat(real, self._slices[0]), np.repeat(synthetic, self._slices[1])
        total_u, total_v = int(u.sum()), int(v.sum())
        if min(total_u, total_v) < 2:
            raise ValueError(
                f"The resample holds {total_u} real and {total_v} synthetic rows; "
                "a distribution needs at least 2."
            )
        if self._tall:
            return frechet_distance(
                np.repeat(self._x + self._apart, u, axis=0), np.repeat(self._y, v, axis=0)
            )
        p, q = u / total_u, v / total_v
        mean_x, mean_y = p @ self._x, q @ self._y
        traces = [
            (counts @ squares - total * np.square(mean).sum()) / (total - 1)
            for counts, squares, total, mean in (
                (u, self._squares[0], total_u, mean_x),
                (v, self._squares[1], total_v, mean_y),
            )
        ]
        norm = self._nuclear_norm(u, v) / np.sqrt((total_u - 1.0) * (total_v - 1.0))
        means = np.square(self._apart + mean_x - mean_y).sum()
        return max(float(means + sum(traces) - 2.0 * norm), 0.0)

    def _nuclear_norm(self, u: NDArray[np.int_], v: NDArray[np.int_]) -> float:
        rows, columns = np.flatnonzero(u), np.flatnonzero(v)
        u, v = u[rows], v[columns]
        cross = self._cross[np.ix_(rows, columns)]
        cross -= u / u.sum() @ cross
        cross -= (cross @ (v / v.sum()))[:, None]
        cross *= np.sqrt(u)[:, None] * np.sqrt(v)
        return float(np.linalg.svd(cross, compute_uv=False).sum())


def _subset(rng: np.random.Generator, n: int, size: int) -> NDArray[np.int_]:
    """Counts ``(n,)`` of a subset: ``size`` ones, the rest 0."""
    counts = np.zeros(n, dtype=np.int_)
    counts[rng.choice(n, size, replace=False)] = 1
    return counts


def _factor(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix of at most d rows with the same ``AᵀA`` as ``centred (n, d)``.

    With n > d, A = QR and the orthonormal Q changes neither Frobenius nor nuclear norm. The d x d
    factor R replaces the eigenvalues of the symmetric product, whose square root would turn
    rounding of 1e-16 into errors of 1e-8.
    """
    n, d = centred.shape
    if n <= d:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"), dtype=np.float64)
