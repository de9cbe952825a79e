"""Feature vectors: checks, pooling of slices, and distances that are exact for equal rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Below this share of |x|² + |y|² the Gram form of |x - y|² has lost six of its sixteen digits.
_CLOSE = 1e-6
_CHUNK = 2**22


def pooled(features: ArrayLike) -> NDArray[np.float64]:
    """The rows ``(n * slices, d)`` of features by volume.

    Args:
        features: ``(n, d)``, returned as it is, or ``(n, slices, d)`` of the protocol "2.5d", where
            a distribution is that of all slices but a volume is still what is drawn.

    Raises:
        ValueError: neither two nor three axes.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"The features have shape {array.shape}; expected (n, d), or (n, slices, d)."
        )
    return array if array.ndim == 2 else array.reshape(-1, array.shape[2])


def checked(features: ArrayLike, name: str) -> NDArray[np.float64]:
    """Features ``(n, d)`` as float64, all finite, n >= 2 and d >= 1.

    Raises:
        ValueError: anything else; the sentence calls the set by its ``name``.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"The {name} features have shape {array.shape}; expected (n, d), d >= 1.")
    if len(array) < 2:
        raise ValueError(
            f"The {name} features hold {len(array)} row(s); a distribution needs at least 2."
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(
            f"The {name} features of row {row} are not finite; check the volume they came from."
        )
    return array


def checked_pair(
    real: ArrayLike, synthetic: ArrayLike, names: tuple[str, str] = ("real", "synthetic")
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two sets as `checked` returns them, of one d.

    Raises:
        ValueError: a set that `checked` refuses, or sets of different d.
    """
    x, y = checked(real, names[0]), checked(synthetic, names[1])
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"The {names[0]} features have {x.shape[1]} dimensions and the {names[1]} "
            f"{y.shape[1]}; extract both with the same extractor."
        )
    return x, y


def checked_volumes(features: ArrayLike, name: str) -> NDArray[np.float64]:
    """Features by volume, ``(n, d)`` or ``(n, slices, d)``, whose pooled rows pass `checked`.

    Raises:
        ValueError: rows that `checked` refuses.
    """
    array = np.asarray(features, dtype=np.float64)
    checked(pooled(array), name)
    return array


def centred(*sets: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The sets less the mean of all their rows, which spares `squared_distances` cancellation."""
    rows = np.concatenate(sets)
    rows -= rows.mean(axis=0)
    return np.split(rows, np.cumsum([len(rows_of) for rows_of in sets[:-1]]))


def squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances ``(n, m)`` between rows ``(n, d)`` and ``(m, d)``.

    Most come from one matrix product, as ``|x|² + |y|² - 2 x·y``. Pairs so close that this form
    cancels are computed from their difference: equal rows are at distance 0, exactly.
    """
    norms_x = np.einsum("ij,ij->i", x, x)
    norms_y = norms_x if y is x else np.einsum("ij,ij->i", y, y)
    sizes = norms_x[:, None] + norms_y
    distances = x @ y.T
    distances *= -2.0
    distances += sizes
    sizes *= _CLOSE
    close = distances <= sizes
    if y is x:  # a row is at distance 0 from itself, which needs no difference
        np.fill_diagonal(distances, 0.0)
        np.fill_diagonal(close, False)
    first, second = np.nonzero(close)
    step = max(1, _CHUNK // x.shape[1])
    for start in range(0, len(first), step):
        i, j = first[start : start + step], second[start : start + step]
        distances[i, j] = np.square(x[i] - y[j]).sum(axis=1)
    return distances
