"""The Fréchet distance between two sets of feature vectors, without a matrix square root."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
    x = _checked(real, "real")
    y = _checked(synthetic, "synthetic")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"The real features have {x.shape[1]} dimensions and the synthetic {y.shape[1]}; "
            "extract both with the same extractor."
        )
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    a = _factor((x - mean_x) / np.sqrt(len(x) - 1))
    b = _factor((y - mean_y) / np.sqrt(len(y) - 1))
    nuclear_norm = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    squared_means = np.square(mean_x - mean_y).sum()
    distance = squared_means + np.square(a).sum() + np.square(b).sum() - 2.0 * nuclear_norm
    return max(float(distance), 0.0)


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


def _checked(features: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"The {name} features have shape {array.shape}; expected (n, d), d >= 1.")
    if len(array) < 2:
        raise ValueError(
            f"The {name} features hold {len(array)} row(s); a covariance needs at least 2 volumes."
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(
            f"The {name} features of row {row} are not finite; check the volume they came from."
        )
    return array
